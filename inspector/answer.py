"""Answer one request: commit the row, then one write to the PLC. Never the other way round.

Both threads of the daemon answer (the decision loop with scores, the line loop with faults); a lock per
channel keeps the order of the log and the order on the wire the same.
"""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import structlog
from sqlalchemy.exc import IntegrityError

from inspector.audit.log import AuditLog
from inspector.audit.records import Inspection
from inspector.beats import Beats
from inspector.camera import Frame
from inspector.channel import Channel, Scored
from inspector.errors import DamagedLogError, LogError, PlcError
from inspector.evidence import EvidenceWriter, Exhibit
from inspector.health import Health
from inspector.lane import Request
from inspector.plc.link import Link
from inspector.plc.registers import InspectorBlock, coils, next_heartbeat
from inspector.settings import Log
from inspector.verdict import Decision, Reason, Verdict

logger = structlog.get_logger()

UNDELIVERED_AT_MOST = 64  # verdicts that wait for a PLC; older ones have no part before the camera any more
OWED_AT_MOST = 10_000  # FAULTs that wait for a log that cannot be written


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


@dataclass(frozen=True, slots=True)
class Undelivered:
    """A verdict that the PLC has not confirmed."""

    request: Request
    block: InspectorBlock
    tried: bool = False  # it may have arrived all the same, only its confirmation not

    def expired(self) -> bool:
        """Whether it has become too old to be delivered as it is; a FAULT never does."""
        return self.block.verdict != Verdict.FAULT and time.monotonic_ns() >= self.request.deadline_ns


