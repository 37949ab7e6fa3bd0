import time

import cv2
import numpy as np
import pytest

from inspector.camera import Exhausted, Frame, Lost, folder
from inspector.camera.folder import FolderCamera, read_image
from inspector.errors import CameraError, CameraSetupError
from inspector.settings import CameraSettings


def write(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)
    return path


@pytest.fixture
def root(tmp_path):
    for name, grey in (("b.png", 20), ("a.png", 10), ("sub/c.png", 30), ("sub/deep/d.png", 40)):
        write(tmp_path / name, np.full((4, 6), grey, np.uint8))
    return tmp_path


def camera(root, trigger="camera", after=0, **folder):
    table = {"path": root, "fps": 500.0, "repeat": False, **folder}
    return FolderCamera(CameraSettings(name="c", recipe="r", trigger=trigger, folder=table), after)


def play(one, limit_s=5.0):
    """Everything until Exhausted."""
    one.open()
    events = []
    give_up = time.monotonic() + limit_s
    while time.monotonic() < give_up:
        event = one.fetch(0.05)
        if isinstance(event, Exhausted):
            assert one.fetch(0.0) is None
            return events
        if event is not None:
            events.append(event)
    raise AssertionError(f"never exhausted: {events}")


def test_sorted_by_path_with_sub_folders(root):
    frames = play(camera(root))
    assert [f.source for f in frames] == ["a.png", "b.png", "sub/c.png", "sub/deep/d.png"]
    assert [f.frame_id for f in frames] == [1, 2, 3, 4]
    assert [int(f.image[0, 0]) for f in frames] == [10, 20, 30, 40]


def test_other_files_and_hidden_ones_are_left_out(root):
    (root / "notes.txt").write_text("no image")
    write(root / ".trash" / "e.png", np.zeros((4, 6), np.uint8))
    assert len(play(camera(root))) == 4


def test_shuffled_shows_each_once_and_the_same_seed_the_same_order(root):
    orders = [[f.source for f in play(camera(root, order="shuffled", seed=s))] for s in (1, 1, 2, 3, 4)]
    assert orders[0] == orders[1]
    assert len({tuple(order) for order in orders}) > 1
    assert all(sorted(order) == sorted(orders[0]) for order in orders)


def test_repeat_goes_on_with_growing_ids_in_a_new_shuffle(root):
    one = camera(root, repeat=True, order="shuffled")
    one.open()
    frames = []
    while len(frames) < 40:
        event = one.fetch(0.05)
        if isinstance(event, Frame):
            frames.append(event)
    assert [f.frame_id for f in frames] == list(range(1, 41))
    turns = [tuple(f.source for f in frames[k : k + 4]) for k in range(0, 40, 4)]
    assert all(sorted(turn) == sorted(turns[0]) for turn in turns)
    assert len(set(turns)) > 1


def test_goes_on_behind_the_last_frame_of_a_camera_that_died(root):
    assert [f.source for f in play(camera(root, after=2))] == ["sub/c.png", "sub/deep/d.png"]


def test_fetch_returns_in_time_when_nothing_is_due(root):
    one = camera(root, fps=0.1)
    one.open()
    assert isinstance(one.fetch(0.0), Frame)
    assert one.fetch(0.01) is None


