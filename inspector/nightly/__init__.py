"""Retraining at night: from the log to a better model, on what the line leaves over."""
