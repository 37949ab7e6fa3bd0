"""Frames into verdicts: the most urgent first, and with it what waits for the same model where the model
finds that this pays and makes nobody late (model/pace.py).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import takewhile
from math import inf

import structlog

from inspector.answer import Answers
from inspector.camera import Frame
from inspector.camera.events import Event, FrameReady
from inspector.channel import Channel, Judge, Scored
from inspector.errors import ModelError
from inspector.journal import Journal
from inspector.lane import Request
from inspector.verdict import Decision, Reason, judge

logger = structlog.get_logger()


class Judging:
    """Belongs to the decision loop."""

    def __init__(self, answers: Answers, journal: Journal, tick: Callable[[], None]) -> None:
        """Tick is called before each event and after each answer, to show that the loop lives."""
        self._answers = answers
        self._journal = journal
        self._tick = tick

    def through(self, queues: list[tuple[Channel, deque[Event]]]) -> Iterator[tuple[Channel, Event]]:
        """Judge all frames that wait in these queues, one of each camera; what else is in them comes back,
        each event in its turn: before the frames of its own camera that follow it.
        """
        while queues := sorted((one for one in queues if one[1]), key=self._urgency):
            self._tick()
            ready = []
            for channel, queue in queues:
                if not isinstance(event := queue[0], FrameReady):
                    break
                ready.append((channel, event.frame))
            if not ready:
                yield queues[0][0], queues[0][1].popleft()
            else:
                for _, queue in queues[: self._take(ready)]:
                    queue.popleft()

    def keep_warm(self, channels: list[Channel]) -> None:
        """Between parts, so that the next one finds the model as the last one left it."""
        for channel in {id(c.judge): c for c in channels if c.model_ok}.values():
            try:
                channel.judge.scorer.keep_warm()
            except ModelError as error:
                self._model_failed(channel, str(error))

    def _urgency(self, waiting: tuple[Channel, deque[Event]]) -> float:
        """When the first frame in this queue is due (monotonic, ns); what shows none can wait."""
        channel, queue = waiting
        frames = (event.frame for event in queue if isinstance(event, FrameReady))
        return next((self._due_ns(channel, frame) for frame in frames), inf)

    @staticmethod
    def _due_ns(channel: Channel, frame: Frame) -> int:
        """When its verdict is due; 0 if nobody waits for it."""
        if channel.settings.trigger != "plc":
            return frame.captured_ns + channel.settings.deadline_ms * 1_000_000
        request = channel.lane.find(frame.trigger)
        return request.deadline_ns if request else 0

    def _take(self, ready: Sequence[tuple[Channel, Frame]]) -> int:
        """Judge and answer the first, the most urgent, or the first few at once; how many."""
        channel, frame = ready[0]
        request = self._request(channel, frame)
        if request is None:
            return 1
        if reason := self._against(channel, request.deadline_ns):
            self._answer(channel, frame, request, Decision.fault(reason), None)
            return 1
        alike = [ready[0], *takewhile(lambda one: self._joins(channel.judge, *one), ready[1:])]
        for its, one in alike:
            its.in_work = one.trigger
        began_ns = time.monotonic_ns()
        try:
            scored = channel.judge.scorer.score_first(
                [one.image for _, one in alike], (request.deadline_ns - began_ns) / 1e6
            )
        except ModelError as error:
            self._model_failed(channel, str(error))
            self._answer(channel, frame, request, Decision.fault(Reason.MODEL_ERROR), None)
            return 1
        requests = [request, *(self._request(*one) for one in alike[1 : len(scored)])]
        for (its, one), asked, found in zip(alike, requests, scored, strict=False):
            found.stages["wait"] = (began_ns - one.captured_ns) / 1e6
            if asked is not None:
                self._answer(its, one, asked, self._decided(its, found), found)
        return len(scored)

    def _request(self, channel: Channel, frame: Frame) -> Request | None:
        if channel.settings.trigger != "plc":
            return channel.lane.own(frame.captured_ns)
        request = channel.lane.find(frame.trigger)
        if request is None:
            logger.warning("frame for no open request", camera=channel.name, frame=frame.frame_id)
            channel.in_work = None
            channel.camera.release(frame)
        return request

    @staticmethod
    def _against(channel: Channel, due_ns: int) -> Reason | None:
        """Why its frame is not scored."""
        if channel.judge.uncalibrated is not None:
            return Reason.UNCALIBRATED
        if channel.model_problem:
            return Reason.MODEL_ERROR  # until it has passed its self-test
        return Reason.LATE if time.monotonic_ns() >= due_ns else None

    def _joins(self, model: Judge, channel: Channel, frame: Frame) -> bool:
        """Whether this frame may be scored by this model together with more urgent ones."""
        return channel.judge is model and self._against(channel, self._due_ns(channel, frame)) is None

    def _decided(self, channel: Channel, scored: Scored) -> Decision:
        decision = judge(scored.score, channel.judge.threshold)
        if decision.reason is Reason.NOT_FINITE:
            self._model_failed(channel, f"the score of a part is {scored.score}")
        return decision

    def _answer(
        self, channel: Channel, frame: Frame, request: Request, decision: Decision, scored: Scored | None
    ) -> None:
        channel.in_work = None
        if channel.lane.overtaken(request, frame.captured_ns):
            decision = Decision.fault(Reason.OVERRUN)
        if channel.lane.claim(request):
            self._answers.give(channel, request, decision, frame, scored)
        elif scored is not None:
            self._journal.note(
                "late_score", "warning", f"score {scored.score:.6g} came after FAULT", channel.name, request
            )
        channel.camera.release(frame)
        self._tick()

    def _model_failed(self, channel: Channel, problem: str) -> None:
        """No part passes until the model has passed its self-test; supervision puts it to that."""
        self._journal.note("model", "error", problem, channel.name)
        channel.model_failed(problem)
