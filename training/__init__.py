"""What runs at night or on a workstation: fit, losses, calibration, metrics, benchmark."""

import inspector  # noqa: F401 - sets how torch's threads wait, before any module here loads torch
