from pathlib import Path

import pytest
import torch

from inspector.model import bundle as bundles
from inspector.model.bundle import Bundle
from inspector.model.network import build
from inspector.model.records import Architecture, Preprocessing, Scoring, Threshold

TINY = Architecture(size=32, patch=8, dim=16, depth=1, heads=2, slots=10)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return tmp_path / "models" / "screw"


@pytest.fixture
def stored(recipe: Path) -> Bundle:
    torch.manual_seed(0)
    return bundles.write(
        recipe,
        build(TINY).state_dict(),
        TINY,
        Preprocessing(size=32, roi=(1, 2, 60, 50)),
        Scoring(sigma=2.0, reduction="top"),
        provenance={"created": "2026-01-01T00:00:00+00:00", "parent": None, "images": ["a", "b"]},
    )


@pytest.fixture
def threshold() -> Threshold:
    return Threshold(
        value=0.5,
        target_rate=0.01,
        confidence=0.95,
        proven_rate=0.009,
        n=400,
        rank=399,
        method="order-statistic",
        device="cpu",
        precision="float32",
        created="2026-01-02T00:00:00+00:00",
        scores_sha256="0" * 64,
        source="test",
    )
