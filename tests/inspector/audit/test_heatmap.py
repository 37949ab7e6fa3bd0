from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from inspector.audit import AuditLog, Evidence
from inspector.audit.heatmap import SIDE, pack, unpack
from inspector.errors import LogError
from tests.inspector.audit.conftest import passed


def smooth(side: int) -> NDArray[np.float32]:
    noise = np.random.default_rng(2).random((side, side), dtype=np.float32)
    return np.asarray(cv2.GaussianBlur(noise, (0, 0), 4), np.float32)


@pytest.mark.parametrize(
    ("side", "packed"), [(64, 64), (128, 128), (192, 96), (256, 128), (384, 128), (130, 65)]
)
def test_maps_shrink_by_whole_blocks(side: int, packed: int) -> None:
    heatmap = pack(smooth(side), 1.0)
    assert (heatmap.width, heatmap.height) == (packed, packed)
    assert unpack(heatmap).shape == (packed, packed)


def test_a_map_that_is_not_square_keeps_its_sides() -> None:
    heatmap = pack(np.zeros((100, 300), np.float32), 1.0)
    assert (heatmap.height, heatmap.width) == (34, 100)


def test_values_return_within_half_a_level() -> None:
    values = smooth(SIDE)
    assert np.abs(unpack(pack(values, 0.8)) - values).max() <= 0.8 / 510 * 1.001


def test_one_hot_pixel_survives_the_pooling() -> None:
    values = np.zeros((384, 384), np.float32)
    values[200, 301] = 0.4
    back = unpack(pack(values, 0.5))
    assert back.max() == pytest.approx(0.4, abs=0.5 / 510)
    assert np.argwhere(back > 0).tolist() == [[200 // 3, 301 // 3]]


def test_values_above_the_scale_saturate_and_nan_is_never_harmless() -> None:
    values = np.array([[0.0, 5.0], [np.nan, np.inf]], np.float32)
    assert unpack(pack(values, 0.5)).tolist() == [[0.0, 0.5], [0.5, 0.5]]


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_a_scale_must_mean_something(scale: float) -> None:
    with pytest.raises(ValueError, match="positive"):
        pack(smooth(16), scale)


def test_a_heatmap_survives_the_log(log: AuditLog) -> None:
    heatmap = pack(smooth(384), 0.5, region=(10, 20, 300, 200))
    id_ = log.commit(passed())
    log.add_evidence([Evidence(id_, heatmap=heatmap)])
    found = log.get(id_).heatmap
    assert found == heatmap
    assert found is not None
    assert np.array_equal(unpack(found), unpack(heatmap))


def test_a_damaged_heatmap_is_named() -> None:
    heatmap = dataclasses.replace(pack(smooth(16), 1.0), png=b"\x89PNG nothing")
    with pytest.raises(LogError, match="not the PNG that was stored"):
        unpack(heatmap)
