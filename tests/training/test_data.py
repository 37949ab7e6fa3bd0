import hashlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from inspector.errors import DataError, ModelError
from inspector.model.preprocess import picture
from inspector.model.records import Preprocessing
from training import data
from training.data import Pictures, list_images, read_hashed, read_image

RNG = np.random.default_rng(0)


def test_images_are_listed_by_name_without_what_lies_below(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "notes.txt", "below/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [p.name for p in list_images(tmp_path)] == ["a.JPG", "b.png"]


def test_folders_without_images_are_refused(tmp_path: Path) -> None:
    (tmp_path / "good").mkdir()
    (tmp_path / "file").touch()
    for path, word in (
        (tmp_path / "nowhere", "does not exist"),
        (tmp_path / "file", "is a file"),
        (tmp_path, r"holds no images.*sub-folders \(good\)"),
        (tmp_path / "good", "holds no images"),
    ):
        with pytest.raises(DataError, match=word):
            list_images(path)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_colours_are_rgb_and_depth_is_kept(tmp_path: Path, dtype: type) -> None:
    rgb: NDArray[Any] = RNG.integers(0, np.iinfo(dtype).max, (5, 7, 3)).astype(dtype)
    cv2.imwrite(str(tmp_path / "rgb.png"), rgb[:, :, ::-1])
    alpha: NDArray[Any] = np.full((5, 7, 1), np.iinfo(dtype).max // 2, dtype)
    cv2.imwrite(str(tmp_path / "rgba.png"), np.concatenate([rgb[:, :, ::-1], alpha], axis=2))
    cv2.imwrite(str(tmp_path / "mono.png"), rgb[:, :, 0])
    np.testing.assert_array_equal(read_image(tmp_path / "rgb.png"), rgb)
    np.testing.assert_array_equal(read_image(tmp_path / "rgba.png"), rgb)
    np.testing.assert_array_equal(read_image(tmp_path / "mono.png"), rgb[:, :, 0])


def test_the_hash_is_the_files(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), RNG.integers(0, 255, (4, 4)).astype(np.uint8))
    assert read_hashed(tmp_path / "a.png")[1] == hashlib.sha256((tmp_path / "a.png").read_bytes()).hexdigest()


def test_what_is_no_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("not an image")
    cv2.imwrite(str(tmp_path / "float.tiff"), np.zeros((4, 4), np.float32))
    for name, word in (
        ("empty.png", "no image"),
        ("text.png", "no image"),
        ("float.tiff", "float32"),
        ("gone.png", "cannot be read"),
    ):
        with pytest.raises(DataError, match=rf"{name}.*{word}"):
            read_image(tmp_path / name)


@pytest.mark.parametrize("cache", [0, 1 << 30])
def test_pictures_are_what_the_engine_sees(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: int
) -> None:
    monkeypatch.setattr(data, "CACHE_BYTES", cache)
    images = [RNG.integers(0, 255, shape).astype(np.uint8) for shape in ((40, 30, 3), (32, 32), (20, 64, 3))]
    for i, image in enumerate(images):
        cv2.imwrite(str(tmp_path / f"{i}.png"), image[:, :, ::-1] if image.ndim == 3 else image)
    pre = Preprocessing(size=16, roi=(2, 2, 20, 18))
    pictures = Pictures(list_images(tmp_path), pre)
    if cache:
        (tmp_path / "0.png").unlink()  # kept in memory
    assert len(pictures) == 3
    for i, image in enumerate(images):
        np.testing.assert_array_equal(pictures[i], picture(image, pre))
    batch = pictures.batch([2, 0], torch.device("cpu"))
    assert batch.shape == (2, 3, 16, 16)
    want = picture(images[2], pre).transpose(2, 0, 1) / 127.5 - 1
    np.testing.assert_allclose(batch[0], want, atol=1e-6)


def test_an_image_that_the_roi_does_not_fit(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((8, 8), np.uint8))
    with pytest.raises(ModelError, match="reaches out"):
        Pictures(list_images(tmp_path), Preprocessing(size=4, roi=(0, 0, 9, 8)))


def test_pictures_that_a_device_has_room_for_stay_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And are the same to the bit, mono, colour and 16 bits; where there is no room they come from memory."""
    for i, (shape, dtype) in enumerate((((8, 9, 3), np.uint8), ((8, 8), np.uint8), ((9, 8), np.uint16))):
        cv2.imwrite(str(tmp_path / f"{i}.png"), RNG.integers(0, np.iinfo(dtype).max, shape).astype(dtype))
    pictures = Pictures(list_images(tmp_path), Preprocessing(size=8))
    device = torch.device("cpu")
    asked: list[int] = []
    kept = 8 * 8 * (3 + 1 + 2)
    batches = {}
    for share in (kept - 1, kept):
        pictures._near.clear()
        monkeypatch.setattr(data, "room", lambda _, share=share: asked.append(share) or share)
        batches[share] = [pictures.batch([2, 0, 1], device) for _ in range(2)]
        assert len(pictures._near[device]) == (3 if share == kept else 0)
    assert asked == [kept - 1, kept]  # once each, not for each batch
    assert all(torch.equal(batches[kept][0], one) for pair in batches.values() for one in pair)


@pytest.mark.gpu
def test_a_gpu_keeps_pictures_in_its_memory(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), RNG.integers(0, 255, (8, 8, 3)).astype(np.uint8))
    pictures, device = Pictures(list_images(tmp_path), Preprocessing(size=8)), torch.device("cuda")
    x = pictures.batch([0], device)
    assert pictures._near[device][0].is_cuda
    torch.testing.assert_close(x.cpu(), pictures.batch([0], torch.device("cpu")))
