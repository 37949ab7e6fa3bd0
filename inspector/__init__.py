"""Inspect parts on a line: camera, model, verdict, PLC, log."""

__version__ = "0.1.0"
