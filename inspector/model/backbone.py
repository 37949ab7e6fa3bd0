"""A frozen backbone, timm's or our own, and its weights: features at several depths.

Any timm model that has `forward_intermediates` will do: DINOv2 and other ViTs, EfficientNets, ResNets,
ConvNeXts. The network is built without weights; training loads them once, and from then on they travel in
the bundle.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import timm
import torch
from timm.models.resnet import BasicBlock, ResNet
from torch import Tensor, nn
from torch.nn import functional as F

from inspector.errors import ModelError
from inspector.model.tracing import converting

STRIDES = (8, 16, 32)  # of a CNN's stages, unless levels are named
DEPTHS = (0.25, 0.5, 0.75)  # of a ViT's blocks
DRAWN = "drawn"  # the backbone of our own, whose weights come with the package
WEIGHTS = Path(__file__).with_name("drawn.safetensors")  # learned by `python -m training.pretrain`


class Backbone(nn.Module):
    """Features of a frozen model, which sees the part in one size or several.

    name: timm's; levels: stages or blocks, empty for the usual ones; size: of the square input, pixels;
    zooms: sizes in which it is seen, shares of that. looks: the same in pixels.
    channels, sides: of each level, in the order of levels, of the first size, then of the next. Raises
    ModelError.
    """

    def __init__(self, name: str, levels: tuple[int, ...], size: int, zooms: Sequence[float] = (1.0,)):
        super().__init__()
        self.model = create(name, size)
        self.levels = list(levels or usual_levels(self.model))
        known = len(self.model.feature_info)
        if any(not 0 <= level < known for level in self.levels) or sorted(set(self.levels)) != self.levels:
            raise ModelError(
                f"architecture.levels is {list(levels)}: backbone {name} has levels 0 to {known - 1}; "
                "expected different ones, ascending"
            )
        self.model.prune_intermediate_layers(self.levels, prune_head=True)
        self.requires_grad_(requires_grad=False).eval()
        self.looks = [round(size * zoom) for zoom in zooms]
        self.eyes: Iterable[nn.Module] = [self.model] * len(self.looks)
        seen = [f for look in self.looks for f in self._tried(look)]
        self.channels, self.sides = [f.shape[1] for f in seen], [f.shape[2] for f in seen]

    @torch.no_grad()
    def _tried(self, size: int) -> list[Tensor]:
        """Features of a square input of this size. Raises ModelError."""
        try:
            return self._levels(self.model, torch.zeros(1, 3, size, size))
        except (AssertionError, RuntimeError) as error:
            raise ModelError(f"the backbone takes no picture of {size} × {size} pixels ({error})") from error

    def train(self, mode: bool = True) -> Backbone:
        """Stays in evaluation mode: statistics and dropout are frozen too."""
        return super().train(mode=False)

    @torch.no_grad()
    def forward(self, x: Tensor) -> list[Tensor]:
        """x: (B, 3, S, S), normalised -> features of each level at each size, (B, C, H, W)."""
        return self.features(x)

    def features(self, x: Tensor) -> list[Tensor]:
        """The same for one that learns."""
        looks = zip(self.eyes, self.looks, strict=True)
        return [f for eye, look in looks for f in self._levels(eye, resized(x, look))]

    def for_inference(self) -> None:
        """Each size has a model of its own, whose layers can be laid out for it."""
        first, *others = self.eyes
        self.eyes = nn.ModuleList([first, *map(deepcopy, others)])

    def sources(self) -> list[str]:
        """What the features are, in their order."""
        return [f"level {level} of {look} x {look}" for look in self.looks for level in self.levels]

    def _levels(self, model: Any, x: Tensor) -> list[Tensor]:
        features: list[Tensor] = model.forward_intermediates(
            x, indices=self.levels, intermediates_only=True, output_fmt="NCHW"
        )
        return features

    def load(self, name: str, weights: str, size: int) -> None:
        """Fill in pretrained weights. Raises ModelError when there are none or they do not fit.

        weights: a file (.safetensors, or a .pth state dict), or "" for timm's own download.
        """
        own = self.model.state_dict()
        if weights or name == DRAWN:
            whole = create(name, size)
            file = Path(weights) if weights else WEIGHTS
            whole.load_state_dict(fitted(whole, name, file, set(own)), strict=False)
        else:
            whole = _downloaded(name, size)
        self.model.load_state_dict({k: v for k, v in whole.state_dict().items() if k in own})


def resized(x: Tensor, side: int) -> Tensor:
    """Bilinear, without aliasing: (B, C, H, W) -> (B, C, side, side)."""
    if x.shape[-1] == side:
        return x
    smaller = side < x.shape[-1]
    if smaller and converting():  # OpenVINO takes six times as long for it as for two products
        lines = _resizing(int(x.shape[-1]), side)
        return lines @ x @ lines.T
    return F.interpolate(x, (side, side), mode="bilinear", align_corners=False, antialias=smaller)


def _resizing(before: int, after: int) -> Tensor:
    """(after, before): what makes a line of so many places one of fewer."""
    unit = torch.eye(before)[None, None]
    how = {"mode": "bilinear", "align_corners": False, "antialias": True}
    return F.interpolate(unit, (after, before), **how)[0, 0]  # type: ignore[arg-type]  # mypy takes how's values together


def create(name: str, size: int, *, pretrained: bool = False) -> Any:
    """The timm model, without weights unless asked. Raises ModelError for a name or size that is refused."""
    if name == DRAWN:
        return _drawn()
    if not timm.is_model(name):
        near = ", ".join(timm.list_models(f"*{name.split('_')[0]}*")[:5]) or "see timm.list_models()"
        raise ModelError(
            f"architecture.backbone is {name!r}, which timm {timm.__version__} does not have; similar: {near}"
        )
    config = timm.get_pretrained_cfg(name)
    fixed: dict[str, Any] = {"img_size": size} if config is not None and config.fixed_input_size else {}
    try:
        model = timm.create_model(name, pretrained=pretrained, **fixed)
    except (AssertionError, TypeError, ValueError) as error:
        raise ModelError(f"backbone {name} cannot be built for {size} × {size} pixels ({error})") from error
    if not hasattr(model, "forward_intermediates") or not hasattr(model, "prune_intermediate_layers"):
        raise ModelError(
            f"backbone {name} gives no intermediate features in timm {timm.__version__}; take another"
        )
    return model


def _drawn() -> Any:
    """A small ResNet (He et al. 2016), one block a stage: as much as a CPU teaches in an hour."""
    return ResNet(
        BasicBlock,  # type: ignore[arg-type]  # timm means the class
        (1, 1, 1, 1),
        channels=(64, 128, 192, 256),
        num_classes=0,
        stem_type="deep_tiered",
        stem_width=32,
        avg_down=True,
    )


def normalisation(name: str) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Mean and standard deviation of the intensities that the backbone was trained with, for [0, 1]."""
    config = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
    if config is None:
        return (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    return (*config.mean,), (*config.std,)  # type: ignore[return-value]  # three channels


def usual_levels(model: Any) -> tuple[int, ...]:
    """Stages at strides 8, 16 and 32; of a model whose features all have one size, depths ¼, ½ and ¾."""
    strides = [int(info["reduction"]) for info in model.feature_info]
    if len(set(strides)) == 1:
        return tuple(sorted({round(depth * len(strides)) - 1 for depth in DEPTHS}))
    return tuple(
        max(i for i, s in enumerate(strides) if s == stride) for stride in STRIDES if stride in strides
    )


def fitted(model: Any, name: str, path: Path, used: set[str]) -> dict[str, Tensor]:
    """The file's tensors under the model's names. What is not used may be missing or of another size.

    Where all names differ, tensors are matched by order if all shapes agree: checkpoints of another
    implementation of the same network. Raises ModelError.
    """
    found = read(path)
    own: dict[str, Tensor] = model.state_dict()
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    needed = {k for k in own if k in used}
    if convert is not None and any(k not in found or found[k].shape != own[k].shape for k in needed):
        with suppress(KeyError, RuntimeError, ValueError, AttributeError):  # not one that timm converts
            found = convert(dict(found), model)  # other implementations' names, a ViT's positions resampled
    if needed <= set(found):
        wrong = [k for k in sorted(needed) if found[k].shape != own[k].shape]
        if wrong:
            key = wrong[0]
            raise ModelError(
                f"{path} does not fit backbone {name}: {key} has shape {tuple(found[key].shape)}, expected "
                f"{tuple(own[key].shape)}"
            )
        return {k: found[k] for k in needed}
    if not needed & set(found) and [t.shape for t in found.values()] == [t.shape for t in own.values()]:
        return dict(zip(own, found.values(), strict=True))
    missing = sorted(needed - set(found))
    raise ModelError(
        f"{path} does not fit backbone {name}: {len(missing)} of {len(needed)} tensors are missing, the "
        f"first is {missing[0]}; the file begins with {next(iter(found), 'nothing')}"
    )


def read(path: Path) -> dict[str, Tensor]:
    """Tensors of a .safetensors file or of a state dict saved by torch; nothing else is unpickled.

    Raises ModelError.
    """
    if not path.is_file():
        raise ModelError(f"backbone weights {path} do not exist; expected a .safetensors or .pth file")
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, safetensors.SafetensorError) as error:
        raise ModelError(f"backbone weights {path} cannot be read ({error})") from error
    except Exception as error:  # torch.load raises pickle's errors, which we do not import
        raise ModelError(f"backbone weights {path} are not a plain state dict ({error})") from error
    for key in ("state_dict", "model", "teacher"):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
    if not isinstance(loaded, Mapping) or not all(isinstance(t, Tensor) for t in loaded.values()):
        raise ModelError(f"backbone weights {path} are not a state dict: expected names and tensors")
    return {str(k).removeprefix("module.").removeprefix("backbone."): t for k, t in loaded.items()}


def _downloaded(name: str, size: int) -> Any:
    try:
        return create(name, size, pretrained=True)
    except ModelError:
        raise
    except Exception as error:  # hub clients raise errors of several libraries
        raise ModelError(
            f"pretrained weights of backbone {name} cannot be downloaded ({error}); name a local file with "
            "backbone_weights"
        ) from error