class Answers:
    """Turns decisions into rows and registers."""

    def __init__(
        self,
        log: AuditLog,
        link: Link | None,
        evidence: EvidenceWriter,
        health: Health,
        settings: Log,
        observer: Callable[[Answer], None],
        beats: Beats,
        alive: Callable[[], bool],
    ) -> None:
        """Alive says whether the decision loop lives: a block that goes out then is a heartbeat too."""
        self._log = log
        self._link = link
        self._evidence = evidence
        self._health = health
        self._settings = settings
        self._observer = observer
        self._beats = beats
        self._alive = alive
        self._failed_because = ""  # the last problem of the log
        self._owed: deque[Inspection] = deque(maxlen=OWED_AT_MOST)  # on the wire, not in the log yet
        self._undelivered: defaultdict[str, deque[Undelivered]] = defaultdict(
            lambda: deque(maxlen=UNDELIVERED_AT_MOST)
        )  # by camera, oldest first

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
            row, decision = self._commit(channel, request, _in_time(request, decision), frame, scored)
            if _in_time(request, decision) != decision:  # the commit itself took too long
                late = _in_time(request, decision)
                row, decision = self._commit(channel, request, late, frame, scored)
            committed = time.monotonic_ns()
            delivered = self._write(channel, request, decision, scored, committed)
            written = time.monotonic_ns()
        stages = dict(scored.stages) if scored else {}
        stages["commit"] = (committed - started) / 1e6
        stages["modbus"] = (written - committed) / 1e6
        stages["total"] = (written - request.asked_ns) / 1e6
        answer = Answer(
            row,
            channel.name,
            request.sequence,
            request.part_id,
            decision,
            scored.score if scored else None,
            frame.source if frame else None,
            stages,
            delivered,
        )
        self._keep(channel, answer, frame, scored)
        self._tell(channel, answer)
        return answer

    def _commit(
        self,
        channel: Channel,
        request: Request,
        decision: Decision,
        frame: Frame | None,
        scored: Scored | None,
    ) -> tuple[int | None, Decision]:
        inspection = Inspection(
            time=datetime.now(UTC),
            camera=channel.name,
            recipe=channel.settings.recipe,
            verdict=int(decision.verdict),
            reason=decision.reason,
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
        try:
            row = self._commit_with_evidence(inspection)
        except LogError as error:
            self._log_failed(error)
            logger.error("row not committed", camera=channel.name, error=str(error))
            if decision.verdict is not Verdict.FAULT:
                decision = Decision.fault(Reason.STORAGE)
            self._owed.append(replace(inspection, verdict=int(decision.verdict), reason=decision.reason))
            return None, decision
        self._health.log_problem = ""
        return row, decision

    def _log_failed(self, error: LogError) -> None:
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
            self._log_failed(error)
            return
        self._health.log_problem = ""
        logger.info("the log can be written again")

    def _write(
        self, channel: Channel, request: Request, decision: Decision, scored: Scored | None, now_ns: int
    ) -> bool:
        channel.overrun = decision.reason is Reason.OVERRUN
        channel.block = replace(
            channel.block,
            verdict=int(decision.verdict),
            sequence=request.sequence,
            part_id=request.part_id,
            score=scored.score if scored else None,
            threshold=channel.judge.threshold,
            recipe=channel.recipe.number,
            latency_ms=(now_ns - request.asked_ns) / 1e6,
            overruns=channel.lane.overruns,
        )
        self._undelivered[channel.name].append(Undelivered(request, channel.block))
        try:
            self.flush(channel)
        except PlcError:
            return False
        return True

    def waits(self, channel: Channel) -> int:
        """How many verdicts wait to be delivered."""
        return len(self._undelivered[channel.name])

    @property
    def owed(self) -> int:
        """How many rows wait for a log that can be written."""
        return len(self._owed)

    def flush(self, channel: Channel) -> None:
        """Write what waits to be delivered, oldest first, what is too old by now as FAULT.

        Only on the connection on which the channel has been taken up: on a newer one it is not known yet
        what the PLC still holds. The caller holds the channel's lock. Raises PlcError; what was not written
        goes on waiting.
        """
        queue = self._undelivered[channel.name]
        while queue:
            if queue[0].tried and self._arrived(channel, queue[0]):
                queue.popleft()
                continue
            if queue[0].expired():
                queue[0] = self._as_fault(channel, queue[0], Reason.LATE)
            queue[0] = replace(queue[0], tried=True)
            self.write(channel, queue[0].block)
            queue.popleft()

    def waiting(self, channel: Channel) -> set[tuple[int, int]]:
        """Sequence and part id of each verdict that waits to be delivered."""
        return {(one.block.sequence, one.block.part_id) for one in self._undelivered[channel.name]}

    def forgotten(self, channel: Channel, before_ns: int) -> None:
        """The PLC has lost its memory: what it asked before goes out as FAULT.

        It may count its new parts as it did the old ones, and a pass that waited would pass another part.
        The caller holds the channel's lock.
        """
        channel.forgotten_ns = before_ns
        queue = self._undelivered[channel.name]
        for index, one in enumerate(queue):
            if one.block.verdict != Verdict.FAULT:
                queue[index] = self._as_fault(channel, one, Reason.RESTARTED)

    def _arrived(self, channel: Channel, waiting: Undelivered) -> bool:
        """Whether the registers hold it; where coils follow them it is written again in any case."""
        if self._link is None or channel.settings.coils is not None:
            return False
        ours = self._link.read_inspector(channel.settings.inspector_base, on=channel.taken_up)
        block = waiting.block
        if (ours.sequence, ours.part_id, ours.verdict) != (block.sequence, block.part_id, block.verdict):
            return False
        self._confirm(channel, block)
        if waiting.expired():
            channel.confirmed_on = None  # it has been there for long: to be taken out like any from before
        return True

    def _as_fault(self, channel: Channel, waiting: Undelivered, reason: Reason) -> Undelivered:
        """The FAULT that goes out in its place, with a row of its own."""
        fault = Decision.fault(reason)
        self._commit(channel, waiting.request, fault, None, None)
        return replace(waiting, block=replace(waiting.block, verdict=int(fault.verdict), score=None))

    def write(self, channel: Channel, block: InspectorBlock) -> None:
        """Write a block to the channel's registers, then the coils that follow it. Raises PlcError."""
        if self._link is None:
            return
        status = channel.status(log_ok=self._health.storage_ok, running=self._health.running)
        beating = self._alive()
        if beating:
            channel.heartbeat = next_heartbeat(channel.heartbeat)
        block = replace(block, heartbeat=channel.heartbeat, status=status)
        self._link.write_inspector(channel.settings.inspector_base, block, on=channel.taken_up)
        if beating:
            self._beats.beaten(channel.name, time.monotonic())
        outputs = channel.settings.coils
        if outputs is not None:
            passed, rejected = coils(block.verdict)
            self._link.write_coils({outputs.passed: passed, outputs.rejected: rejected}, on=channel.taken_up)
        self._confirm(channel, block)

    def _confirm(self, channel: Channel, block: InspectorBlock) -> None:
        channel.confirmed = (block.sequence, block.part_id)
        channel.confirmed_on = channel.taken_up

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
        self._observer(answer)


def _in_time(request: Request, decision: Decision) -> Decision:
    """FAULT in place of a verdict whose deadline has passed; the score stays in the row."""
    if decision.verdict is Verdict.FAULT or time.monotonic_ns() < request.deadline_ns:
        return decision
    return Decision.fault(Reason.LATE)


def _readable(source: str) -> str:
    """A file name may hold bytes that are no text; the log holds text."""
    return source.encode("utf-8", "replace").decode()
