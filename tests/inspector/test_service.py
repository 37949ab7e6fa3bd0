"""The systemd unit: as tight as promised, and put in place with the paths of the installation."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from inspector import service
from inspector.errors import InspectorError, SettingsError
from inspector.settings import load
from tests.station import Station, camera, write_bundle, write_pictures

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "systemd" / "inspector.service"
EXPOSURE = 2.0

analyze = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)


@pytest.fixture
def station(tmp_path, monkeypatch):
    """Pictures and a station file, in a place that the unit may see."""
    hidden = tuple(place for place in ("/home", "/root") if not tmp_path.is_relative_to(place))
    monkeypatch.setattr(service, "HIDDEN", hidden)  # wherever the tests' own folders are
    monkeypatch.setattr(sys, "executable", "/opt/inspector/bin/python")
    monkeypatch.setattr(sys, "base_prefix", "/usr")
    monkeypatch.setattr(service, "PACKAGE", Path("/opt/inspector/lib/inspector"))
    one = Station(tmp_path, 5020)
    one.write(camera())
    return one


def planned(station):
    return service.plan(load(station.config), station.config)


@analyze
@pytest.mark.parametrize("name", ["inspector.service", "inspector-retrain.service"])
def test_the_units_are_rated_as_promised(name):
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(UNIT.with_name(name))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "offline" in done.stderr:
        pytest.skip("this systemd-analyze rates no unit that is not installed")
    rated = re.search(rf"Overall exposure level for {name}: ([\d.]+)", done.stdout)
    assert rated, done.stdout + done.stderr
    assert float(rated[1]) <= EXPOSURE


@analyze
def test_what_is_installed_verifies(station, tmp_path):
    """With its program replaced, which is not there."""
    for name, unit in planned(station).units.items():
        text = re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", unit, flags=re.MULTILINE)
        (tmp_path / name).write_text(text)
    files = [tmp_path / name for name in service.NAMES]
    done = subprocess.run(["systemd-analyze", "verify", *files], capture_output=True, text=True, check=False)
    assert (done.returncode, [line for line in done.stderr.splitlines() if "inspector" in line]) == (0, [])


@analyze
def test_the_system_calls_of_a_running_station_are_all_let_through(tmp_path):
    """Traced, where strace is there: the daemon and its camera process from start to stop."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    one = Station(tmp_path, 5020)
    write_pictures(tmp_path / "pictures", 4)
    write_bundle(one.data / "models" / "part")
    one.write(camera(trigger="camera", folder={"repeat": False}), plc="enabled = false")
    trace = tmp_path / "trace"
    command = [
        "strace",
        "-f",
        "-c",
        "-S",
        "name",
        "-U",
        "name",
        "-o",
        trace,
        sys.executable,
        "-m",
        "inspector",
    ]
    done = subprocess.run(
        [*command, "run"], cwd=tmp_path, capture_output=True, text=True, timeout=280, check=False
    )
    if "ptrace" in done.stderr.lower() or not trace.exists():
        pytest.skip("this machine lets nobody trace")
    assert done.returncode == 0, done.stderr
    used = set(trace.read_text().split()) - {"syscall", "total"}
    used = {name for name in used if re.fullmatch(r"[a-z]\w+", name)}
    assert {"read", "write", "mmap"} <= used
    assert used - allowed() <= {"fchown"}, "which SQLite tries as root alone"


def allowed():
    """What SystemCallFilter= of the unit comes to, by systemd's own lists."""
    groups, denied = [], []
    for line in re.findall(r"^SystemCallFilter=(.*)$", UNIT.read_text(), re.MULTILINE):
        (denied if line.startswith("~") else groups).extend(line.lstrip("~").split())
    return expand(groups) - expand(denied)


def expand(names):
    found = set()
    for name in names:
        if not name.startswith("@"):
            found.add(name)
            continue
        said = subprocess.run(
            ["systemd-analyze", "syscall-filter", name], capture_output=True, text=True, check=True
        ).stdout
        inner = [line.strip() for line in said.splitlines()[1:]]
        found |= expand([word for word in inner if word and not word.startswith("#")])
    return found


