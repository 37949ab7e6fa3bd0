"""The inspection log: decisions, heatmaps, events, frames."""

from __future__ import annotations

from inspector.audit.log import AuditLog
from inspector.audit.records import (
    BundleRecord,
    Event,
    Evidence,
    Heatmap,
    Inspection,
    Label,
    LoggedInspection,
    Measures,
    Part,
    Record,
    Said,
    Severity,
    StoredFrame,
)

__all__ = [
    "AuditLog",
    "BundleRecord",
    "Event",
    "Evidence",
    "Heatmap",
    "Inspection",
    "Label",
    "LoggedInspection",
    "Measures",
    "Part",
    "Record",
    "Said",
    "Severity",
    "StoredFrame",
]
