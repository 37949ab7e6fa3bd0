"""Frames for calibration, from a camera process without the daemon."""

import pytest

from inspector.camera.folder import read_image
from inspector.capture import capture
from inspector.errors import CameraError
from inspector.settings import CameraSettings
from tests.station import write_pictures


@pytest.fixture
def one(tmp_path):
    write_pictures(tmp_path / "pictures", 4)

    def camera(trigger="camera", **folder):
        table = {"path": tmp_path / "pictures", "fps": 50.0, "repeat": False} | folder
        return CameraSettings(name="cam", recipe="part", trigger=trigger, folder=table)

    return camera


@pytest.mark.parametrize("trigger", ["camera", "plc"])
def test_as_many_frames_as_were_asked_for_even_all_of_a_folder(one, trigger):
    settings = one(trigger)
    taken = [(frame.source, frame.image.copy()) for frame in capture(settings, 4, 20)]
    assert [source for source, _ in taken] == ["000.png", "001.png", "002.png", "003.png"]
    for source, image in taken:
        assert (image == read_image(settings.folder.path / source)).all()


def test_a_folder_that_ends_too_soon_is_told(one):
    with pytest.raises(CameraError, match="camera 'cam': its folder has no more images after 4 of 5"):
        list(capture(one(), 5, 20))


def test_a_camera_that_cannot_be_opened_is_told_at_once(one, tmp_path):
    with pytest.raises(CameraError, match=r"camera 'cam': .*nix does not exist"):
        list(capture(one(path=tmp_path / "nix"), 1, 60))


def test_a_camera_that_shows_nothing_is_given_up(one):
    frames = capture(one(fps=0.01), 2, 1.5)
    with pytest.raises(CameraError, match=r"camera 'cam': no frame came within 1\.5 s"):
        list(frames)
