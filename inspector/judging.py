"""Frames into verdicts. What waits for the same model goes in the order of its deadlines, and together where
the model finds that this pays and makes nobody late (model/pace.py).
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import structlog

from inspector.answer import Answers
from inspector.camera import Frame
from inspector.channel import Channel, Scored
from inspector.errors import ModelError
from inspector.journal import Journal
from inspector.lane import Request
from inspector.verdict import Decision, Reason, judge

logger = structlog.get_logger()


@dataclass(frozen=True, slots=True, eq=False)  # pictures cannot be compared
class Waiting:
    """A frame that a request waits for."""

    channel: Channel
    frame: Frame
    request: Request


class Judging:
    """Belongs to the decision loop."""

    def __init__(self, answers: Answers, journal: Journal) -> None:
        self._answers = answers
        self._journal = journal

    def open(self, frames: list[tuple[Channel, Frame]]) -> list[Waiting]:
        """Find or open the request of each frame, of each camera one at most; the most urgent first."""
        found = [self._opened(channel, frame) for channel, frame in frames]
        return sorted((one for one in found if one), key=lambda one: one.request.deadline_ns)

    def some(self, waiting: list[Waiting]) -> list[Waiting]:
        """Answer the first, and what is scored with it; the others come back. There must be one."""
        first = waiting[0]
        if reason := self._against(first):
            self._give(first, Decision.fault(reason), None)
            return waiting[1:]
        alike = [one for one in waiting if one.channel.judge is first.channel.judge]
        fit = [first, *(one for one in alike[1:] if self._against(one) is None)]
        judged = self._judged(fit)
        for one, (decision, scored) in zip(fit, judged, strict=False):  # as many as were scored at once
            self._give(one, decision, scored)
        done = fit[: len(judged)]
        return [one for one in waiting if one not in done]

    def keep_warm(self, channels: list[Channel]) -> None:
        """Between parts, so that the next one finds the model as the last one left it."""
        for channel in {id(c.judge): c for c in channels if c.model_ok}.values():
            try:
                channel.judge.scorer.keep_warm()
            except ModelError as error:
                self._model_failed(channel, str(error))

    def _opened(self, channel: Channel, frame: Frame) -> Waiting | None:
        if channel.settings.trigger == "plc":
            request = channel.lane.find(frame.trigger)
            if request is None:
                logger.warning("frame for no open request", camera=channel.name, frame=frame.frame_id)
                channel.camera.release(frame)
                return None
        else:
            request = channel.lane.own(frame.captured_ns)
        channel.in_work = request.token
        return Waiting(channel, frame, request)

    @staticmethod
    def _against(one: Waiting) -> Reason | None:
        """Why this frame is not scored."""
        if one.channel.judge.uncalibrated is not None:
            return Reason.UNCALIBRATED
        if one.channel.model_problem:
            return Reason.MODEL_ERROR  # until it has passed its self-test
        return Reason.LATE if time.monotonic_ns() >= one.request.deadline_ns else None

    def _judged(self, fit: list[Waiting]) -> list[tuple[Decision, Scored | None]]:
        """Of the first, or of the first few."""
        channel, now_ns = fit[0].channel, time.monotonic_ns()
        images = [one.frame.image for one in fit]
        try:
            scored = channel.judge.scorer.score_first(images, (fit[0].request.deadline_ns - now_ns) / 1e6)
        except ModelError as error:
            self._model_failed(channel, str(error))
            return [(Decision.fault(Reason.MODEL_ERROR), None)]
        return [(self._decided(one, its, now_ns), its) for one, its in zip(fit, scored, strict=False)]

    def _decided(self, one: Waiting, scored: Scored, began_ns: int) -> Decision:
        scored.stages["wait"] = (began_ns - one.frame.captured_ns) / 1e6
        decision = judge(scored.score, one.channel.judge.threshold)
        if decision.reason is Reason.NOT_FINITE:
            self._model_failed(one.channel, f"the score of a part is {scored.score}")
        return decision

    def _give(self, one: Waiting, decision: Decision, scored: Scored | None) -> None:
        channel, request = one.channel, one.request
        channel.in_work = None
        if channel.lane.overtaken(request, one.frame.captured_ns):
            decision = Decision.fault(Reason.OVERRUN)
        if channel.lane.claim(request):
            self._answers.give(channel, request, decision, one.frame, scored)
        elif scored is not None:
            self._journal.note(
                "late_score", "warning", f"score {scored.score:.6g} came after FAULT", channel.name, request
            )
        channel.camera.release(one.frame)

    def _model_failed(self, channel: Channel, problem: str) -> None:
        """No part passes until the model has passed its self-test; supervision puts it to that."""
        self._journal.note("model", "error", problem, channel.name)
        channel.model_failed(problem)
