"""`inspector doctor`: probe everything a station needs; one finding a line, and what to do about it.

Probes only look: no register is written, no camera is configured, no part is inspected.
"""

from __future__ import annotations

import functools
import importlib
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from inspector.errors import InspectorError

if TYPE_CHECKING:
    from rich.console import Console

    from inspector.settings import Settings


class Status(StrEnum):
    """How much a finding matters."""

    OK = "ok"
    WARN = "warn"  # the station runs, but less well or with less than it promises
    FAIL = "fail"  # the station cannot inspect like this


OK, WARN, FAIL = Status


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    status: Status
    subject: str
    message: str
    advice: str = ""


Probe = Callable[["Settings"], Iterator[Finding]]

PROBES = {  # subject of a failed probe → module:function in inspector.probes
    "python": "machine:python",
    "libraries": "machine:libraries",
    "gpu": "machine:gpu",
    "folders": "cameras:folders",
    "genicam": "cameras:genicam",
    "plc": "plc:plc",
    "data folder": "storage:storage",
    "models": "models:models",
}


def examine(settings: Settings) -> Iterator[Finding]:
    """Run every probe; what one of them raises becomes its finding and never hides the others'."""
    for subject, where in PROBES.items():
        yield from isolated(subject, functools.partial(_probe, where, settings))


def _probe(where: str, settings: Settings) -> Iterator[Finding]:
    """A probe's module is imported here, so that a broken library fails its own probe alone."""
    module, function = where.split(":")
    probe: Probe = getattr(importlib.import_module(f"inspector.probes.{module}"), function)
    return probe(settings)


def isolated(subject: str, probe: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """What the probe finds, with what it raises as a last finding."""
    try:
        yield from probe()
    except InspectorError as error:
        yield Finding(Status.FAIL, subject, str(error))
    except Exception as error:  # noqa: BLE001 - libraries and drivers that are broken raise anything
        what = f"the probe ended with {type(error).__name__}: {error}"
        yield Finding(Status.FAIL, subject, what, "a library or driver is broken; repair it or report this")


def report(findings: Iterable[Finding], console: Console | None = None) -> int:
    """Print findings as they come; the exit status is 1 when one of them is a fail, else 0.

    On a terminal the text wraps beside its subject; elsewhere a finding is one line, whatever its length.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = console or Console(highlight=False)
    colours = {Status.OK: "green", Status.WARN: "yellow", Status.FAIL: "bold red"}
    counts = dict.fromkeys(Status, 0)
    for finding in findings:
        counts[finding.status] += 1
        text = Text(" ".join(finding.message.split()))
        if finding.advice:
            text.append(f" → {finding.advice}", style="cyan")
        if not console.is_terminal:
            line = f"{finding.status:<5} {finding.subject:<20} {text.plain}"
            console.print(Text(line), soft_wrap=True)
            continue
        row = Table.grid(padding=(0, 1))
        row.add_column(width=4)
        row.add_column(width=min(20, shutil.get_terminal_size().columns // 4))
        row.add_column(overflow="fold")
        row.add_row(Text(finding.status, style=colours[finding.status]), Text(finding.subject), text)
        console.print(row)
    console.print(", ".join(f"{number} {status}" for status, number in counts.items()))
    return 1 if counts[Status.FAIL] else 0
