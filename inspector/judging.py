"""Frames into verdicts, camera by camera; and together what waits for the same model, where that pays and
every part that waits has time (model/pace.py).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator

import structlog

from inspector.answer import Answers
from inspector.camera import Frame
from inspector.camera.events import Event, FrameReady
from inspector.channel import Channel, Scored
from inspector.errors import ModelError
from inspector.journal import Journal
from inspector.lane import Request
from inspector.verdict import Decision, Reason, judge

logger = structlog.get_logger()

Told = list[tuple[Channel, deque[Event]]]  # by the cameras, and not dealt with yet
FOREVER_NS = 1 << 62


class Judging:
    """Belongs to the decision loop."""

    def __init__(self, answers: Answers, journal: Journal, tick: Callable[[], None]) -> None:
        """Tick is called before each event and after each answer, to show that the loop lives."""
        self._answers = answers
        self._journal = journal
        self._tick = tick

    def through(self, channels: list[Channel]) -> Iterator[tuple[Channel, Event]]:
        """Look at each camera in turn and judge its frames; what else it tells comes back in its place."""
        told: Told = [(channel, deque()) for channel in channels]
        together = any(channel.judge.scorer.together > 1 for channel in channels)
        for channel, events in told if together else ():
            events.extend(channel.camera.poll())  # now, to see what waits for the same model
        for channel, events in told:
            if not together:
                events.extend(channel.camera.poll())
            while events:
                self._tick()
                event = events.popleft()
                if isinstance(event, FrameReady):
                    self._take(channel, event.frame, told)
                else:
                    yield channel, event

    def keep_warm(self, channels: list[Channel]) -> None:
        """Between parts, so that the next one finds the model as the last one left it."""
        for channel in {id(c.judge): c for c in channels if c.model_ok}.values():
            try:
                channel.judge.scorer.keep_warm()
            except ModelError as error:
                self._model_failed(channel, str(error))

    def _take(self, channel: Channel, frame: Frame, told: Told) -> None:
        """Judge and answer this frame, and what may go together with it."""
        request = self._request(channel, frame)
        if request is None:
            return
        channel.in_work = request.token
        if reason := self._against(channel, request.deadline_ns):
            self._answer(channel, frame, request, Decision.fault(reason), None)
            return
        others = self._alike(channel, told)
        began_ns = time.monotonic_ns()
        left_ms = (min(request.deadline_ns, self._first_due_ns(told, began_ns)) - began_ns) / 1e6
        try:
            images = [frame.image, *(one.image for _, _, one in others)]
            scored = channel.judge.scorer.score_first(images, left_ms)
        except ModelError as error:
            self._model_failed(channel, str(error))
            self._answer(channel, frame, request, Decision.fault(Reason.MODEL_ERROR), None)
            return
        parts: list[tuple[Channel, Frame, Request | None]] = [(channel, frame, request)]
        for its, events, one in others[: len(scored) - 1]:
            events.popleft()
            parts.append((its, one, self._request(its, one)))
        for (its, one, asked), found in zip(parts, scored, strict=True):
            found.stages["wait"] = (began_ns - one.captured_ns) / 1e6
            if asked is not None:
                self._answer(its, one, asked, self._decided(its, found), found)

    def _alike(self, first: Channel, told: Told) -> list[tuple[Channel, deque[Event], Frame]]:
        """What other cameras have told next, where it is a frame for the same model."""
        found = []
        for channel, events in told if first.judge.scorer.together > 1 else ():
            event = events[0] if events and channel is not first else None
            if (
                isinstance(event, FrameReady)
                and channel.judge is first.judge
                and not self._against(channel, self._due_ns(channel, event.frame))
            ):
                channel.in_work = event.frame.trigger
                found.append((channel, events, event.frame))
        return found

    def _first_due_ns(self, told: Told, now_ns: int) -> int:
        """When the most urgent of all frames that wait is due; one that is late already makes no haste."""
        frames = ((c, event.frame) for c, events in told for event in events if isinstance(event, FrameReady))
        due = (self._due_ns(channel, frame) for channel, frame in frames)
        return min((one for one in due if one > now_ns), default=FOREVER_NS)

    @staticmethod
    def _due_ns(channel: Channel, frame: Frame) -> int:
        """When its verdict is due (monotonic); 0 if nobody waits for it."""
        if channel.settings.trigger != "plc":
            return frame.captured_ns + channel.settings.deadline_ms * 1_000_000
        request = channel.lane.find(frame.trigger)
        return request.deadline_ns if request else 0

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
