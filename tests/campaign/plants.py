"""Faults planted into the daemon, to show that the campaign finds them: `--plant NAME`."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from inspector.answer import Answers
from inspector.delivery import Delivery, Undelivered
from inspector.lane import Lane, Triggered
from inspector.model.engine import Engine
from inspector.model.preprocess import Image
from inspector.plc.link import Link
from inspector.verdict import Decision, Reason, Verdict


def verdict_before_row() -> None:
    """The verdict goes out before its row is committed."""
    give = Answers.give

    def early(self: Answers, channel: Any, request: Any, decision: Decision, *more: Any) -> Any:
        frame, scored = more or (None, None)
        with channel.lock:
            row = self._inspection(channel, request, frame, scored)
            self._delivery.send(
                channel,
                Undelivered(request, row, None, decision, self._block(channel, request, scored)),
            )
        return give(self, channel, request, decision, *more)

    Answers.give = early


def dropped_trigger() -> None:
    """Every fifth trigger is forgotten."""
    trigger, count = Lane.trigger, itertools.count(1)

    def forgetful(self: Lane, *arguments: Any, **more: Any) -> Triggered:
        triggered = trigger(self, *arguments, **more)
        if triggered.fire is not None and next(count) % 5 == 0:
            self.claim(triggered.fire)
            return Triggered()
        return triggered

    Lane.trigger = forgetful


def pass_for_fault() -> None:
    """A part that the camera did not show reads PASS on the wire; its row says FAULT."""
    send = Delivery.send
    without_frame = (Reason.CAMERA_DOWN, Reason.NO_FRAME, Reason.RESTARTED)

    def lenient(self: Delivery, channel: Any, sent: Undelivered) -> bool:
        if sent.decision.reason in without_frame:
            sent.decision = Decision(Verdict.PASS)
        return send(self, channel, sent)

    Delivery.send = lenient


def frame_of_before() -> None:
    """Each part is judged by the frame of the part before it."""
    score, kept = Engine.score_first, []

    def late(self: Engine, images: Sequence[Image], left_ms: float) -> Any:
        kept.append(images[0].copy())
        del kept[:-2]
        return score(self, kept[:1], left_ms)

    Engine.score_first = late


def coil_first() -> None:
    """The coils are written before the registers that they follow."""
    write = Link.write_inspector

    def leading(self: Link, base: int, block: Any, *, coils: Any = None, **more: Any) -> bool:
        if coils:
            self.write_coils(coils, on=more.get("on"))
        return write(self, base, block, **more)

    Link.write_inspector = leading


PLANTS: dict[str, Callable[[], None]] = {
    "verdict-before-row": verdict_before_row,
    "dropped-trigger": dropped_trigger,
    "pass-for-fault": pass_for_fault,
    "frame-of-before": frame_of_before,
    "coil-first": coil_first,
}
