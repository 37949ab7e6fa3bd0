"""The camera process as the daemon sees it, with a folder for a camera."""

import os
import signal
import subprocess
import sys
import time
from multiprocessing.connection import wait
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest

from inspector.camera import Lost
from inspector.camera.process import CameraProcess, Down, Exhausted, FrameReady, Opened, _delay
from inspector.errors import CameraError
from inspector.settings import CameraSettings

PATIENCE_S = 30.0


@pytest.fixture
def root(tmp_path):
    for i in range(8):
        assert cv2.imwrite(str(tmp_path / f"{i}.png"), np.full((40, 60, 3), (0, 0, 10 * i), np.uint8))
    return tmp_path


@pytest.fixture
def start():
    running = []

    def start(path, trigger="camera", silence_s=5.0, slots=4, **folder):
        table = {"path": path, "fps": 100.0, **folder}
        settings = CameraSettings(
            name="c", recipe="r", trigger=trigger, folder=table, silence_s=silence_s, ring_slots=slots
        )
        running.append(CameraProcess(settings))
        running[-1].start()
        return running[-1]

    yield start
    for camera in running:
        camera.stop()


def listen(camera, until, release=True):
    """Poll as the daemon does until `until(events so far)`; all events, oldest first."""
    events = []
    give_up = time.monotonic() + PATIENCE_S
    while not until(events):
        assert time.monotonic() < give_up, events
        if camera.connection is not None:
            wait([camera.connection], 0.05)
        else:
            time.sleep(0.01)
        new = camera.poll()
        for event in new:
            if release and isinstance(event, FrameReady):
                camera.release(event.frame)
        events += new
    return events


def of(kind, events):
    return [event for event in events if isinstance(event, kind)]


def has(kind, n=1):
    return lambda events: len(of(kind, events)) >= n


def test_a_folder_from_open_to_exhausted(root, start):
    camera = start(root, repeat=False)
    seen = []
    while not any(isinstance(event, Exhausted) for event in seen):
        for event in listen(camera, lambda events: events, release=False):
            if isinstance(event, FrameReady):
                red, green, blue = event.frame.image[20, 30]
                seen.append((event.frame.source, int(red), int(green), int(blue)))
                camera.release(event.frame)
            else:
                seen.append(event)
    assert isinstance(seen[0], Opened)
    assert (seen[0].info.width, seen[0].info.height) == (60, 40)
    assert seen[1:-1] == [(f"{i}.png", 10 * i, 0, 0) for i in range(8)]
    assert camera.state == "exhausted"
    assert (camera.counts.frames, camera.counts.lost, camera.counts.respawns) == (8, {}, 0)


def test_an_exhausted_camera_is_not_started_again(root, start):
    camera = start(root, repeat=False)
    listen(camera, has(Exhausted))
    child = psutil.Process(camera.pid)
    child.kill()
    child.wait(PATIENCE_S)
    assert camera.poll() == []
    assert camera.pid is None
    assert camera.state == "exhausted"


def test_fire_brings_one_frame_with_its_token(root, start):
    camera = start(root, "plc")
    assert not camera.fire(1)
    assert of(FrameReady, listen(camera, has(Opened))) == []
    assert camera.fire(41)
    assert camera.fire(42)
    frames = of(FrameReady, listen(camera, has(FrameReady, 2)))
    assert [event.frame.trigger for event in frames] == [41, 42]


def test_captured_time_is_the_clock_of_all_processes(root, start):
    before = time.monotonic_ns()
    frame = of(FrameReady, listen(start(root), has(FrameReady)))[0].frame
    assert before < frame.captured_ns < time.monotonic_ns()


def test_frames_nobody_releases_become_overruns_and_stay_untouched(root, start):
    camera = start(root, slots=2)
    events = listen(camera, has(Lost, 5), release=False)
    frames = [event.frame for event in of(FrameReady, events)]
    assert [frame.frame_id for frame in frames] == [1, 2]
    assert {(lost.reason, lost.count) for lost in of(Lost, events)} == {("overrun", 1)}
    assert [int(frame.image[0, 0, 0]) for frame in frames] == [0, 10]
    assert not frames[0].image.flags.writeable
    assert camera.counts.lost["overrun"] >= 5
    for frame in frames:
        camera.release(frame)
        camera.release(frame)  # must not free a slot twice
    more = listen(camera, has(FrameReady, 2), release=False)
    first, second = (event.frame.image for event in of(FrameReady, more))
    assert first.ctypes.data != second.ctypes.data


def test_a_broken_image_is_counted(root, start):
    (root / "3.png").write_bytes(b"junk")
    camera = start(root, repeat=False)
    lost = of(Lost, listen(camera, has(Exhausted)))
    assert [one.reason for one in lost] == ["unreadable"]
    assert (camera.counts.frames, camera.counts.lost) == (7, {"unreadable": 1})


def test_killed_it_comes_back_and_nothing_stale_arrives(root, start):
    camera = start(root, repeat=False, fps=20.0)
    held = of(FrameReady, listen(camera, has(FrameReady, 2), release=False))[-1].frame
    content = held.image.copy()
    old = camera.pid
    os.kill(old, signal.SIGKILL)
    events = listen(camera, has(Exhausted))
    down = next(i for i, event in enumerate(events) if isinstance(event, Down))
    assert "signal 9" in events[down].message
    assert not events[down].fatal
    assert isinstance(events[down + 1], Opened)
    assert camera.pid != old
    assert camera.counts.respawns == 1
    ids = [event.frame.frame_id for event in of(FrameReady, events)]
    assert ids == sorted(set(ids)), "an image was shown twice"
    assert ids[-1] == 8
    assert camera.counts.frames >= 7  # one may have been on its way
    assert np.array_equal(held.image, content)
    camera.release(held)  # of a ring that is gone: nothing to do


