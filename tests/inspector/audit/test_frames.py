from __future__ import annotations

import hashlib
import resource
import signal
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from inspector.audit.frames import FrameStore, Image
from inspector.errors import LogError

TAKEN = datetime(2026, 5, 9, 23, 59, 58, 123456, tzinfo=UTC)


def noise(*shape: int, dtype: Any = np.uint8) -> Image:
    info = np.iinfo(dtype)
    image: Image = np.random.default_rng(1).integers(0, info.max, shape, dtype=dtype, endpoint=True)
    return image


@pytest.fixture
def store(tmp_path: Path) -> FrameStore:
    return FrameStore(tmp_path / "frames")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(31, 40), (31, 40, 3), (1, 1), (400, 100)])
def test_a_frame_comes_back_bit_for_bit(store: FrameStore, shape: tuple[int, ...], dtype: Any) -> None:
    image = noise(*shape, dtype=dtype)
    stored = store.store(5, "top", TAKEN, image)
    back = store.read(stored)
    assert back.dtype == image.dtype
    assert np.array_equal(back, image)
    assert (stored.height, stored.width) == shape[:2]
    assert (stored.channels, stored.bit_depth) == (1 if len(shape) == 2 else 3, image.itemsize * 8)


def test_a_view_that_is_not_contiguous_is_stored_as_it_looks(store: FrameStore) -> None:
    image = noise(40, 60, 3)[::2, ::-1]
    assert np.array_equal(store.read(store.store(5, "top", TAKEN, image)), image)


def test_red_is_red_for_other_programs(store: FrameStore, tmp_path: Path) -> None:
    red = np.zeros((4, 4, 3), np.uint8)
    red[..., 0] = 255
    stored = store.store(5, "top", TAKEN, red)
    assert np.asarray(cv2.imread(str(store.root / stored.path)))[0, 0].tolist() == [
        0,
        0,
        255,
    ]  # OpenCV reads BGR


def test_the_file_is_where_the_row_says_and_hashes_to_it(store: FrameStore) -> None:
    stored = store.store(48213, "top", TAKEN, noise(8, 8))
    assert stored.path == "2026-05-09/top/000048213_235958123.png"
    data = (store.root / stored.path).read_bytes()
    assert stored.bytes == len(data)
    assert stored.sha256 == hashlib.sha256(data).hexdigest()
    assert list(store.root.rglob("*.part")) == []


def test_the_day_is_utc(store: FrameStore) -> None:
    local = datetime(2026, 5, 10, 1, 0, tzinfo=timezone(timedelta(hours=2)))
    assert store.store(1, "top", local, noise(8, 8)).path.startswith("2026-05-09/")


def test_a_camera_name_cannot_leave_the_store(store: FrameStore) -> None:
    for name in ("../../etc", "a/b", "..", ""):
        stored = store.store(1, name, TAKEN, noise(8, 8))
        assert (store.root / stored.path).resolve().is_relative_to(store.root.resolve())
        assert len(Path(stored.path).parts) == 3


def test_ids_that_begin_anew_do_not_replace_older_frames(store: FrameStore) -> None:
    old, new = noise(8, 8), noise(9, 9)
    first = store.store(1, "top", TAKEN, old)
    second = store.store(1, "top", TAKEN + timedelta(milliseconds=1), new)
    assert np.array_equal(store.read(first), old)
    assert np.array_equal(store.read(second), new)


def test_an_altered_frame_is_no_evidence(store: FrameStore) -> None:
    stored = store.store(1, "top", TAKEN, noise(8, 8))
    store.verify(stored)
    path = store.root / stored.path
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(data)
    for use in (store.verify, store.read):
        with pytest.raises(LogError, match=r"was altered: SHA-256 is .*the log has"):
            use(stored)


def test_a_missing_frame_is_named(store: FrameStore) -> None:
    stored = store.store(1, "top", TAKEN, noise(8, 8))
    (store.root / stored.path).unlink()
    with pytest.raises(LogError, match=r"000000001_.*png is missing"):
        store.read(stored)


def test_a_full_disk_leaves_no_half_frame_and_is_survived(store: FrameStore) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
        with pytest.raises(LogError, match="cannot be stored"):
            store.store(1, "top", TAKEN, noise(100, 100))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert [path for path in store.root.rglob("*") if path.is_file()] == []
    store.read(store.store(1, "top", TAKEN, noise(100, 100)))


def test_a_store_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(LogError, match=r"file/frames/.* cannot be stored: Not a directory"):
        FrameStore(tmp_path / "file" / "frames").store(1, "top", TAKEN, noise(8, 8))


def test_the_store_comes_back_when_its_folder_was_removed(store: FrameStore) -> None:
    first = store.store(1, "top", TAKEN, noise(8, 8))
    (store.root / first.path).unlink()
    for folder in (store.root / first.path).parents[:3]:
        folder.rmdir()
    store.read(store.store(2, "top", TAKEN, noise(8, 8)))


def test_the_floor_is_held(store: FrameStore) -> None:
    free = store.free_bytes()  # of the disk under a folder that is not there yet
    assert free > 0
    store.require_free(0)
    with pytest.raises(LogError, match=r"MiB free, the floor is \d+ MiB"):
        store.require_free(free * 2 + 2**40)


@pytest.mark.parametrize("image", [noise(8, 8, 4), noise(8, 8, 1), np.zeros((8, 8), np.float32)])
def test_what_is_no_frame_is_refused(store: FrameStore, image: Any) -> None:
    with pytest.raises(ValueError, match="expected"):
        store.store(1, "top", TAKEN, image)
