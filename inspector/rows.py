"""The row of each decision, committed before anybody is told; what the log cannot take is owed to it."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

import structlog
from sqlalchemy.exc import IntegrityError

from inspector.audit.log import AuditLog
from inspector.audit.records import Inspection
from inspector.errors import DamagedLogError, LogError
from inspector.evidence import EvidenceWriter
from inspector.health import Health
from inspector.verdict import Decision, Reason, Verdict

logger = structlog.get_logger()

OWED_AT_MOST = 10_000  # FAULTs that wait for a log that cannot be written


class Rows:
    """Both threads of the daemon commit; the log takes one at a time."""

    def __init__(self, log: AuditLog, evidence: EvidenceWriter, health: Health) -> None:
        self._log = log
        self._evidence = evidence
        self._health = health
        self._failed_because = health.log_problem = log.problem  # the last problem of the log
        self._owed: deque[Inspection] = deque(maxlen=OWED_AT_MOST)  # on the wire, not in the log yet

    @property
    def owed(self) -> int:
        """How many rows wait for a log that can be written."""
        return len(self._owed)

    def commit(self, inspection: Inspection, decision: Decision) -> tuple[int | None, Decision]:
        """The row's id and what was decided: FAULT, and no id, where the log cannot take the row."""
        inspection = replace(inspection, verdict=int(decision.verdict), reason=decision.reason)
        try:
            row = self._commit_with_evidence(inspection)
        except LogError as error:
            self._failed(error)
            logger.error("row not committed", camera=inspection.camera, error=str(error))
            if decision.verdict is not Verdict.FAULT:
                decision = Decision.fault(Reason.STORAGE)
            self._owed.append(replace(inspection, verdict=int(decision.verdict), reason=decision.reason))
            return None, decision
        self._health.log_problem = ""
        return row, decision

    def settle(self) -> None:
        """Try the log again after it failed: the rows that it is owed first, then tell that it is back."""
        if not self._health.log_problem and not self._owed:
            return
        try:
            while self._owed:
                self._log.commit(self._owed[0])
                self._owed.popleft()
            self._log.add_event("log", f"the log can be written again after: {self._failed_because}")
        except LogError as error:
            self._failed(error)
            return
        self._health.log_problem = ""
        logger.info("the log can be written again")

    def _failed(self, error: LogError) -> None:
        self._health.log_problem = self._failed_because = str(error)
        self._health.log_damaged |= isinstance(error, DamagedLogError)

    def _commit_with_evidence(self, inspection: Inspection) -> int:
        """Evidence of earlier parts rides along; evidence that the log refuses must not hold up parts."""
        evidence = self._evidence.finished()
        try:
            return self._log.commit(inspection, evidence)
        except LogError as error:
            if evidence and isinstance(error.__cause__, IntegrityError):
                logger.error("evidence refused by the log", error=str(error))
                return self._log.commit(inspection)
            self._evidence.give_back(evidence)
            raise