def test_a_frozen_process_is_silence_and_is_replaced(root, start):
    camera = start(root, silence_s=1.0)
    listen(camera, has(FrameReady, 3))
    os.kill(camera.pid, signal.SIGSTOP)
    frozen = psutil.Process(camera.pid)
    events = listen(camera, has(Opened))
    down = of(Down, events)
    assert len(down) == 1
    assert "was silent for 1." in down[0].message
    assert not frozen.is_running() or frozen.status() == psutil.STATUS_ZOMBIE


def test_a_camera_without_parts_is_not_silent(root, start):
    camera = start(root, "plc", silence_s=0.6)
    listen(camera, has(Opened))
    until = time.monotonic() + 1.5
    assert listen(camera, lambda _: time.monotonic() > until) == []
    assert camera.state == "open"


def test_a_camera_that_cannot_open_says_why_and_is_tried_again(tmp_path, start):
    camera = start(tmp_path / "later")
    down = of(Down, listen(camera, has(Down)))[0]
    assert down.fatal
    assert "later does not exist" in down.message
    assert camera.state == "down"
    (tmp_path / "later").mkdir()
    assert cv2.imwrite(str(tmp_path / "later" / "x.png"), np.zeros((4, 4), np.uint8))
    listen(camera, has(Opened))
    assert camera.counts.respawns >= 1


def test_a_process_that_never_opens_its_camera_is_replaced(root):
    table = {"path": root, "fps": 10.0}
    camera = CameraProcess(CameraSettings(name="c", recipe="r", folder=table), open_limit_s=0.02)
    camera.start()
    try:
        down = of(Down, listen(camera, has(Down)))[0]
        assert "did not open the camera" in down.message
    finally:
        camera.stop()


def test_first_retry_at_once_then_doubling_to_a_limit():
    assert [_delay(n, fatal=False) for n in range(8)] == [0, 0.25, 0.5, 1, 2, 4, 4, 4]
    assert _delay(0, fatal=True) > 0


def test_a_system_that_starts_no_process_is_a_camera_error(root, start, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(CameraError, match="cannot start a camera process: No such file"):
        start(root)


def test_ctrl_c_and_sigterm_leave_the_camera_to_the_daemon(root, start):
    camera = start(root)
    listen(camera, has(FrameReady))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(camera.pid, number)
    events = listen(camera, has(FrameReady, 20))
    assert of(Down, events) == []


def test_stop_ends_the_process_and_may_be_called_twice(root, start):
    camera = start(root)
    listen(camera, has(Opened))
    pid = camera.pid
    camera.stop()
    camera.stop()
    assert not psutil.pid_exists(pid)
    assert (camera.state, camera.connection, camera.poll()) == ("stopped", None, [])


def named_memory(pid="self"):
    """Mapped shared memory that has a name, and so would outlive its process."""
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return [line for line in lines if "/dev/shm/" in line and "(deleted)" not in line]


def rings():
    return sum("memfd:inspector-frames" in line for line in Path("/proc/self/maps").read_text().splitlines())


def test_respawns_leak_neither_memory_nor_descriptors_nor_processes(root, start):
    camera = start(root, slots=2)
    listen(camera, has(FrameReady))
    named, descriptors = named_memory(), len(list(Path("/proc/self/fd").iterdir()))
    others = len(psutil.Process().children()) - 1  # such as the nursery, if another test was before
    for _ in range(3):
        os.kill(camera.pid, signal.SIGKILL)
        listen(camera, lambda events: has(Down)(events) and has(Opened)(events))
    assert rings() == 1
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors
    assert named_memory() == named
    assert named_memory(camera.pid) == []
    assert len(psutil.Process().children()) <= others + 2  # the last one killed may wait to be reaped
    camera.stop()
    assert rings() == 0


DAEMON = """
import sys, time
from inspector.camera.process import CameraProcess, FrameReady
from inspector.settings import CameraSettings
camera = CameraProcess(CameraSettings(name="c", recipe="r", folder={"path": sys.argv[1], "fps": 100.0}))
camera.start()
while not any(isinstance(event, FrameReady) for event in camera.poll()):
    time.sleep(0.01)
print(camera.pid, flush=True)
time.sleep(60)
"""


def test_killing_the_daemon_ends_the_camera_process_and_frees_everything(root):
    daemon = subprocess.Popen([sys.executable, "-c", DAEMON, str(root)], stdout=subprocess.PIPE, text=True)
    with daemon:
        child = psutil.Process(int(daemon.stdout.readline()))
        assert named_memory(daemon.pid) == named_memory(child.pid) == []
        daemon.kill()
    child.wait(PATIENCE_S)


def test_the_camera_process_imports_neither_torch_nor_the_daemon():
    code = (
        "import sys, inspector.camera.child, inspector.camera.folder, inspector.camera.genicam\n"
        "print({'torch', 'sqlalchemy', 'pymodbus', 'inspector.daemon'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
