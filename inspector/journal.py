"""Events: one log line and one row each. An event that cannot be logged must not stop the line."""

from __future__ import annotations

import structlog

from inspector.audit.log import AuditLog
from inspector.audit.records import Severity
from inspector.errors import LogError
from inspector.lane import Request

logger = structlog.get_logger()


class Journal:
    """Tells what happens besides decisions."""

    def __init__(self, log: AuditLog) -> None:
        self._log = log

    def note(
        self,
        kind: str,
        severity: Severity,
        message: str,
        camera: str | None = None,
        request: Request | None = None,
    ) -> None:
        """Write one event; request names the part that it is about."""
        about = {} if request is None else {"sequence": request.sequence, "part": request.part_id}
        say = {"info": logger.info, "warning": logger.warning, "error": logger.error}[severity]
        say(message, kind=kind, **({"camera": camera} if camera else {}), **about)
        try:
            self._log.add_event(kind, message, severity=severity, camera=camera, details=about or None)
        except LogError as error:
            logger.error("event not logged", error=str(error))
