"""`inspector install-service`: the units of systemd/, with the paths of this installation, put in place."""

from __future__ import annotations

import grp
import os
import pwd
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from inspector.errors import InspectorError, SettingsError
from inspector.settings import Settings

NAMES = ("inspector.service", "inspector-retrain.service", "inspector-retrain.timer")
USER = "inspector"
STATE = Path("/var/lib/inspector")  # StateDirectory= of the unit
UNITS = Path("/etc/systemd/system")
BOOTED = Path("/run/systemd/system")  # is there where systemd runs, see sd_booted(3)
PACKAGE = Path(__file__).resolve().parent  # of an editable installation: in its source tree
HIDDEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")  # noqa: S108 - what the unit does not see


@dataclass(frozen=True)
class Plan:
    """The units by file name, and the commands that put them in place."""

    units: dict[str, str]
    commands: tuple[tuple[str, ...], ...]


def plan(settings: Settings, config: Path) -> Plan:
    """What would be done. Raises SettingsError for paths that the hardened unit could not use."""
    data, config = settings.station.data.resolve(), config.resolve()
    program = Path(sys.executable).absolute().with_name("inspector")
    needed = [
        ("the program", program),
        ("its Python", Path(sys.base_prefix)),
        ("its package", PACKAGE),
        ("the station file", config),
        ("station.data", data),
    ]
    for camera in settings.camera:
        if camera.genicam is not None and camera.genicam.producer is not None:
            needed.append((f"the producer of camera '{camera.name}'", camera.genicam.producer))
        if camera.folder is not None:
            needed.append((f"the folder of camera '{camera.name}'", camera.folder.path))
    for what, path in needed:
        if not re.fullmatch(r"[\w/.,:=@+-]+", str(path)):
            raise SettingsError(
                f"{what} is {path}: expected letters, digits, /.,:=@+-_ alone; a unit reads others otherwise"
            )
        if any(path.is_relative_to(hidden) for hidden in HIDDEN):
            raise SettingsError(
                f"{what} is {path}: the service does not see {', '.join(HIDDEN)}; expected it elsewhere, "
                f'such as /opt/inspector, /etc/inspector/station.toml and data = "{STATE}"'
            )
    units = {name: _fitted(_shipped(name), program, config, data) for name in NAMES}
    commands: list[tuple[str, ...]] = []
    if not _exists(USER):
        commands.append(("useradd", "--system", "--home-dir", str(STATE), USER))
    if not data.is_relative_to(STATE):
        commands.append(("install", "--directory", "--mode", "0750", str(data)))
        commands.append(("chown", "--recursive", f"{USER}:{USER}", str(data)))
    commands += [
        ("systemctl", "daemon-reload"),
        ("systemctl", "enable", "--now", "inspector-retrain.timer"),
        ("systemctl", "enable", "inspector.service"),
    ]
    return Plan(units, tuple(commands))


def _fitted(unit: str, program: Path, config: Path, data: Path) -> str:
    """With the paths and groups of this machine."""
    command = rf"ExecStart={program}\1 --config {config}"
    unit = re.sub(r"^ExecStart=\S+(.*) --config .*$", command, unit, flags=re.M)
    unit = re.sub(r"^ConditionPathExists=.*$", f"ConditionPathExists={config}", unit, flags=re.M)
    unit = re.sub(r"^SupplementaryGroups=.*$", _groups, unit, flags=re.M)
    if not data.is_relative_to(STATE):
        unit = unit.replace("ProtectSystem=strict\n", f"ProtectSystem=strict\nReadWritePaths={data}\n")
    return unit


def install(settings: Settings, config: Path, *, dry_run: bool) -> Iterator[str]:
    """Write the units and run the commands, or say what would be done. Raises InspectorError."""
    wanted = plan(settings, config)
    if dry_run:
        for name, unit in wanted.units.items():
            yield f"# would write {UNITS / name}:"
            yield unit.rstrip()
        yield "# and run:"
        yield from (" ".join(command) for command in wanted.commands)
        return
    if os.geteuid() != 0:
        raise InspectorError(
            f"{UNITS} can be written by root alone; run this with sudo, or with --dry-run to see what it does"
        )
    if not BOOTED.is_dir():
        raise InspectorError("systemd does not run on this machine; --dry-run shows what would be done")
    for name, unit in wanted.units.items():
        (UNITS / name).write_text(unit, encoding="utf-8")
        yield f"wrote {UNITS / name}"
    for command in wanted.commands:
        _run(command)
        yield " ".join(command)
    yield "it starts with the machine; now: systemctl start inspector"


def _shipped(name: str) -> str:
    """A unit as it comes with the package, or lies in the source tree."""
    here = Path(__file__).parent
    for place in (here / name, here.parent / "systemd" / name):
        if place.is_file():
            return place.read_text(encoding="utf-8")
    raise InspectorError(f"{here / name} is missing: install inspector again")


def _groups(line: re.Match[str]) -> str:
    """Only groups that this machine has: systemd starts nothing with one that it does not know."""
    asked = line[0].partition("=")[2].split()
    known = {group.gr_name for group in grp.getgrall()}
    return f"SupplementaryGroups={' '.join(name for name in asked if name in known)}"


def _exists(user: str) -> bool:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True


def _run(command: tuple[str, ...]) -> None:
    program = shutil.which(command[0])
    if program is None:
        raise InspectorError(f"{command[0]} is not installed; it is needed for: {' '.join(command)}")
    done = subprocess.run([program, *command[1:]], capture_output=True, text=True, check=False)  # noqa: S603 - our own
    if done.returncode != 0:
        raise InspectorError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.strip()}")
