"""Events written beside a daemon that is at work on the same log."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import insert

from inspector.audit.database import guest
from inspector.audit.records import Severity
from inspector.audit.schema import Events

PATIENCE_S = 30.0


def add_event(
    path: Path, kind: str, message: str, severity: Severity = "info", details: Mapping[str, Any] | None = None
) -> None:
    """Write that something happened; durable on return. Raises LogError."""
    row = {
        "time": datetime.now(UTC),
        "kind": kind,
        "severity": severity,
        "message": message,
        "details": details,
    }
    with guest(path, PATIENCE_S) as connection:
        connection.execute(insert(Events), row)
