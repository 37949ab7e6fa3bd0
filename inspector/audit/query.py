"""Reading the log, on connections that never block the writer."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, Engine, Row, Select, func, select

from inspector.audit.failures import explained
from inspector.audit.records import (
    BundleRecord,
    Event,
    Heatmap,
    LoggedInspection,
    Record,
    Severity,
    StoredFrame,
)
from inspector.audit.schema import Base, Bundles, Events, Frames, Heatmaps, Inspections
from inspector.errors import LogError


class Queries:
    """What the log can be asked. Every method raises LogError when the file cannot be read."""

    def __init__(self, path: Path, reader: Engine) -> None:
        self.path = path
        self._reader = reader

    def inspections(
        self,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        verdict: int | None = None,
        camera: str | None = None,
        recipe: str | None = None,
        reason: str | None = None,
        part_id: int | None = None,
        min_score: float | None = None,
        limit: int | None = 50,
    ) -> list[LoggedInspection]:
        """Decisions that meet every condition given, newest first. since ≤ time < until, aware datetimes."""
        conditions = [
            column == value
            for column, value in (
                (Inspections.verdict, verdict),
                (Inspections.camera, camera),
                (Inspections.recipe, recipe),
                (Inspections.reason, reason),
                (Inspections.part_id, part_id),
            )
            if value is not None
        ]
        conditions += _between(Inspections.time, since, until)
        if min_score is not None:
            conditions.append(Inspections.score >= min_score)
        query = _columns(Inspections).where(*conditions).order_by(Inspections.id.desc()).limit(limit)
        return [LoggedInspection(**row._mapping) for row in self._rows(query)]

    def events(
        self,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        kind: str | None = None,
        severity: Severity | None = None,
        camera: str | None = None,
        limit: int | None = 50,
    ) -> list[Event]:
        """Events that meet every condition given, newest first."""
        conditions = [
            column == value
            for column, value in ((Events.kind, kind), (Events.severity, severity), (Events.camera, camera))
            if value is not None
        ]
        conditions += _between(Events.time, since, until)
        query = _columns(Events).where(*conditions).order_by(Events.id.desc()).limit(limit)
        return [Event(**row._mapping) for row in self._rows(query)]

    def last_sequence(self, camera: str) -> int | None:
        """The sequence of the camera's newest decision, where a restarted daemon goes on."""
        query = (
            select(Inspections.sequence)
            .where(Inspections.camera == camera, Inspections.sequence.is_not(None))
            .order_by(Inspections.id.desc())
            .limit(1)
        )
        rows = self._rows(query)
        return rows[0][0] if rows else None

    def get(self, id_: int) -> Record:
        """One decision with its frame, heatmap and bundle. Raises LogError when there is no such id."""
        with explained(self.path), self._reader.begin() as connection:
            found = connection.execute(_columns(Inspections).where(Inspections.id == id_)).first()
            if found is None:
                last = connection.execute(select(func.max(Inspections.id))).scalar()
                newest = f"the newest is {last}" if last else "it has no inspections yet"
                raise LogError(f"no inspection {id_} in {self.path}; {newest}")
            frame = connection.execute(_columns(Frames).where(Frames.inspection_id == id_)).first()
            heatmap = connection.execute(_columns(Heatmaps).where(Heatmaps.inspection_id == id_)).first()
            bundle = connection.execute(_columns(Bundles).where(Bundles.id == found.bundle)).first()
        return Record(
            inspection=LoggedInspection(**found._mapping),
            frame=None if frame is None else StoredFrame(*frame[1:]),
            heatmap=None if heatmap is None else _heatmap(heatmap),
            bundle=None if bundle is None else BundleRecord(**bundle._mapping),
        )

    def _rows(self, query: Select[Any]) -> Sequence[Row[Any]]:
        with explained(self.path), self._reader.begin() as connection:
            return connection.execute(query).all()


def _columns(table: type[Base]) -> Select[Any]:
    return select(*table.__table__.columns)


def _between(
    column: Any,  # an InstrumentedAttribute[datetime]; its comparisons are typed Any by SQLAlchemy
    since: datetime | None,
    until: datetime | None,
) -> list[ColumnElement[bool]]:
    after = [] if since is None else [column >= since]
    return after if until is None else [*after, column < until]


def _heatmap(row: Row[Any]) -> Heatmap:
    region = None if row.region is None else tuple(row.region)
    return Heatmap(png=row.png, scale=row.scale, width=row.width, height=row.height, region=region)
