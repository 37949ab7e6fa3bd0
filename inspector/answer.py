"""Answer one request: commit the row, then one write to the PLC. Never the other way round.

Both threads of the daemon answer (the decision loop with scores, the line loop with faults); a lock per
channel keeps the order of the log and the order on the wire the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import structlog

from inspector.audit.records import Inspection
from inspector.camera import Frame
from inspector.channel import Channel, Scored
from inspector.delivery import Delivery, Undelivered
from inspector.evidence import EvidenceWriter, Exhibit
from inspector.health import Health
from inspector.lane import Request
from inspector.plc.registers import InspectorBlock
from inspector.rows import Rows
from inspector.settings import Log
from inspector.verdict import Decision, Reason, Verdict

logger = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Answer:
    """What was decided about a part, and how long each step took (ms by stage)."""

    inspection: int | None  # row id, None when the log could not take it (then the verdict is FAULT)
    camera: str
    sequence: int
    part_id: int
    decision: Decision
    score: float | None
    source: str | None
    stages: dict[str, float]
    delivered: bool


class Answers:
    """Turns decisions into rows and registers."""

    def __init__(
        self,
        rows: Rows,
        delivery: Delivery,
        evidence: EvidenceWriter,
        health: Health,
        settings: Log,
        observer: Callable[[Answer], None] | None,
    ) -> None:
        self._rows = rows
        self._delivery = delivery
        self._evidence = evidence
        self._health = health
        self._settings = settings
        self._observer = observer

    def give(
        self,
        channel: Channel,
        request: Request,
        decision: Decision,
        frame: Frame | None = None,
        scored: Scored | None = None,
    ) -> Answer:
        """Commit, write, keep the evidence. The caller has claimed the request."""
        if self._health.low_disk or self._health.frames_problem:
            decision = Decision.fault(Reason.STORAGE)
        with channel.lock:
            started = time.monotonic_ns()
            if decision.verdict is not Verdict.FAULT and request.asked_ns < channel.forgotten_ns:
                decision = Decision.fault(Reason.RESTARTED)
            if decision.verdict is not Verdict.FAULT and channel.coils_refused:
                decision = Decision.fault(Reason.COILS)
            inspection = self._inspection(channel, request, frame, scored)
            row, decision = self._rows.commit(inspection, _in_time(request, decision))
            if _in_time(request, decision) != decision:  # the commit itself took too long
                row, decision = self._rows.commit(inspection, _in_time(request, decision))
            committed = time.monotonic_ns()
            sent = Undelivered(request, inspection, row, decision, self._block(channel, request, scored))
            delivered = self._delivery.send(channel, sent)
            written = time.monotonic_ns()
        stages = dict(scored.stages) if scored else {}
        stages["commit"] = (committed - started) / 1e6
        stages["modbus"] = (written - committed) / 1e6
        stages["total"] = (written - request.asked_ns) / 1e6
        answer = Answer(
            sent.row,
            channel.name,
            request.sequence,
            request.part_id,
            sent.decision,  # a verdict may have become too old while it waited for its turn
            scored.score if scored else None,
            frame.source if frame else None,
            stages,
            delivered,
        )
        self._keep(channel, answer, frame, scored)
        self._tell(channel, answer)
        return answer

    def _inspection(
        self, channel: Channel, request: Request, frame: Frame | None, scored: Scored | None
    ) -> Inspection:
        """The row, but for what is decided."""
        return Inspection(
            time=datetime.now(UTC),
            camera=channel.name,
            recipe=channel.settings.recipe,
            verdict=int(Verdict.FAULT),
            reason=None,
            sequence=request.sequence,
            part_id=request.part_id,
            score=scored.score if scored else None,
            threshold=channel.judge.threshold,
            bundle=channel.judge.bundle,
            frame_id=frame.frame_id if frame and frame.frame_id < 2**63 else None,
            source=_readable(frame.source) if frame else None,
            latency_ms=(time.monotonic_ns() - request.asked_ns) / 1e6,
            stages=scored.stages if scored else None,
        )

    @staticmethod
    def _block(channel: Channel, request: Request, scored: Scored | None) -> InspectorBlock:
        return replace(
            channel.block,
            sequence=request.sequence,
            part_id=request.part_id,
            score=scored.score if scored else None,
            threshold=channel.judge.threshold,
            recipe=channel.recipe.number,
            latency_ms=(time.monotonic_ns() - request.asked_ns) / 1e6,
            overruns=channel.lane.overruns,
        )

    def _keep(self, channel: Channel, answer: Answer, frame: Frame | None, scored: Scored | None) -> None:
        if answer.inspection is None or frame is None:
            return
        passed = answer.decision.verdict is Verdict.PASS
        wanted = self._settings.frames == "all" or (self._settings.frames == "not-passed" and not passed)
        self._evidence.submit(
            Exhibit(
                inspection=answer.inspection,
                camera=channel.name,
                taken=datetime.now(UTC),
                image=frame.image.copy(),
                keep=wanted and not self._health.low_disk,
                map=scored.map if scored else None,
                scale=channel.judge.scale,
                region=channel.recipe.region,
            )
        )

    def _tell(self, channel: Channel, answer: Answer) -> None:
        say = logger.info if answer.decision.verdict is not Verdict.FAULT else logger.warning
        say(
            "verdict",
            inspection=answer.inspection,
            camera=answer.camera,
            sequence=answer.sequence,
            part=answer.part_id,
            verdict=answer.decision.verdict.name,
            reason=answer.decision.reason,
            score=answer.score,
            threshold=channel.judge.threshold,
            total_ms=round(answer.stages["total"], 2),
            delivered=answer.delivered,
        )
        if self._observer is not None:
            self._observer(answer)


def _in_time(request: Request, decision: Decision) -> Decision:
    """FAULT in place of a verdict whose deadline has passed; the score stays in the row."""
    if decision.verdict is Verdict.FAULT or time.monotonic_ns() < request.deadline_ns:
        return decision
    return Decision.fault(Reason.LATE)


def _readable(source: str) -> str:
    """A file name may hold bytes that are no text; the log holds text."""
    return source.encode("utf-8", "replace").decode()
