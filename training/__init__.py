"""What runs at night or on a workstation: fit, losses, calibration, metrics, benchmark."""
