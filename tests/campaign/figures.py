"""What the judgement reads and what it comes to: rows of the log, triggers of the PLC, counts by fault."""

from __future__ import annotations

import sqlite3
import statistics
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PASS, REJECT, FAULT = 1, 2, 3
KINDS = (
    "pass without inspection",
    "wrong frame",
    "coil leads",
    "verdict without row",
    "unanswered",
    "unasked",
    "contradicted",
    "overwritten",
    "late",
    "stale",
    "not recovered",
    "died",
)


@dataclass(frozen=True)
class Row:
    """A decision in the log."""

    id: int
    sequence: int
    part: int
    verdict: int
    score: float | None
    threshold: float | None
    bundle: str | None
    source: str | None

    def inspected(self) -> bool:
        """Whether it is a finished inspection of a part that is normal."""
        whole = None not in (self.score, self.threshold, self.bundle, self.source)
        return whole and self.score <= self.threshold


@dataclass
class Trigger:
    """One part that the PLC asked for."""

    t: int
    sequence: int
    part: int
    phase: str
    withdrawn: bool = False
    answers: list[tuple[int, int, bool]] = field(default_factory=list)  # received, verdict, server honest


@dataclass
class Figures:
    """What came of one kind of fault."""

    times: int = 0
    triggered: int = 0
    verdicts: int = 0
    passes: int = 0
    rejects: int = 0
    faults: int = 0
    withdrawn: int = 0
    overlooked: int = 0
    repeated: int = 0
    taken_back: int = 0
    violations: Counter[str] = field(default_factory=Counter)
    recovery_s: list[float] = field(default_factory=list)

    def table(self) -> dict[str, Any]:
        """As JSON has it."""
        plain = {k: v for k, v in vars(self).items() if k not in ("violations", "recovery_s")}
        recovery = sorted(self.recovery_s)
        return plain | {
            "violations": {kind: self.violations[kind] for kind in KINDS},
            "recover_s": {
                "n": len(recovery),
                "p50": statistics.median(recovery) if recovery else None,
                "max": recovery[-1] if recovery else None,
            },
        }


@dataclass
class Verdict:
    """The judgement: figures by fault, and what is wrong, a line each."""

    figures: dict[str, Figures]
    found: list[str]

    @property
    def total(self) -> Figures:
        """All faults together."""
        total = Figures()
        for one in self.figures.values():
            for name, value in vars(one).items():
                setattr(total, name, getattr(total, name) + value)
        return total


def rows(database: Path) -> list[Row]:
    """Every decision in the log, oldest first."""
    columns = "id, sequence, part_id, verdict, score, threshold, bundle, source"
    connection = sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)
    try:
        return [Row(*row) for row in connection.execute(f"SELECT {columns} FROM inspections ORDER BY id")]
    finally:
        connection.close()


def stepped(database: Path, by_s: float) -> bool:
    """Whether the times of neighbouring rows show that the daemon's wall clock jumped so far."""
    jump = "86400 * (julianday(time) - lag(julianday(time)) OVER (ORDER BY id))"
    query = f"SELECT max(abs(jump)) FROM (SELECT {jump} AS jump FROM inspections)"
    connection = sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)
    try:
        return (connection.execute(query).fetchone()[0] or 0) > by_s
    finally:
        connection.close()
