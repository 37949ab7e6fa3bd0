"""Python, libraries, GPU."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import re
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from inspector.doctor import FAIL, OK, WARN, Finding
from inspector.errors import ModelError
from inspector.settings import Settings

DRIVER = Path("/proc/driver/nvidia/version")
LIBRARIES = {  # module → distribution
    "numpy": "numpy",
    "scipy": "scipy",
    "cv2": "opencv-python",
    "torch": "torch",
    "torchvision": "torchvision",
    "timm": "timm",
    "safetensors": "safetensors",
    "harvesters.core": "harvesters",
    "genicam.gentl": "genicam",
    "pymodbus.client": "pymodbus",
    "sqlalchemy": "SQLAlchemy",
    "alembic": "alembic",
    "pydantic": "pydantic",
    "structlog": "structlog",
}
DEBIAN = {  # shared library → the Debian and Ubuntu package that brings it
    "libGL.so.1": "libgl1",
    "libEGL.so.1": "libegl1",
    "libgthread-2.0.so.0": "libglib2.0-0",
    "libglib-2.0.so.0": "libglib2.0-0",
    "libSM.so.6": "libsm6",
    "libICE.so.6": "libice6",
    "libXext.so.6": "libxext6",
    "libXrender.so.1": "libxrender1",
    "libX11.so.6": "libx11-6",
    "libxcb.so.1": "libxcb1",
    "libgomp.so.1": "libgomp1",
    "libstdc++.so.6": "libstdc++6",
}


def python(settings: Settings) -> Iterator[Finding]:
    """The interpreter and the machine."""
    machine = f"{platform.system()} {platform.release()} {platform.machine()}, {os.cpu_count()} cores"
    yield Finding(OK, "python", f"{platform.python_version()}, {machine}")


def libraries(settings: Settings) -> Iterator[Finding]:
    """Every library that a station loads, imported: a version alone does not show a missing libGL."""
    for module, distribution in LIBRARIES.items():
        yield _library(module, distribution)
    if settings.engine.runtime == "openvino":
        from inspector.model.converted import library

        with suppress(ModelError):
            library()  # first: it tells its maker nothing then
        yield _library("openvino", "openvino")


def _library(module: str, distribution: str) -> Finding:
    try:
        loaded = importlib.import_module(module)
    except ModuleNotFoundError as error:
        return Finding(
            FAIL, distribution, f"not installed ({error})", f"install it: pip install {distribution}"
        )
    except Exception as error:  # noqa: BLE001 - a broken native library raises anything at import
        return Finding(FAIL, distribution, f"cannot be loaded: {error}", _repair(distribution, str(error)))
    try:
        version = importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:  # such as opencv-python-headless
        version = getattr(loaded, "__version__", "version unknown")
    return Finding(OK, distribution, version)


def _repair(distribution: str, error: str) -> str:
    missing = re.search(r"lib[\w.+-]+\.so[\w.]*", error)
    if missing and missing[0] in DEBIAN:
        return f"apt install {DEBIAN[missing[0]]} (it brings {missing[0]})"
    if missing:
        return f"install the system package that brings {missing[0]} (apt-file search {missing[0]})"
    if distribution in ("torch", "torchvision", "timm"):
        return "torch and torchvision must be builds of one release: pip install --upgrade torch torchvision"
    return f"pip install --force-reinstall {distribution}"


def gpu(settings: Settings) -> Iterator[Finding]:
    """CUDA devices, and whether the one that [engine] device names can be had."""
    import torch

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    for index in range(count):
        device = torch.cuda.get_device_properties(index)
        free, total = (size / 2**30 for size in torch.cuda.mem_get_info(index))
        yield Finding(OK, f"gpu {index}", f"{device.name}, {total:.0f} GiB, {free:.0f} GiB free")
    if count == 0:
        yield _no_gpu(settings.engine.device, " ".join(str(one.message) for one in said))
    from inspector.model.engine import resolve

    resolve(settings.engine.device)


def _no_gpu(wanted: str, complaint: str) -> Finding:
    if wanted != "cpu" and DRIVER.exists():
        message = f"a driver is loaded, but torch cannot use a GPU: {complaint or 'it gives no reason'}"
        advice = "update the driver, or install a torch built for it; engine.device = cpu silences this"
        return Finding(WARN, "gpu", message, advice)
    return Finding(OK, "gpu", "none: the model runs on the CPU")
