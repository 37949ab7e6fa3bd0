"""The tables of the log. A change here needs a migration beside it; a test compares the two."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, ClassVar

from sqlalchemy import (
    DDL,
    JSON,
    CheckConstraint,
    Dialect,
    Float,
    ForeignKey,
    Index,
    MetaData,
    String,
    event,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

REVISION = "0003"  # of the newest migration; four digits, counting up

_Json = JSON(none_as_null=True)


class UtcTime(TypeDecorator[datetime]):
    """Aware datetime ↔ `2026-05-09T07:35:25.123456Z`: sorts as text, reads in any SQLite tool."""

    impl = String(27)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> str | None:
        """To UTC text, always with microseconds."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"time without a zone: {value!r}; give an aware datetime")
        return value.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")

    def process_result_value(self, value: str | None, dialect: Dialect) -> datetime | None:
        """To an aware datetime in UTC."""
        return None if value is None else datetime.fromisoformat(value)


class Base(DeclarativeBase):
    """Names every constraint, so that later migrations can address it."""

    type_annotation_map: ClassVar[dict[Any, Any]] = {float: Float()}  # Double since SQLAlchemy 2.1
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class Bundles(Base):
    """Models that have judged parts."""

    __tablename__ = "bundles"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    recipe: Mapped[str]
    architecture: Mapped[dict[str, Any]] = mapped_column(_Json)
    preprocessing: Mapped[dict[str, Any] | None] = mapped_column(_Json)
    scoring: Mapped[dict[str, Any] | None] = mapped_column(_Json)
    threshold: Mapped[dict[str, Any] | None] = mapped_column(_Json)
    first_used: Mapped[datetime] = mapped_column(UtcTime)


class Inspections(Base):
    """One row a decision, durable before the PLC sees it."""

    __tablename__ = "inspections"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    time: Mapped[datetime] = mapped_column(UtcTime, index=True)
    camera: Mapped[str] = mapped_column(index=True)
    recipe: Mapped[str]
    sequence: Mapped[int | None]
    part_id: Mapped[int | None] = mapped_column(index=True)
    verdict: Mapped[int] = mapped_column(index=True)
    reason: Mapped[str | None]
    score: Mapped[float | None]
    threshold: Mapped[float | None]
    bundle: Mapped[str | None] = mapped_column(ForeignKey("bundles.id"))
    frame_id: Mapped[int | None]
    source: Mapped[str | None]
    latency_ms: Mapped[float | None]
    stages: Mapped[dict[str, float] | None] = mapped_column(_Json)

    __table_args__ = (
        CheckConstraint("verdict IN (1, 2, 3)", "verdict"),
        CheckConstraint("(verdict = 3) = (reason IS NOT NULL)", "reason"),
        CheckConstraint(
            "verdict = 3 OR (score IS NOT NULL AND threshold IS NOT NULL AND bundle IS NOT NULL)", "judged"
        ),
        CheckConstraint("verdict <> 1 OR score <= threshold", "passed"),
        Index("ix_inspections_reason", "reason", sqlite_where=text("reason IS NOT NULL")),
        {"sqlite_autoincrement": True},
    )


class Frames(Base):
    """The stored frame of an inspection; the pixels are a file."""

    __tablename__ = "frames"

    inspection_id: Mapped[int] = mapped_column(ForeignKey("inspections.id"), primary_key=True)
    path: Mapped[str]
    sha256: Mapped[str] = mapped_column(String(64))
    bytes: Mapped[int]
    width: Mapped[int]
    height: Mapped[int]
    channels: Mapped[int]
    bit_depth: Mapped[int]


class Heatmaps(Base):
    """The score map of an inspection, small enough to live in the row."""

    __tablename__ = "heatmaps"

    inspection_id: Mapped[int] = mapped_column(ForeignKey("inspections.id"), primary_key=True)
    png: Mapped[bytes]
    scale: Mapped[float]
    width: Mapped[int]
    height: Mapped[int]
    region: Mapped[list[int] | None] = mapped_column(_Json)


class Measures(Base):
    """What the light and the lens made of a frame, whether or not it is kept."""

    __tablename__ = "measures"

    inspection_id: Mapped[int] = mapped_column(ForeignKey("inspections.id"), primary_key=True)
    brightness: Mapped[float]
    sharpness: Mapped[float]
    highlight: Mapped[float | None]


class Labels(Base):
    """What people say of parts; nothing is ever taken back, the latest of a part wins."""

    __tablename__ = "labels"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    inspection_id: Mapped[int] = mapped_column(ForeignKey("inspections.id"), index=True)
    time: Mapped[datetime] = mapped_column(UtcTime)
    label: Mapped[str]
    by: Mapped[str | None]
    note: Mapped[str | None]

    __table_args__ = (
        CheckConstraint("label IN ('normal', 'defect')", "label"),
        {"sqlite_autoincrement": True},
    )


for _change in ("UPDATE", "DELETE"):
    event.listen(
        Labels.__table__,
        "after_create",
        DDL(  # type: ignore[no-untyped-call]  # SQLAlchemy has no type for it
            f"CREATE TRIGGER labels_no_{_change.lower()} BEFORE {_change} ON labels "
            "BEGIN SELECT RAISE(ABORT, 'labels are append-only'); END"
        ),
    )


class Events(Base):
    """What happened besides decisions."""

    __tablename__ = "events"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    time: Mapped[datetime] = mapped_column(UtcTime, index=True)
    kind: Mapped[str]
    severity: Mapped[str]
    camera: Mapped[str | None]
    message: Mapped[str]
    details: Mapped[dict[str, Any] | None] = mapped_column(_Json)

    __table_args__ = (
        CheckConstraint("severity IN ('info', 'warning', 'error')", "severity"),
        {"sqlite_autoincrement": True},
    )
