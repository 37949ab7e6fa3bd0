"""Every error that a user can meet. The message alone must be enough: what, where, what was expected."""

from __future__ import annotations


class InspectorError(Exception):
    """Base of all errors that are shown as one line, never as a traceback."""

    exit_code = 1


class SettingsError(InspectorError):
    """station.toml or the environment is wrong; names file, key, what was found, what was expected."""

    exit_code = 2


class CameraError(InspectorError):
    """A camera cannot be found, opened, configured or read."""


class CameraSetupError(CameraError):
    """The camera cannot do what station.toml asks of it; trying again does not help."""


class PixelFormatError(CameraSetupError):
    """The camera delivers a pixel format that the station does not decode."""


class ModelError(InspectorError):
    """The network cannot be built or does not fit its weights."""


class BundleError(ModelError):
    """A model bundle is missing, incomplete, altered or not calibrated for this machine."""


class PlcError(InspectorError):
    """The PLC cannot be reached, answers late, or refuses a request."""


class CoilsRefusedError(PlcError):
    """The PLC refuses coils with a Modbus exception; registers before them have been written."""


class LogError(InspectorError):
    """The inspection log or the frame store cannot be opened, read or written."""


class LogUnavailableError(LogError):
    """The log is locked, its disk is full or fails; it can be used again when that has passed."""


class DamagedLogError(LogError):
    """The log's file is no longer a sound database; it must be set aside."""


class DataError(InspectorError):
    """A folder of images is missing, empty or unreadable."""


class TrainingError(InspectorError):
    """Training or calibration cannot go on as asked."""


class BusyError(InspectorError):
    """Another retraining runs."""

    exit_code = 3


class TooFewPartsError(TrainingError):
    """Too few normal parts have come together to train anew."""

    exit_code = 4


class NoSpaceError(TrainingError):
    """The disk has no room to train anew without taking the line's."""

    exit_code = 5


class NoGpuError(TrainingError):
    """Retraining was to run on a GPU alone, and there is none."""

    exit_code = 6


class RefusedError(TrainingError):
    """The candidate is not as good as the active bundle, which stays."""

    exit_code = 7
