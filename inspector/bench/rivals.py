"""What the engine is compared with at the same input size: its own network unmade, and anomalib's models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from inspector.errors import InspectorError
from inspector.model.bundle import Bundle
from inspector.model.fast import error_of, plain_network
from inspector.model.preprocess import picture, tensor
from inspector.model.scoring import image_score, smooth

Run = Callable[[], object]
BANK = 10_000  # patches that PatchCore keeps: some 5 % of 200 parts at 256 pixels


def plain(bundle: Bundle, device: torch.device, image: NDArray[np.uint8]) -> Run:
    """The network as it was trained, in float32."""
    network = plain_network(bundle).to(device)

    @torch.inference_mode()
    def run() -> tuple[float, NDArray[np.float32]]:
        x = tensor(picture(image, bundle.preprocessing), bundle.preprocessing, device)
        score_map = smooth(error_of(network, x, bundle, "float32"), bundle.scoring.sigma)
        return float(image_score(score_map, bundle.scoring)), score_map[0].cpu().numpy()

    return run


def anomalib(bundle: Bundle, device: torch.device, image: NDArray[np.uint8]) -> dict[str, Run]:
    """EfficientAd (S and M) and PatchCore with random weights; nothing where anomalib is not installed."""
    try:
        from anomalib.models.image.efficient_ad.torch_model import EfficientAdModel, EfficientAdModelSize
        from anomalib.models.image.patchcore.torch_model import PatchcoreModel
    except ImportError:
        return {}
    try:
        patchcore = PatchcoreModel(["layer2", "layer3"], "wide_resnet50_2", pre_trained=False)
        patchcore.memory_bank = torch.randn(BANK, 1536)
        models = {
            "anomalib EfficientAd-S": EfficientAdModel(model_size=EfficientAdModelSize.S),
            "anomalib EfficientAd-M": EfficientAdModel(model_size=EfficientAdModelSize.M),
            "anomalib PatchCore": patchcore,
        }
    except (TypeError, ValueError, AttributeError) as error:  # another version's
        raise InspectorError(f"anomalib is installed but cannot be compared with: {error}") from error

    def runner(model: Any) -> Run:
        model = model.to(device).eval()

        @torch.inference_mode()
        def run() -> tuple[float, NDArray[np.float32]]:
            found = model(tensor(picture(image, bundle.preprocessing), bundle.preprocessing, device))
            return float(found.pred_score.max()), found.anomaly_map.cpu().numpy()

        return run

    return {name: runner(model) for name, model in models.items()}
