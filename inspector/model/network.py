"""The autoencoder: ViT encoder, memory, coordinate attention, decoder (paper, section 3).

Every method is a Network that reconstructs what a normal part would show. Training, calibration, bundle
and engine know no more of it than this class; METHODS says which methods there are.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from inspector.errors import ModelError
from inspector.model.attention import CoordinateAttention
from inspector.model.backbone import Backbone
from inspector.model.bank import MemoryBank
from inspector.model.decoder import Decoder
from inspector.model.memory import Addressing, Memory
from inspector.model.records import Architecture, Scoring
from inspector.model.scoring import picture_error


class Reconstruction(NamedTuple):
    """What was to be reproduced and what came out: pictures (B, C, H, W) in [-1, 1], or features (B, F)."""

    target: Tensor
    output: Tensor
    addressing: Addressing | None  # None without memory


class Network(nn.Module, ABC):
    """A method. Input is (B, 3, S, S), normalised as the bundle's preprocessing says."""

    def __init__(self, architecture: Architecture):
        super().__init__()
        self.architecture = architecture

    @property
    def memory(self) -> Memory | None:
        """The memory, where the architecture has one."""
        return None

    def for_inference(self) -> None:
        """Compute once what no picture changes. From then on only anomaly_map() holds; nothing is trained."""
        for module in list(self.modules()):
            if isinstance(module, Memory | MemoryBank | Backbone):
                module.for_inference()

    @abstractmethod
    def encode(self, x: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, C, h, w): the features that go into the memory."""

    @abstractmethod
    def reconstruct(self, x: Tensor) -> Reconstruction:
        """Reproduce x from what normal parts taught."""

    @abstractmethod
    def error_map(self, reconstruction: Reconstruction, scoring: Scoring) -> Tensor:
        """(B, S, S) error per input pixel, not smoothed, higher is less normal."""

    def views(self, reconstruction: Reconstruction) -> dict[str, Tensor]:
        """What there is to look at beside part and map, by title: pictures (B, 3, h, w), normalised as the
        input, or maps (B, h, w) on the scale of the error map.
        """
        return {"reconstruction": reconstruction.output}

    def forward(self, x: Tensor) -> Reconstruction:
        """The same as reconstruct()."""
        return self.reconstruct(x)

    def anomaly_map(self, x: Tensor, scoring: Scoring) -> Tensor:
        """(B, S, S) error per input pixel of x: (B, 3, S, S), not smoothed."""
        return self.error_map(self.reconstruct(x), scoring)


class Bottleneck(nn.Module):
    """Memory, then coordinate attention; either can be switched off (the paper's ablation)."""

    def __init__(self, dim: int, architecture: Architecture):
        super().__init__()
        a = architecture
        self.memory = Memory(a.slots, dim, a.temperature) if a.memory else None
        self.attention = CoordinateAttention(dim) if a.attention else nn.Identity()

    def forward(self, z: Tensor) -> tuple[Tensor, Addressing | None]:
        """z: (B, C, h, w) -> (B, C, h, w) and how the memory was addressed."""
        addressing = None
        if self.memory is not None and not self.memory.asleep:
            tokens, addressing = self.memory(z.flatten(2).transpose(1, 2))
            z = tokens.transpose(1, 2).reshape(z.shape)
        return self.attention(z), addressing


class Autoencoder(Network):
    """The paper's network. Its preprocessing must map intensities to [-1, 1], the range of tanh."""

    def __init__(self, architecture: Architecture):
        super().__init__(architecture)
        a = architecture
        self.encoder = VisionTransformer(
            img_size=a.size,
            patch_size=a.patch,
            embed_dim=a.dim,
            depth=a.depth,
            num_heads=a.heads,
            num_classes=0,
            global_pool="token",
        )
        self.bottleneck = Bottleneck(a.dim, a)
        self.decoder = Decoder(a.dim, a.patch)

    @property
    def memory(self) -> Memory | None:
        """The memory, None where it is switched off."""
        return self.bottleneck.memory

    def encode(self, x: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, C, S/patch, S/patch): the patch tokens, [CLS] dropped, as a map."""
        tokens: Tensor = self.encoder.forward_features(x)[:, self.encoder.num_prefix_tokens :]  # (B, L, C)
        side = self.architecture.size // self.architecture.patch
        return tokens.transpose(1, 2).reshape(x.shape[0], -1, side, side)

    def reconstruct(self, x: Tensor) -> Reconstruction:
        """The picture as the memory of normal parts can draw it."""
        z, addressing = self.bottleneck(self.encode(x))
        return Reconstruction(x, self.decoder(z), addressing)

    def error_map(self, reconstruction: Reconstruction, scoring: Scoring) -> Tensor:
        """L2 and SSIM error of every pixel."""
        return picture_error(reconstruction.target, reconstruction.output, scoring)


def _feature(architecture: Architecture) -> Network:
    from inspector.model.feature import FeatureAutoencoder  # it is made of what this file defines

    return FeatureAutoencoder(architecture)


def _restore(architecture: Architecture) -> Network:
    from inspector.model.restore import Restorer

    return Restorer(architecture)


METHODS: dict[str, Callable[[Architecture], Network]] = {
    "paper": Autoencoder,
    "restore": _restore,
    "feature": _feature,
}


def build(architecture: Architecture) -> Network:
    """The network that the architecture describes, freshly initialised. Raises ModelError."""
    if architecture.method not in METHODS:
        raise ModelError(
            f"architecture.method is {architecture.method!r}: expected one of {', '.join(sorted(METHODS))}"
        )
    return METHODS[architecture.method](architecture)
