"""`inspector install-service`: the unit of systemd/, with the paths of this installation, put in place."""

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

USER = "inspector"
STATE = Path("/var/lib/inspector")  # StateDirectory= of the unit
UNITS = Path("/etc/systemd/system")
BOOTED = Path("/run/systemd/system")  # is there where systemd runs, see sd_booted(3)
PACKAGE = Path(__file__).resolve().parent  # of an editable installation: in its source tree
HIDDEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")  # noqa: S108 - what the unit does not see


@dataclass(frozen=True)
class Plan:
    """The unit, and the commands that put it in place."""

    unit: str
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
    unit = re.sub(r"^ExecStart=.*$", f"ExecStart={program} run --config {config}", _shipped(), flags=re.M)
    unit = re.sub(r"^SupplementaryGroups=.*$", _groups, unit, flags=re.M)
    commands: list[tuple[str, ...]] = []
    if not _exists(USER):
        commands.append(("useradd", "--system", "--home-dir", str(STATE), USER))
    if not data.is_relative_to(STATE):
        unit = unit.replace("ProtectSystem=strict\n", f"ProtectSystem=strict\nReadWritePaths={data}\n")
        commands.append(("install", "--directory", "--mode", "0750", str(data)))
        commands.append(("chown", "--recursive", f"{USER}:{USER}", str(data)))
    commands += [("systemctl", "daemon-reload"), ("systemctl", "enable", "inspector.service")]
    return Plan(unit, tuple(commands))


def install(settings: Settings, config: Path, *, dry_run: bool) -> Iterator[str]:
    """Write the unit and run the commands, or say what would be done. Raises InspectorError."""
    wanted, file = plan(settings, config), UNITS / "inspector.service"
    if dry_run:
        yield f"# would write {file}:"
        yield wanted.unit.rstrip()
        yield "# and run:"
        yield from (" ".join(command) for command in wanted.commands)
        return
    if os.geteuid() != 0:
        raise InspectorError(
            f"{file} can be written by root alone; run this with sudo, or with --dry-run to see what it does"
        )
    if not BOOTED.is_dir():
        raise InspectorError("systemd does not run on this machine; --dry-run shows what would be done")
    file.write_text(wanted.unit, encoding="utf-8")
    yield f"wrote {file}"
    for command in wanted.commands:
        _run(command)
        yield " ".join(command)
    yield "it starts with the machine; now: systemctl start inspector"


def _shipped() -> str:
    """The unit as it comes with the package, or lies in the source tree."""
    here = Path(__file__).parent
    for place in (here / "inspector.service", here.parent / "systemd" / "inspector.service"):
        if place.is_file():
            return place.read_text(encoding="utf-8")
    raise InspectorError(f"{here / 'inspector.service'} is missing: install inspector again")


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
