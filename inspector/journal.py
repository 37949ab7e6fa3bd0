"""Events: one log line and one row each. An event that cannot be logged must not stop the line."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import structlog

from inspector.audit.log import AuditLog
from inspector.audit.records import Severity
from inspector.errors import LogError
from inspector.lane import Request

logger = structlog.get_logger()

OWED_AT_MOST = 1000  # events that wait for a log that cannot be written


@dataclass(frozen=True, slots=True)
class _Event:
    time: datetime
    kind: str
    severity: Severity
    message: str
    camera: str | None
    about: dict[str, Any]


class Journal:
    """Tells what happens besides decisions."""

    def __init__(self, log: AuditLog) -> None:
        self._log = log
        self._owed: deque[_Event] = deque(maxlen=OWED_AT_MOST)
        self._lock = threading.Lock()
        self._told = ""  # why events wait, as it was told

    def note(
        self,
        kind: str,
        severity: Severity,
        message: str,
        camera: str | None = None,
        request: Request | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        """Write one event; request names the part that it is about, details what scripts want to read."""
        about = {} if request is None else {"sequence": request.sequence, "part": request.part_id}
        about |= details or {}
        say = {"info": logger.info, "warning": logger.warning, "error": logger.error}[severity]
        say(message, kind=kind, **({"camera": camera} if camera else {}), **about)
        text = message.encode("utf-8", "replace").decode()  # a file name may hold bytes that are no text
        with self._lock:
            self._owed.append(_Event(datetime.now(UTC), kind, severity, text, camera, about))
        self.settle()

    def settle(self) -> None:
        """Write what the log could not take before, oldest first."""
        with self._lock:
            try:
                while self._owed:
                    self._write(self._owed[0])
                    self._owed.popleft()
            except LogError as error:
                if str(error) != self._told:
                    self._told = str(error)
                    logger.error("events wait for the log", error=self._told)
            else:
                self._told = ""

    def _write(self, event: _Event) -> None:
        self._log.add_event(
            event.kind,
            event.message,
            severity=event.severity,
            camera=event.camera,
            details=event.about or None,
            time=event.time,
        )
