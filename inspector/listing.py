"""`inspector log` and `inspector show`: decisions for people and for scripts."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from inspector.audit import heatmap
from inspector.audit.frames import FrameStore
from inspector.audit.labels import add_label
from inspector.audit.log import AuditLog
from inspector.audit.records import Label, LoggedInspection, Record, Said
from inspector.errors import LogError, SettingsError
from inspector.overlay import Caption, encode, render
from inspector.settings import Settings
from inspector.verdict import Verdict

COLOURS = {Verdict.PASS: "green", Verdict.REJECT: "red", Verdict.FAULT: "yellow"}


def open_for_reading(settings: Settings) -> AuditLog:
    """The station's log, never created by looking at it."""
    return AuditLog.open(settings.database, readonly=True)


def show_inspections(
    settings: Settings,
    since: datetime | None,
    until: datetime | None,
    verdict: str | None,
    camera: str | None,
    reason: str | None,
    part: int | None,
    min_score: float | None,
    label: str | None,
    limit: int,
    as_json: bool,
) -> None:
    """Print decisions that meet every condition, newest first."""
    wanted = None if verdict is None else parse_verdict(verdict)
    with open_for_reading(settings) as log:
        rows = log.inspections(
            since=_utc(since),
            until=_utc(until),
            verdict=wanted,
            camera=camera,
            reason=reason,
            part_id=part,
            min_score=min_score,
            label=None if label is None else parse_label(label),
            limit=limit,
        )
    if as_json:
        _print_json([_plain(row) for row in rows])
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, justify in _COLUMNS:
        table.add_column(name, justify=justify, no_wrap=True)
    for row in rows:
        table.add_row(*_cells(row))
    _console().print(table)


_COLUMNS: tuple[tuple[str, Any], ...] = (
    ("id", "right"),
    ("time", "left"),
    ("camera", "left"),
    ("part", "right"),
    ("sequence", "right"),
    ("verdict", "left"),
    ("score", "right"),
    ("threshold", "right"),
    ("ms", "right"),
    ("label", "left"),
    ("reason or source", "left"),
)


def show_events(
    settings: Settings,
    since: datetime | None,
    until: datetime | None,
    camera: str | None,
    limit: int,
    as_json: bool,
) -> None:
    """Print events, newest first."""
    with open_for_reading(settings) as log:
        events = log.events(since=_utc(since), until=_utc(until), camera=camera, limit=limit)
    if as_json:
        _print_json([asdict(event) for event in events])
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("time", "severity", "camera", "kind", "message"):
        table.add_column(name, overflow="fold")
    for event in events:
        message = escape(event.message)
        table.add_row(_local(event.time), event.severity, event.camera or "", event.kind, message)
    _console().print(table)


def show_one(settings: Settings, inspection: int, out: Path) -> None:
    """Print everything the log knows of one decision and write its overlay."""
    record = write_overlay(settings, inspection, out)
    console = _console()
    for key, value in [*_details(record), ("picture", escape(str(out)))]:
        console.print(f"[bold]{key:<12}[/bold] {value}", highlight=False)


def write_overlay(settings: Settings, inspection: int, out: Path) -> Record:
    """Write frame, heatmap, score and threshold of a decision as one PNG; returns what the log knows."""
    with open_for_reading(settings) as log:
        record = log.get(inspection)
    frame = None if record.frame is None else FrameStore(settings.frames).read(record.frame)
    shown = {name: getattr(record.inspection, name) for name in Caption.__dataclass_fields__}
    caption = Caption(**shown)
    if record.heatmap is None:
        picture = render(caption, frame)
    else:
        map_, scale = heatmap.unpack(record.heatmap), record.heatmap.scale
        picture = render(caption, frame, map_, scale=scale, region=record.heatmap.region)
    try:
        out.write_bytes(encode(picture))
    except OSError as error:
        raise LogError(f"{out}: cannot be written ({error.strerror}); give another file with --out") from None
    return record


def parse_verdict(text: str) -> int:
    """'pass' → 1. Raises SettingsError."""
    try:
        return int(Verdict[text.upper()])
    except KeyError:
        raise SettingsError(f"--verdict {text}: expected pass, reject or fault") from None


def parse_label(text: str) -> Said:
    """Raises SettingsError for anything but normal and defect."""
    match text:
        case "normal" | "defect":
            return text
    raise SettingsError(f"label {text!r}: expected normal or defect")


def label_part(settings: Settings, inspection: int, label: str, by: str | None, note: str | None) -> str:
    """Write the label, beside a daemon that may be at work; returns what to tell."""
    said = add_label(settings.database, inspection, parse_label(label), by=by, note=note)
    return f"inspection {inspection} is labelled {said.label}" + (f" by {said.by}" if said.by else "")


def _details(record: Record) -> list[tuple[str, str]]:
    row = record.inspection
    verdict = Verdict(row.verdict)
    details = [
        ("inspection", str(row.id)),
        ("time", _local(row.time)),
        ("camera", row.camera),
        ("recipe", row.recipe),
        ("part", str(row.part_id)),
        ("sequence", str(row.sequence)),
        ("verdict", f"[{COLOURS[verdict]}]{verdict.name}[/]" + (f" ({row.reason})" if row.reason else "")),
        ("score", _number(row.score)),
        ("threshold", _number(row.threshold) + _extrapolated(record)),
        ("latency", f"{row.latency_ms:.1f} ms" if row.latency_ms is not None else "-"),
        ("source", escape(row.source or "-")),
        ("bundle", row.bundle or "-"),
    ]
    if record.frame is not None:
        details += [("frame", record.frame.path), ("sha256", record.frame.sha256)]
    if record.measures is not None:
        details += [
            ("brightness", _number(record.measures.brightness)),
            ("sharpness", _number(record.measures.sharpness)),
            ("highlight", _number(record.measures.highlight)),
        ]
    details += [("label", _said(label)) for label in record.labels]
    return details


def _extrapolated(record: Record) -> str:
    """Of a threshold that rests on a fitted tail."""
    threshold = record.bundle.threshold if record.bundle is not None else None
    return " (extrapolated)" if threshold is not None and threshold.get("method") == "extrapolated" else ""


def _said(label: Label) -> str:
    by = f" by {label.by}" if label.by else ""
    return escape(f"{label.label}{by}, {_local(label.time)}" + (f": {label.note}" if label.note else ""))


def _cells(row: LoggedInspection) -> list[str]:
    verdict = Verdict(row.verdict)
    return [
        str(row.id),
        _local(row.time),
        row.camera,
        str(row.part_id) if row.part_id is not None else "",
        str(row.sequence) if row.sequence is not None else "",
        f"[{COLOURS[verdict]}]{verdict.name}[/]",
        _number(row.score),
        _number(row.threshold),
        f"{row.latency_ms:.0f}" if row.latency_ms is not None else "",
        row.label or "",
        escape(row.reason or row.source or ""),
    ]


def _plain(row: LoggedInspection) -> dict[str, Any]:
    return asdict(row) | {"verdict": Verdict(row.verdict).name}


def _print_json(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        sys.stdout.write(json.dumps(row, default=_encode) + "\n")


def _encode(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.5g}"


def _local(time: datetime) -> str:
    return time.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _utc(time: datetime | None) -> datetime | None:
    """A time on the command line is local time."""
    return None if time is None else time.astimezone(UTC)


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else 200)
