"""The table on the terminal, and the same as JSON."""

from __future__ import annotations

import os
import platform
import sqlite3
import sys
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.campaign.figures import Figures
from tests.campaign.run import Outcome

COLUMNS = (
    "fault",
    "times",
    "parts",
    "verdicts",
    "PASS",
    "REJECT",
    "FAULT",
    "pass without inspection",
    "wrong frame",
    "coil leads",
    "without row",
    "unanswered",
    "other violations",
    "recover p50 s",
    "max s",
)
NAMED = ("pass without inspection", "wrong frame", "coil leads", "verdict without row", "unanswered")


def show(outcome: Outcome) -> None:
    """Print the table and every violation."""
    console = Console(width=200)
    table = Table(*COLUMNS)
    table.columns[0].no_wrap = True
    for column in table.columns[1:]:
        column.justify = "right"
    for name, figures in outcome.verdict.figures.items():
        table.add_row(name, *_cells(figures))
    table.add_section()
    table.add_row("total", *_cells(outcome.verdict.total))
    console.print(table)
    for name, reason in outcome.skipped.items():
        console.print(f"skipped: {name}: {reason}")
    for line in outcome.verdict.found:
        console.print(f"VIOLATION {line}", highlight=False)
    console.print(f"{len(outcome.verdict.found)} violations")


def _cells(figures: Figures) -> list[str]:
    table = figures.table()
    found, recover = table["violations"], table["recover_s"]
    other = sum(count for kind, count in found.items() if kind not in NAMED)
    counts = ("times", "triggered", "verdicts", "passes", "rejects", "faults")
    seconds = ["–" if recover[key] is None else f"{recover[key]:.2f}" for key in ("p50", "max")]
    return [*(str(table[key]) for key in counts), *(str(found[kind]) for kind in NAMED), str(other), *seconds]


def as_json(outcome: Outcome, seed: int, seconds: float) -> dict[str, Any]:
    """Everything that the table says, with what it was measured on."""
    return {
        "command": "python -m tests.campaign " + " ".join(sys.argv[1:]),
        "seed": seed,
        "ended": datetime.now(UTC).isoformat(timespec="seconds"),
        "minutes": round(seconds / 60, 1),
        "machine": {
            "processors": os.cpu_count(),
            "load": os.getloadavg(),
            "kernel": platform.release(),
            "python": platform.python_version(),
            "sqlite": sqlite3.sqlite_version,
        },
        "faults": {name: figures.table() for name, figures in outcome.verdict.figures.items()},
        "total": outcome.verdict.total.table(),
        "skipped": outcome.skipped,
        "violations": outcome.verdict.found,
    }
