"""Reading the log, on connections that never block the writer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, Engine, Row, Select, func, select

from inspector.audit.failures import explained
from inspector.audit.records import (
    BundleRecord,
    Event,
    Heatmap,
    JudgedPart,
    Label,
    LoggedInspection,
    Measures,
    Part,
    Record,
    Said,
    Severity,
    StoredFrame,
)
from inspector.audit.schema import Base, Bundles, Events, Frames, Heatmaps, Inspections, Labels
from inspector.audit.schema import Measures as MeasuresTable
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
        label: Said | None = None,
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
        if label is not None:
            conditions.append(Inspections.id.in_(_latest(label)))
        query = _labelled().where(*conditions).order_by(Inspections.id.desc()).limit(limit)
        return [LoggedInspection(**row._mapping) for row in self._rows(query)]

    def parts(
        self,
        *,
        recipe: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        verdict: int | None = None,
        label: Said | None = None,
        labelled: bool = False,
        framed: bool = False,
    ) -> list[Part]:
        """Decisions with their frames, measures and latest labels, oldest first.

        label: only parts whose latest label this is; labelled: only parts with any; framed: only parts whose
        frame is kept, without the times of their stages, which are half of what a row takes in memory.
        """
        conditions = _between(Inspections.time, since, until)
        if recipe is not None:
            conditions.append(Inspections.recipe == recipe)
        if verdict is not None:
            conditions.append(Inspections.verdict == verdict)
        if label is not None or labelled:
            conditions.append(Inspections.id.in_(_latest(label)))
        query = (
            _labelled(but=("stages",) if framed else ())
            .add_columns(*_frame_columns(), *_MEASURED)
            .join(Frames, Frames.inspection_id == Inspections.id, isouter=not framed)
            .outerjoin(MeasuresTable, MeasuresTable.inspection_id == Inspections.id)
            .where(*conditions)
            .order_by(Inspections.id)
        )
        with explained(self.path), self._reader.begin() as connection:
            return [_part(row) for row in connection.execute(query)]  # one by one: there may be 100,000

    def judged(self, camera: str, bundle: str, *, after: int, limit: int) -> list[JudgedPart]:
        """Measured parts that this bundle has passed or rejected, with ids above after, oldest first."""
        columns = (Inspections.id, Inspections.time, Inspections.verdict, Inspections.score)
        query = (
            select(*columns)
            .add_columns(*_MEASURED)
            .join(MeasuresTable, MeasuresTable.inspection_id == Inspections.id)
            .where(
                MeasuresTable.inspection_id > after,
                Inspections.verdict != 3,
                Inspections.camera == camera,
                Inspections.bundle == bundle,
            )
            .order_by(MeasuresTable.inspection_id)
            .limit(limit)
        )
        return [JudgedPart(**row._mapping) for row in self._rows(query)]

    def last_before(self, time: datetime) -> int:
        """Id of the last decision before this time, aware; 0 where there is none."""
        later = select(Inspections.id).where(Inspections.time >= time).order_by(Inspections.time).limit(1)
        if rows := self._rows(later):
            return int(rows[0][0]) - 1
        return int(self._rows(select(func.max(Inspections.id)))[0][0] or 0)

    def labels(self, inspection: int | None = None) -> list[Label]:
        """The latest label of each part that has one, newest first; of one inspection all that was said."""
        query = _columns(Labels).order_by(Labels.id.desc())
        if inspection is None:
            query = query.where(Labels.id.in_(_LATEST))
        else:
            query = query.where(Labels.inspection_id == inspection)
        return [Label(**row._mapping) for row in self._rows(query)]

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
            found = connection.execute(_labelled().where(Inspections.id == id_)).first()
            if found is None:
                last = connection.execute(select(func.max(Inspections.id))).scalar()
                raise unknown(self.path, id_, last)
            frame = connection.execute(_columns(Frames).where(Frames.inspection_id == id_)).first()
            heatmap = connection.execute(_columns(Heatmaps).where(Heatmaps.inspection_id == id_)).first()
            bundle = connection.execute(_columns(Bundles).where(Bundles.id == found.bundle)).first()
            measures = connection.execute(
                _columns(MeasuresTable).where(MeasuresTable.inspection_id == id_)
            ).first()
            said = connection.execute(
                _columns(Labels).where(Labels.inspection_id == id_).order_by(Labels.id.desc())
            ).all()
        return Record(
            inspection=LoggedInspection(**found._mapping),
            frame=None if frame is None else StoredFrame(*frame[1:]),
            heatmap=None if heatmap is None else _heatmap(heatmap),
            bundle=None if bundle is None else BundleRecord(**bundle._mapping),
            measures=None if measures is None else Measures(*measures[1:]),
            labels=[Label(**row._mapping) for row in said],
        )

    def _rows(self, query: Select[Any]) -> Sequence[Row[Any]]:
        with explained(self.path), self._reader.begin() as connection:
            return connection.execute(query).all()


_MEASURED = (MeasuresTable.brightness, MeasuresTable.sharpness, MeasuresTable.highlight)
_LATEST = select(func.max(Labels.id)).group_by(Labels.inspection_id)


def unknown(path: Path, inspection: int, last: int | None) -> LogError:
    """What to say of an id that is not in the log; last: the newest that is."""
    newest = f"the newest is {last}" if last else "it has no inspections yet"
    return LogError(f"no inspection {inspection} in {path}; {newest}")


def _columns(table: type[Base]) -> Select[Any]:
    return select(*table.__table__.columns)


def _labelled(but: Sequence[str] = ()) -> Select[Any]:
    """Inspections, but for these columns, each with its latest label, which the index finds at once."""
    latest = (
        select(Labels.label)
        .where(Labels.inspection_id == Inspections.id)
        .order_by(Labels.id.desc())
        .limit(1)
        .scalar_subquery()
    )
    columns = [column for column in Inspections.__table__.columns if column.name not in but]
    return select(*columns).add_columns(latest.label("label"))


def _latest(label: Said | None) -> Select[Any]:
    """Ids of the inspections whose latest label this is; None: of all that have one."""
    query = select(Labels.inspection_id).where(Labels.id.in_(_LATEST))
    return query if label is None else query.where(Labels.label == label)


def _frame_columns() -> list[Any]:
    return [getattr(Frames, field.name).label(f"frame_{field.name}") for field in fields(StoredFrame)]


def _part(row: Row[Any]) -> Part:
    values = dict(row._mapping)
    measures = [values.pop(column.key) for column in _MEASURED]
    frame = {field.name: values.pop(f"frame_{field.name}") for field in fields(StoredFrame)}
    return Part(
        inspection=LoggedInspection(**values),
        frame=None if frame["path"] is None else StoredFrame(**frame),
        measures=None if measures[0] is None else Measures(*measures),
    )


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
