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


@dataclass(slots=True)
class Undelivered:
    """A verdict that the PLC has not confirmed, its row committed."""

    request: Request
    inspection: Inspection
    row: int | None
    decision: Decision
    block: InspectorBlock
    tried: bool = False  # it may have arrived all the same, only its confirmation not

    @property
    def until_ns(self) -> int | None:
        """When it becomes too old to be delivered as it is; None, never, for a FAULT."""
        return None if self.decision.verdict is Verdict.FAULT else self.request.deadline_ns

    def expired(self) -> bool:
        """Whether it is too old by now."""
        return self.until_ns is not None and time.monotonic_ns() >= self.until_ns


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
        self._failed_because = health.log_problem = log.problem  # the last problem of the log
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
            inspection = self._inspection(channel, request, frame, scored)
            row, decision = self._commit(inspection, _in_time(request, decision))
            if _in_time(request, decision) != decision:  # the commit itself took too long
                row, decision = self._commit(inspection, _in_time(request, decision))
            committed = time.monotonic_ns()
            sent = Undelivered(request, inspection, row, decision, self._block(channel, request, scored))
            delivered = self._write(channel, sent)
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

    def _commit(self, inspection: Inspection, decision: Decision) -> tuple[int | None, Decision]:
        inspection = replace(inspection, verdict=int(decision.verdict), reason=decision.reason)
        try:
            row = self._commit_with_evidence(inspection)
        except LogError as error:
            self._log_failed(error)
            logger.error("row not committed", camera=inspection.camera, error=str(error))
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

    def _write(self, channel: Channel, sent: Undelivered) -> bool:
        channel.overrun = sent.decision.reason is Reason.OVERRUN
        sent.block = channel.block = replace(sent.block, verdict=int(sent.decision.verdict))
        self._undelivered[channel.name].append(sent)
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
        """Write what waits to be delivered, oldest first, what is too old when its turn comes as FAULT.

        Only on the connection on which the channel has been taken up: on a newer one it is not known yet
        what the PLC still holds. The caller holds the channel's lock. Raises PlcError; what was not written
        goes on waiting.
        """
        queue = self._undelivered[channel.name]
        while queue:
            one = queue[0]
            if one.tried and self._arrived(channel, one):
                queue.popleft()
                continue
            if one.expired():
                self._make_fault(one, Reason.LATE)
            tried, one.tried = one.tried, True
            if self.write(channel, one.block, one.until_ns):
                queue.popleft()
            else:  # not even begun: its deadline has passed
                one.tried = tried

    def waiting(self, channel: Channel) -> set[tuple[int, int]]:
        """Sequence and part id of each verdict that waits to be delivered."""
        return {(one.block.sequence, one.block.part_id) for one in self._undelivered[channel.name]}

    def forgotten(self, channel: Channel, before_ns: int) -> None:
        """The PLC has lost its memory: what it asked before goes out as FAULT.

        It may count its new parts as it did the old ones, and a pass that waited would pass another part.
        The caller holds the channel's lock.
        """
        channel.forgotten_ns = before_ns
        for one in self._undelivered[channel.name]:
            if one.decision.verdict is not Verdict.FAULT:
                self._make_fault(one, Reason.RESTARTED)

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

    def _make_fault(self, one: Undelivered, reason: Reason) -> None:
        """A FAULT goes out in its place, with a row of its own that keeps the score."""
        age_ms = (time.monotonic_ns() - one.request.asked_ns) / 1e6
        row = replace(one.inspection, time=datetime.now(UTC), latency_ms=age_ms)
        one.row, one.decision = self._commit(row, Decision.fault(reason))
        one.block = replace(one.block, verdict=int(Verdict.FAULT))

    def write(self, channel: Channel, block: InspectorBlock, until_ns: int | None = None) -> bool:
        """Write a block to the channel's registers, then the coils that follow it. Raises PlcError.

        False, and nothing written, when its turn has not come by until_ns (monotonic).
        """
        if self._link is None:
            return True
        status = channel.status(log_ok=self._health.storage_ok, running=self._health.running)
        beating = self._alive()
        if beating:
            channel.heartbeat = next_heartbeat(channel.heartbeat)
        block = replace(block, heartbeat=channel.heartbeat, status=status)
        base, on, outputs = channel.settings.inspector_base, channel.taken_up, channel.settings.coils
        passed, rejected = coils(block.verdict)
        follow = None if outputs is None else {outputs.passed: passed, outputs.rejected: rejected}
        if not self._link.write_inspector(base, block, coils=follow, until_ns=until_ns, on=on):
            return False
        if beating:
            self._beats.beaten(channel.name, time.monotonic())
        self._confirm(channel, block)
        return True

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