class Clock:
    """Time that passes only where it is slept or read away."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now

    def monotonic_ns(self):
        return round(self.now * 1e9)

    def sleep(self, seconds):
        self.now += seconds


@pytest.mark.parametrize("takes_s", [0.001, 0.06])
def test_an_image_is_read_late_enough_to_leave_the_processor_and_early_enough_to_be_in_time(
    root, monkeypatch, takes_s
):
    clock, read, shown = Clock(), [], []
    plainly = folder.read_image

    def reading(file):
        read.append(clock.now)
        clock.sleep(takes_s)
        return plainly(file)

    monkeypatch.setattr(folder, "time", clock)
    monkeypatch.setattr(folder, "read_image", reading)
    one = camera(root, fps=10.0, repeat=True)
    one.open()
    while len(shown) < 12:
        if isinstance(one.fetch(0.02), Frame):
            shown.append(clock.now)
    steady = shown[3:]  # how long reading takes is known by then
    assert np.diff(steady) == pytest.approx(np.full(len(steady) - 1, 0.1))
    rests = [began - max(at for at in shown if at <= began) for began in read[4:-1]]
    assert min(rests) >= (0.04 if takes_s < 0.05 else 0.0)


def test_plc_trigger_shows_an_image_for_each_token_and_none_unasked(root):
    one = camera(root, "plc")
    one.open()
    assert one.fetch(0.01) is None
    one.fire(71)
    one.fire(72)
    first, second = one.fetch(0.01), one.fetch(0.01)
    assert isinstance(first, Frame)
    assert isinstance(second, Frame)
    assert [(f.trigger, f.source) for f in (first, second)] == [(71, "a.png"), (72, "b.png")]
    assert one.fetch(0.01) is None


def test_plc_trigger_after_the_last_image_is_answered_with_lost(root):
    one = camera(root, "plc", after=4)
    one.open()
    assert isinstance(one.fetch(0.0), Exhausted)
    one.fire(9)
    event = one.fetch(0.0)
    assert isinstance(event, Lost)
    assert (event.reason, event.trigger) == ("timeout", 9)


def spoil(path):
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif"])
def test_a_broken_image_is_lost_and_named(root, suffix):
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)
    spoil(write(root / f"aa{suffix}", noise))
    events = play(camera(root))
    assert [type(e) for e in events] == [Frame, Lost, Frame, Frame, Frame]
    lost = events[1]
    assert (lost.reason, lost.count, lost.frame_id) == ("unreadable", 1, 2)
    assert f"aa{suffix}" in lost.detail


def test_a_broken_image_answers_the_trigger_that_asked_for_it(root):
    (root / "a.png").write_bytes(b"")
    one = camera(root, "plc")
    one.open()
    one.fire(5)
    event = one.fetch(0.01)
    assert isinstance(event, Lost)
    assert (event.reason, event.trigger) == ("unreadable", 5)


def test_a_file_that_vanishes_is_lost(root):
    one = camera(root)
    one.open()
    (root / "a.png").unlink()
    event = one.fetch(0.05)
    assert isinstance(event, Lost)
    assert "a.png" in event.detail


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (np.full((3, 5), 7, np.uint8), np.full((3, 5), 7, np.uint8)),
        (np.full((3, 5), 60000, np.uint16), np.full((3, 5), 60000, np.uint16)),
        (np.full((3, 5, 3), (3, 2, 1), np.uint8), np.full((3, 5, 3), (1, 2, 3), np.uint8)),
        (np.full((3, 5, 3), (3000, 2, 1), np.uint16), np.full((3, 5, 3), (1, 2, 3000), np.uint16)),
        (np.full((3, 5, 4), (3, 2, 1, 128), np.uint8), np.full((3, 5, 3), (1, 2, 3), np.uint8)),
    ],
)
def test_grey_colour_and_16_bit_are_read_as_they_are(tmp_path, image, expected):
    read = read_image(write(tmp_path / "x.png", image))
    assert read.dtype == expected.dtype
    assert np.array_equal(read, expected)


def test_floating_point_images_are_refused(tmp_path):
    with pytest.raises(CameraError, match=r"x\.tif: float32 pixels"):
        read_image(write(tmp_path / "x.tif", np.zeros((3, 5), np.float32)))


def test_info_describes_the_first_readable_image(root):
    (root / "a.png").write_bytes(b"junk")
    info = camera(root).open()
    assert (info.pixel_format, info.width, info.height, info.model) == ("Mono8", 6, 4, root.name)


def test_a_missing_an_empty_and_an_unreadable_folder(tmp_path):
    with pytest.raises(CameraSetupError, match=r"camera\.folder\.path: .*nowhere does not exist"):
        camera(tmp_path / "nowhere").open()
    (tmp_path / "empty").mkdir()
    with pytest.raises(CameraSetupError, match=r"empty holds no images; expected files named .*\.png"):
        camera(tmp_path / "empty").open()
    (tmp_path / "empty" / "x.png").write_bytes(b"junk")
    with pytest.raises(CameraSetupError, match=r"none of the 1 images can be read: .*x\.png"):
        camera(tmp_path / "empty").open()
    with pytest.raises(CameraSetupError, match=r"x\.png is a file"):
        camera(tmp_path / "empty" / "x.png").open()