def test_the_unit_has_the_paths_of_the_installation_and_no_group_that_is_not_there(station):
    unit = planned(station).units["inspector.service"]
    assert f"ExecStart=/opt/inspector/bin/inspector run --config {station.config}\n" in unit
    night = planned(station).units["inspector-retrain.service"]
    assert f"ExecStart=/opt/inspector/bin/inspector retrain --nightly --config {station.config}\n" in night
    assert f"ConditionPathExists={station.config}\n" in night
    assert f"ReadWritePaths={station.data}\n" in night
    assert f"ProtectSystem=strict\nReadWritePaths={station.data}\n" in unit
    groups = re.search(r"^SupplementaryGroups=(.*)$", unit, re.MULTILINE)[1].split()
    known = {line.split(":")[0] for line in Path("/etc/group").read_text().splitlines()}
    assert set(groups) <= known
    assert "Type=notify" in unit
    assert "WatchdogSec=" in unit


def test_data_in_the_state_directory_needs_no_further_path(station):
    text = station.config.read_text().replace('data = "data"', 'data = "/var/lib/inspector"')
    station.config.write_text(text)
    wanted = planned(station)
    assert not any("ReadWritePaths" in unit for unit in wanted.units.values())
    assert all(command[0] in ("useradd", "systemctl") for command in wanted.commands)
    assert wanted.commands[-1] == ("systemctl", "enable", "inspector.service")


@pytest.mark.parametrize("hidden", ["program", "python", "package", "config", "data", "pictures", "producer"])
def test_paths_that_the_unit_does_not_see_are_refused(station, monkeypatch, hidden):
    if hidden == "program":
        monkeypatch.setattr(sys, "executable", "/home/ann/venv/bin/python")
    elif hidden == "config":
        monkeypatch.setattr(service, "HIDDEN", (str(station.config),))
    elif hidden == "python":
        monkeypatch.setattr(sys, "base_prefix", "/home/ann/.local/share/uv/python/cpython-3.12")
    elif hidden == "package":
        monkeypatch.setattr(service, "PACKAGE", Path("/home/ann/inspector/inspector"))
    elif hidden == "pictures":
        station.config.write_text(station.config.read_text().replace('"pictures"', '"/home/ann/pictures"'))
    elif hidden == "producer":
        genicam = '[camera.genicam]\nproducer = "/home/ann/vendor.cti"\nserial = "0"\n[recipe.part]'
        table = re.sub(
            r"\[camera\.folder\].*?\[recipe\.part\]", genicam, station.config.read_text(), flags=re.S
        )
        station.config.write_text(table)
    else:
        station.config.write_text(station.config.read_text().replace('"data"', '"/home/ann/data"'))
    with pytest.raises(SettingsError, match=r"the service does not see .*such as /opt/inspector"):
        planned(station)


@pytest.mark.parametrize("name", ["two words", "100%", 'a"b'])
def test_paths_that_mean_something_else_in_a_unit_are_refused(station, monkeypatch, name):
    monkeypatch.setattr(sys, "executable", f"/opt/{name}/bin/python")
    with pytest.raises(SettingsError, match=r"the program is .*letters, digits"):
        planned(station)


def test_a_dry_run_prints_unit_and_commands_and_writes_nothing(station, tmp_path, monkeypatch):
    monkeypatch.setattr(service, "UNITS", tmp_path / "units")
    said = list(service.install(load(station.config), station.config, dry_run=True))
    assert said[0].endswith("inspector.service:")
    assert "[Service]" in said[1]
    assert said[-1] == "systemctl enable inspector.service"
    assert not (tmp_path / "units").exists()


@pytest.mark.skipif(
    service.BOOTED.is_dir() and os.geteuid() == 0, reason="would install the service for real"
)
def test_without_root_or_systemd_it_is_refused_before_anything_is_written(station, tmp_path, monkeypatch):
    monkeypatch.setattr(service, "UNITS", tmp_path / "units")
    refused = "by root alone" if os.geteuid() != 0 else "systemd does not run"
    with pytest.raises(InspectorError, match=refused):
        list(service.install(load(station.config), station.config, dry_run=False))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(InspectorError, match=r"run this with sudo, or with --dry-run"):
        list(service.install(load(station.config), station.config, dry_run=False))
    assert not (tmp_path / "units").exists()
