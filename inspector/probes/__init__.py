"""What `inspector doctor` looks at: each probe yields findings and may raise."""
