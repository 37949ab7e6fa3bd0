"""The GenICam path with a real GenTL producer. Viky runs free and has no trigger features."""

import os
import signal
import time
from itertools import pairwise

import numpy as np
import pytest

from inspector.camera import Frame, Lost, genicam
from inspector.camera.features import configure
from inspector.camera.genicam import GenicamCamera, skipped
from inspector.camera.process import CameraProcess, Down, FrameReady, Opened
from inspector.errors import CameraSetupError
from inspector.settings import CameraSettings

PATIENCE_S = 30.0


def settings_for(viky, serial="0", trigger="camera", features=None, **camera):
    table = {"producer": viky, "serial": serial, "features": features or {}}
    return CameraSettings(**{"name": "c", "recipe": "r", "trigger": trigger, "genicam": table, **camera})


@pytest.fixture
def opened(viky):
    cameras = []

    def opened(*args, **kwargs):
        cameras.append(GenicamCamera(settings_for(viky, *args, **kwargs)))
        return cameras[-1], cameras[-1].open()

    yield opened
    for camera in cameras:
        camera.close()


def fetch(camera):
    give_up = time.monotonic() + PATIENCE_S
    while (event := camera.fetch(0.05)) is None:
        assert time.monotonic() < give_up
    return event


@pytest.mark.parametrize(("serial", "channel"), [("0", 0), ("1", 1), ("2", 2)])
def test_each_device_in_its_colour(opened, serial, channel):
    """Viky's devices draw a red, a green and a blue ball on white: RGB order can be seen."""
    camera, info = opened(serial)
    frame = fetch(camera)
    assert (info.model, info.serial, info.pixel_format) == ("Viky", serial, "RGBa8")
    assert (frame.image.shape, frame.image.dtype) == ((400, 400, 3), np.uint8)
    assert (frame.source, frame.trigger) == (serial, None)
    ball = frame.image[(frame.image != 255).any(axis=2)]
    expected = [0, 0, 0]
    expected[channel] = 255
    assert len(ball) > 0
    assert (ball == expected).all()


def test_features_shape_the_frames(opened):
    features = {"PixelFormat": "Mono8", "Width": 301, "Height": 203, "AcquisitionFrameRate": 100.0}
    camera, info = opened("1", features=features)
    assert (info.pixel_format, info.width, info.height) == ("Mono8", 301, 203)
    frames = [fetch(camera) for _ in range(5)]
    assert all(frame.image.shape == (203, 301) for frame in frames)
    assert [frame.frame_id for frame in frames] == [1, 2, 3, 4, 5]


def test_a_frame_is_a_copy_of_the_driver_s_buffer(opened):
    camera, _ = opened(features={"AcquisitionFrameRate": 200.0, "BouncingBallSize": 40})
    first = fetch(camera)
    before = first.image.copy()
    for _ in range(20):
        fetch(camera)
    assert np.array_equal(first.image, before)


def test_every_frame_is_delivered_or_counted_as_gap(opened):
    camera, _ = opened(features={"AcquisitionFrameRate": 100.0})
    first = fetch(camera)
    time.sleep(0.5)  # longer than the producer's buffers last
    events = [first] + [fetch(camera) for _ in range(30)]
    frames = [event for event in events if isinstance(event, Frame)]
    lost = [event for event in events if isinstance(event, Lost)]
    assert {one.reason for one in lost} == {"gap"}
    assert len(frames) + sum(one.count for one in lost) == frames[-1].frame_id
    assert all(later.frame_id > sooner.frame_id for sooner, later in pairwise(frames))


@pytest.mark.parametrize(
    ("last", "now", "missing"),
    [
        (None, 17, 0),
        (1, 2, 0),
        (2, 5, 2),
        (5, 5, 0),
        (65535, 1, 0),
        (65534, 1, 1),
        (65535, 3, 2),
        (65535, 0, 0),
        (65535, 65536, 0),
        (900, 1, 0),
        (2**40, 1, 0),
    ],
)
def test_frame_ids_wrap_and_restart(last, now, missing):
    assert skipped(last, now) == missing


def test_no_frame_in_time_is_none_and_timeout_zero_returns(opened):
    camera, _ = opened(features={"AcquisitionFrameRate": 1.0})
    started = time.monotonic()
    assert camera.fetch(0.0) is None
    assert time.monotonic() - started < 0.5


def test_a_wrong_feature_leaves_the_camera_free(opened):
    with pytest.raises(CameraSetupError, match=r"features\.Width: found 99; expected 100 to 800"):
        opened(features={"Width": 99})
    with pytest.raises(CameraSetupError, match=r"features\.Widht: .*did you mean Width\?"):
        opened(features={"Widht": 300})
    with pytest.raises(CameraSetupError, match=r"features\.PayloadSize: not writable"):
        opened(features={"PayloadSize": 300})
    opened()


