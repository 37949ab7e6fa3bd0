"""A log with one known bundle, and decisions to put into it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from inspector.audit import AuditLog, BundleRecord, Inspection

BUNDLE = "ab" * 32
NOON = datetime(2026, 5, 9, 12, 0, tzinfo=UTC)


def passed(number: int = 0, **changes: Any) -> Inspection:
    fields: dict[str, Any] = {
        "time": NOON + timedelta(seconds=number),
        "camera": "top",
        "recipe": "demo",
        "verdict": 1,
        "sequence": number,
        "part_id": 48000 + number,
        "score": 0.1,
        "threshold": 0.25,
        "bundle": BUNDLE,
        "frame_id": number,
        "source": f"{number:03d}.png",
        "latency_ms": 12.5,
        "stages": {"preprocess": 1.5, "model": 9.0},
    }
    return Inspection(**(fields | changes))


def fault(number: int = 0, reason: str = "camera_down", **changes: Any) -> Inspection:
    return passed(number, verdict=3, reason=reason, score=None, **changes)


def register(log: AuditLog) -> None:
    log.register_bundle(BundleRecord(id=BUNDLE, recipe="demo", architecture={"dim": 64}))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "station" / "inspector.db"


@pytest.fixture
def log(path: Path) -> Iterator[AuditLog]:
    with AuditLog.open(path) as log:
        register(log)
        yield log
