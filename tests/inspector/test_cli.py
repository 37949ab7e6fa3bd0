"""The command line as an integrator meets it: real processes, their exit status and their messages."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import cv2
import genicam
import pytest
import typer

from inspector.cli import app
from inspector.model import bundle as bundles
from tests.station import Station, camera, write_bundle, write_pictures
from training.options import METHOD

VIKY = Path(genicam.__file__).parent / "viky.cti"
ONCE = {"repeat": False, "fps": 50.0}
PICTURES = 8
AWKWARD = "000 [red][a].png"  # what rich would take for its own


@pytest.fixture
def bare(tmp_path):
    """A station that needs no PLC: pictures, a calibrated bundle, a camera that plays its folder once."""
    return build(tmp_path)


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """A bare station after one run; tests only look at it."""
    one = build(tmp_path_factory.mktemp("played"))
    (one.root / "pictures" / "000.png").rename(one.root / "pictures" / AWKWARD)
    done = one.command("run")
    assert done.returncode == 0, done.stderr
    assert "leaked" not in done.stderr
    return one


def build(root):
    one = Station(root, port=closed_port())
    write_pictures(root / "pictures", PICTURES)
    write_bundle(one.data / "models" / "part")
    line = camera(trigger="camera", folder=ONCE, ring_slots=PICTURES)  # a busy test machine loses no frame
    one.write(line, plc="enabled = false")
    return one


def closed_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def genicam_camera(**keys):
    table = camera(trigger="camera").split("[camera.folder]")[0]
    return table + "[camera.genicam]\n" + "".join(f'{key} = "{value}"\n' for key, value in keys.items())


def told(done, *parts, status=1):
    """One clear message as the last thing said, the right status, nothing of Python."""
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    message = done.stderr[done.stderr.rindex("inspector: ") :]
    for part in parts:
        assert str(part) in message, message
    return message


def refuses(station, arguments, *parts, status=1, **environment):
    return told(station.command(*arguments.split(), **environment), *parts, status=status)


def active(station):
    return bundles.active(station.data / "models" / "part")


# --- help -------------------------------------------------------------------------------------------------


def test_help_of_every_command_answers_without_torch():
    """In one process, because torch must stay out of every one of them."""
    program = (
        "import sys, typer\nfrom typer.testing import CliRunner\nfrom inspector.cli import app\n"
        "for name in typer.main.get_command(app).commands:\n"
        "    done = CliRunner().invoke(app, [name, '--help'])\n"
        "    print(name, done.exit_code, len(done.output.splitlines()) > 5)\n"
        "heavy = {'torch', 'cv2', 'sqlalchemy', 'numpy', 'inspector.settings'}\n"
        "print('heavy', sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    *commands, heavy = done.stdout.splitlines()
    assert heavy == "heavy []"
    assert commands == [f"{name} 0 True" for name in typer.main.get_command(app).commands]


def test_an_unknown_option_prints_the_usage_and_exits_2(tmp_path):
    done = Station(tmp_path, 0).command("log", "--nonsense")
    assert done.returncode == 2
    assert "Usage" in done.stderr
    assert "--nonsense" in done.stderr
    assert "Traceback" not in done.stderr


# --- a station that is wrong ------------------------------------------------------------------------------


def test_wrong_settings_are_one_message_and_status_2(bare):
    bare.config.write_text(bare.config.read_text().replace("threads = 1", "threads = -1"))
    message = refuses(bare, "run", "station.toml: engine.threads: found -1", "0 to 1024", status=2)
    assert len(message.splitlines()) == 1
    refuses(bare, "check --config nix.toml", "nix.toml: no such file", "--config", status=2)


def test_run_gives_up_on_a_camera_that_is_not_there(bare):
    bare.write(genicam_camera(serial="nope", producer=VIKY), plc="enabled = false")
    refuses(
        bare,
        "run",
        "camera 'cam'",
        "genicam.serial = 'nope'",
        "no such camera",
        "Viky, serial 0",
        INSPECTOR_STATION__STARTUP_TIMEOUT_S="10",
    )


def test_run_gives_up_on_a_plc_that_is_not_there(bare):
    bare.write(camera())
    refuses(
        bare,
        "run",
        f"PLC 127.0.0.1:{bare.port}",
        "connection refused",
        "check host and port",
        INSPECTOR_STATION__STARTUP_TIMEOUT_S="1",
    )


def test_a_corrupt_bundle_is_refused(bare):
    weights = active(bare).path / bundles.WEIGHTS
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    refuses(bare, "run", weights.parent.name[:12], "altered")


@pytest.mark.parametrize("place", ["pictures/000.png", "/proc"], ids=["a file in its place", "read-only"])
def test_a_data_folder_that_cannot_be_written_is_refused(bare, place):
    """/proc refuses root too."""
    before = (bare.root / "pictures" / "000.png").read_bytes()
    refuses(bare, "run", place, INSPECTOR_STATION__DATA=place)
    assert (bare.root / "pictures" / "000.png").read_bytes() == before


def test_check_says_all_that_is_sound_or_all_that_is_wrong(bare):
    done = bare.command("check")
    assert (done.returncode, done.stderr) == (0, "")
    for part in (
        "settings are sound",
        f"{PICTURES} images",
        "threshold 1e+06, proven by 598 parts",
        "data in",
    ):
        assert part in done.stdout
    (bare.data / "models" / "part" / "current").unlink()
    bare.write(genicam_camera(serial="0", producer="nix.cti"), plc="enabled = false")
    message = refuses(bare, "check", "camera 'cam'", "nix.cti: no such file", "no active model", status=2)
    assert len(message.splitlines()) == 2
    assert not bare.data.joinpath("inspector.db").exists(), "check leaves nothing behind"


def test_doctor_exits_1_when_something_fails_and_0_otherwise(bare):
    done = bare.command("doctor")
    assert done.returncode == 0, done.stdout
    assert " 0 fail" in done.stdout.splitlines()[-1]
    assert all(line.split()[0] in ("ok", "warn") for line in done.stdout.splitlines()[:-1])
    (bare.data / "models" / "part" / "current").unlink()
    done = bare.command("doctor")
    assert done.returncode == 1
    assert re.search(r"^fail .*no active model", done.stdout, re.MULTILINE)
    assert "Traceback" not in done.stderr


# --- wrong arguments --------------------------------------------------------------------------------------


def test_wrong_arguments_are_named(bare):
    refuses(
        bare, "calibrate --images pictures --recipe nix", "--recipe nix", "expected one of part", status=2
    )
    refuses(bare, "calibrate", "exactly one of --images, --camera and --log", status=2)
    refuses(bare, "calibrate --camera nix", "--camera nix", "expected one of cam", status=2)
    refuses(bare, "log --verdict perhaps", "--verdict perhaps", "pass, reject or fault", status=2)
    refuses(bare, "log", "no inspection log", "inspector run")
    refuses(bare, "demo --folder pictures", "--folder pictures", "new or empty folder", status=2)
    assert len(list((bare.root / "pictures").iterdir())) == PICTURES


def test_plc_sim_on_a_port_that_is_taken_and_on_a_free_one(bare):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refuses(bare, f"plc-sim --port {port}", f"cannot listen on 127.0.0.1:{port}", "choose another")
    simulator = subprocess.Popen(
        [sys.executable, "-m", "inspector", "plc-sim"],
        cwd=bare.root,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    try:
        assert str(bare.port) in simulator.stdout.readline()
    finally:
        simulator.send_signal(signal.SIGTERM)
        _, errors = simulator.communicate(timeout=20)
    assert (simulator.returncode, errors) == (0, "")


# --- after a run ------------------------------------------------------------------------------------------


def test_log_lists_and_filters(played):
    lines = played.command("log").stdout.splitlines()
    assert lines[0].split()[:3] == ["id", "time", "camera"]
    assert [line.split()[0] for line in lines[1:]] == [str(i) for i in range(PICTURES, 0, -1)]
    assert all("PASS" in line for line in lines[1:])
    assert AWKWARD in lines[-1]
    rows = [json.loads(line) for line in played.command("log", "--json", "--limit", "3").stdout.splitlines()]
    assert [row["sequence"] for row in rows] == [8, 7, 6]
    assert {row["verdict"] for row in rows} == {"PASS"}
    middle = sorted(row["score"] for row in rows)[1]
    few = played.command("log", "--json", "--limit", "3", "--min-score", str(middle), "--verdict", "pass")
    assert all(json.loads(line)["score"] >= middle for line in few.stdout.splitlines())
    assert len(few.stdout.splitlines()) >= 2
    assert played.command("log", "--json", "--until", "2020-01-01").stdout == ""
    events = [json.loads(line) for line in played.command("log", "--events", "--json").stdout.splitlines()]
    assert {"started", "camera_opened", "stopped"} <= {event["kind"] for event in events}


def test_show_prints_a_decision_and_writes_its_picture(played):
    done = played.command("show", "1", "--out", "one.png")
    assert done.returncode == 0
    said = dict(line.rstrip().split(maxsplit=1) for line in done.stdout.splitlines())
    assert (said["inspection"], said["verdict"], said["source"]) == ("1", "PASS", AWKWARD)
    assert len(said["bundle"]) == 64
    picture = cv2.imread(str(played.root / "one.png"))
    assert picture.shape[0] > 100
    assert picture.std() > 5
    refuses(played, "show 999", "no inspection 999", f"the newest is {PICTURES}")
    refuses(played, "show 1 --out nix/a.png", "nix/a.png", "cannot be written", "--out")


# --- train and calibrate ----------------------------------------------------------------------------------


def test_a_label_is_written_shown_and_filtered(played):
    def listed(*arguments):
        return [json.loads(line) for line in played.command("log", "--json", *arguments).stdout.splitlines()]

    one, other = (row["id"] for row in listed()[:2])
    said = played.command("label", str(one), "defect", "--by", "anna", "--note", "a scratch")
    assert said.stdout == f"inspection {one} is labelled defect by anna\n"
    assert played.command("label", str(other), "normal").returncode == 0
    shown = played.command("show", str(one), "--out", "labelled.png").stdout
    assert "defect by anna" in shown
    assert "a scratch" in shown
    assert "brightness" in shown
    assert [(row["id"], row["label"]) for row in listed("--label", "defect")] == [(one, "defect")]
    refuses(played, f"label {one} perhaps", "'perhaps'", "normal or defect", status=2)
    refuses(played, "log --label perhaps", "'perhaps'", "normal or defect", status=2)
    refuses(played, "label 999999 normal", "no inspection 999999", "the newest is")


def test_train_activates_a_bundle_that_is_not_calibrated(bare):
    before = active(bare)
    done = bare.command("train", "--images", "pictures", "--preset", "tiny", "--epochs", "1")
    assert done.returncode == 0, done.stderr
    assert f"{PICTURES} pictures" in done.stdout
    assert "even light" not in done.stdout
    assert "not calibrated: run `inspector calibrate`" in done.stdout
    after = active(bare)
    report = re.search(r"report of the training: (.*)", done.stdout)[1]
    assert Path(report) == after.path.parent / "reports" / after.id / "report.html"
    assert Path(report).is_file()
    assert after.id != before.id
    assert after.threshold is None
    assert bundles.load(before.path).id == before.id, "the old one is kept"


def test_train_says_where_it_evens_the_light(bare):
    for number, path in enumerate(sorted((bare.root / "pictures").iterdir())):
        image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(path), (image * (0.4 if number % 2 else 1.0)).astype(image.dtype))
    done = bare.command("train", "--images", "pictures", "--preset", "tiny", "--epochs", "1")
    assert "sees all parts in even light (exposure)" in done.stdout
    assert active(bare).preprocessing.exposure == "even"


def test_a_method_that_does_not_exist_is_refused_before_any_picture_is_read(bare):
    (bare.root / "pictures" / "000.png").write_bytes(b"no image")
    refuses(bare, "train --images pictures --method nix", "method is 'nix'", "expected one of", "paper")


def test_without_a_method_the_one_for_the_weights_at_hand_is_proposed(bare):
    """No training is needed to see it: the first picture cannot be read, and the proposal comes before."""
    (bare.root / "pictures" / "000.png").write_bytes(b"no image")
    asked = ("train", "--images", "pictures", "--preset", "tiny")
    (bare.root / "w.pth").touch()
    bare.write(
        camera(trigger="camera", folder=ONCE), plc="enabled = false", recipe='backbone_weights = "w.pth"'
    )
    done = bare.command(*asked)
    assert f"method {METHOD}" in done.stdout
    assert f'method = "feature" with backbone_weights = "{bare.root / "w.pth"}"' in done.stdout
    done = bare.command(*asked, "--method", "paper")
    assert "at hand" not in done.stdout


def test_calibrations_say_what_is_missing_make_a_chain_and_agree_between_folder_and_camera(bare):
    first = active(bare)
    done = bare.command("calibrate", "--images", "pictures", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert f"{598 - PICTURES} more are needed (598 in all)" in done.stdout
    assert "nothing else was changed" in done.stdout
    assert bundles.listing(bare.data / "models" / "part") == [active(bare)] == [first]

    asked = ("--rate", "0.3", "--confidence", "0.9")
    done = bare.command("calibrate", "--images", "pictures", *asked)
    assert done.returncode == 0, done.stderr
    assert "at most 0.3 of normal parts will be rejected, with 90% confidence" in done.stdout
    second = active(bare)
    done = bare.command("calibrate", "--camera", "cam", "--frames", str(PICTURES), *asked)
    assert done.returncode == 0, done.stderr
    third = active(bare)
    assert (second.provenance["parent"], third.provenance["parent"]) == (first.id, second.id)
    assert third.threshold.source == "camera cam"
    assert third.threshold.scores_sha256 == second.threshold.scores_sha256
    assert third.threshold.n == PICTURES
