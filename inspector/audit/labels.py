"""What people say of parts, written beside a daemon that is at work on the same log."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import func, insert, select

from inspector.audit.database import guest
from inspector.audit.query import unknown
from inspector.audit.records import Label, Said
from inspector.audit.schema import Inspections, Labels

PATIENCE_S = 10.0  # how long a person waits for a log that is busy; the daemon's decisions come first


def add_label(
    path: Path, inspection: int, label: Said, *, by: str | None = None, note: str | None = None
) -> Label:
    """Say of an inspection that its part is "normal" or a "defect"; durable on return.

    Nothing is overwritten: the latest label of a part holds. Raises LogError for an unknown id and for a
    log that cannot be written.
    """
    now = datetime.now(UTC)
    row = {"inspection_id": inspection, "time": now, "label": label, "by": by, "note": note}
    with guest(path, PATIENCE_S) as connection:
        if connection.execute(select(Inspections.id).where(Inspections.id == inspection)).first() is None:
            raise unknown(path, inspection, connection.execute(select(func.max(Inspections.id))).scalar())
        id_ = connection.execute(insert(Labels), row).lastrowid
    return Label(id=id_, inspection_id=inspection, time=now, label=label, by=by, note=note)
