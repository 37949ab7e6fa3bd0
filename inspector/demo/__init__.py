"""`inspector demo`: a whole station on a machine that has no camera, no PLC and no GPU."""