def test_a_closed_camera_can_be_opened_again(opened):
    camera, _ = opened("2")
    camera.close()
    camera.close()
    again, _ = opened("2")
    assert fetch(again).frame_id == 1


def test_a_frame_that_fits_no_slot_is_refused_at_open(opened):
    with pytest.raises(CameraSetupError, match=r"1\.8 MiB.*set ring_slot_mib to 2"):
        opened(features={"Width": 800, "Height": 800}, ring_slot_mib=1)


def test_plc_trigger_needs_a_software_trigger(opened):
    with pytest.raises(CameraSetupError, match=r'trigger = "plc": the camera has no feature TriggerMode'):
        opened(trigger="plc")


def test_ctrl_c_stays_what_it_was(opened):
    before = signal.getsignal(signal.SIGINT)
    opened()
    assert signal.getsignal(signal.SIGINT) is before


@pytest.fixture
def triggered(opened, monkeypatch):
    """Viky as a camera with a software trigger: firing is a command of its own that takes no frame."""

    def fake(node_map, features, trigger):
        configure(node_map, features, "camera")
        return node_map.DeviceFeaturePersistenceStart

    monkeypatch.setattr(genicam, "configure", fake)
    return lambda rate, deadline_ms: opened(
        trigger="plc", deadline_ms=deadline_ms, features={"AcquisitionFrameRate": rate}
    )[0]


def test_a_trigger_is_answered_by_the_next_frame_only(triggered):
    camera = triggered(20.0, 5000)
    unasked = fetch(camera)
    time.sleep(0.3)
    camera.fire(7)
    events = [unasked]
    while events[-1].trigger is None:
        events.append(fetch(camera))
    assert all(event.trigger is None for event in events[:-1])
    assert isinstance(events[-1], Frame)
    assert (events[-1].trigger, fetch(camera).trigger) == (7, None)


def test_a_trigger_without_a_frame_is_lost_and_the_late_frame_never_comes(triggered):
    camera = triggered(1.0, 100)
    camera.fire(7)
    lost = fetch(camera)
    assert isinstance(lost, Lost)
    assert (lost.reason, lost.trigger) == ("timeout", 7)
    assert "deadline_ms = 100" in lost.detail
    assert fetch(camera).trigger is None


def test_a_new_trigger_gives_the_old_one_up(triggered):
    camera = triggered(20.0, 5000)
    camera.fire(1)
    camera.fire(2)
    events = [fetch(camera), fetch(camera)]
    assert [(type(event), event.trigger) for event in events] == [(Lost, 1), (Frame, 2)]
    assert events[1].frame_id == 1, "acquisition was not started anew"


def test_a_gap_takes_the_open_trigger_with_it(triggered):
    camera = triggered(100.0, 5000)
    fetch(camera)
    camera.fire(7)
    time.sleep(0.5)
    events = []
    while not any(isinstance(event, Lost) for event in events):
        events.append(fetch(camera))
    assert [event.trigger for event in events].count(7) == 1


def test_three_cameras_at_once_one_is_killed_and_comes_back(viky):
    names = {"0": ("RGBa8", (300, 320, 3)), "1": ("Mono8", (300, 320)), "2": ("RGBa8", (300, 320, 3))}
    cameras = {
        serial: CameraProcess(
            settings_for(viky, serial, features={"PixelFormat": kind, "Width": 320, "Height": 300})
        )
        for serial, (kind, _) in names.items()
    }
    events = {serial: [] for serial in cameras}

    def until(condition):
        give_up = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < give_up, events
            for serial, camera in cameras.items():
                for event in camera.poll():
                    if isinstance(event, FrameReady):
                        assert event.frame.source == serial
                        assert event.frame.image.shape == names[serial][1]
                        camera.release(event.frame)
                        event = event.frame.frame_id
                    events[serial].append(event)
            time.sleep(0.005)

    try:
        for camera in cameras.values():
            camera.start()
        until(lambda: all(camera.counts.frames >= 5 for camera in cameras.values()))
        os.kill(cameras["1"].pid, signal.SIGKILL)
        until(lambda: any(isinstance(event, Down) for event in events["1"]))
        again = len(events["1"])
        until(lambda: len(events["1"]) >= again + 6)
        after = events["1"][again:]
        assert isinstance(after[0], Opened)
        assert after[1:6] == [1, 2, 3, 4, 5], "a frame of the dead process came after it"
        assert [camera.counts.respawns for camera in cameras.values()] == [0, 1, 0]
        assert not any(isinstance(event, Down) for serial in "02" for event in events[serial])
    finally:
        for camera in cameras.values():
            camera.stop()
