"""In which order, and with which others, frames that wait are judged."""

import time
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest

from inspector.camera import Frame, Lost
from inspector.camera.events import FrameReady
from inspector.channel import Channel, Judge
from inspector.errors import ModelError
from inspector.judging import Judging
from inspector.lane import Lane
from inspector.plc.registers import PlcBlock
from inspector.verdict import Reason, Verdict

SOON, LAST = 60_000, 180_000  # ms


@dataclass
class Scored:
    score: float = 0.0
    map: np.ndarray = field(default_factory=lambda: np.zeros((4, 4), np.float32))
    stages: dict = field(default_factory=dict)


@dataclass
class Scorer:
    """Scores so many at once, each picture with its first pixel."""

    together: int = 1
    fails: bool = False
    calls: list[list[int]] = field(default_factory=list)
    left_ms: list[float] = field(default_factory=list)

    def score_first(self, images, left_ms):
        self.left_ms.append(left_ms)
        self.calls.append([int(image[0, 0]) for image in images])
        if self.fails:
            raise ModelError("broken")
        return [Scored(float(image[0, 0])) for image in images[: self.together]]


class Camera:
    def __init__(self):
        self.released, self.events = [], []

    def poll(self):
        events, self.events = self.events, []
        return events

    def release(self, frame):
        self.released.append(frame.frame_id)


class Answers:
    def __init__(self):
        self.given = []

    def give(self, channel, request, decision, frame, scored):
        score = None if scored is None else scored.score
        self.given.append((channel.name, request.sequence, decision.verdict, decision.reason, score))


@dataclass
class Bench:
    answers: Answers = field(default_factory=Answers)
    notes: list = field(default_factory=list)
    ticks: list = field(default_factory=list)

    def run(self, *queues):
        """Everything through; the other events, in their turn, as (camera, frames answered before)."""
        journal = SimpleNamespace(note=lambda *said: self.notes.append(said))
        judging = Judging(self.answers, journal, lambda: self.ticks.append(len(self.answers.given)))
        for channel, events in queues:
            channel.camera.events = list(events)
        told = judging.through([channel for channel, _ in queues])
        return [(channel.name, len(self.answers.given)) for channel, _ in told]

    @property
    def order(self):
        return [f"{name}{sequence}" for name, sequence, *_ in self.answers.given]


def channel(name, judge, deadline_ms=SOON, trigger="camera"):
    settings = SimpleNamespace(name=name, trigger=trigger, deadline_ms=deadline_ms)
    return Channel(settings, None, judge, Camera(), Lane(deadline_ms), None)


def judge(scorer):
    return Judge(scorer, "b", 1000.0, None)


def frames(*pixels, trigger=None):
    now = time.monotonic_ns()
    return [
        FrameReady(Frame(np.full((2, 2), pixel, np.uint8), pixel, now + k, "s", trigger))
        for k, pixel in enumerate(pixels)
    ]


def test_where_nothing_goes_together_each_camera_is_looked_at_when_its_turn_comes():
    bench, model = Bench(), judge(Scorer())
    a, b = channel("a", model), channel("b", model)
    score = model.scorer.score_first
    late = frames(9)

    def meanwhile(images, left_ms):
        b.camera.events += late
        late.clear()
        return score(images, left_ms)

    model.scorer.score_first = meanwhile
    bench.run((a, frames(1, 2)), (b, []))
    assert bench.order == ["a1", "a2", "b1"]
    assert (a.camera.released, b.camera.released) == ([1, 2], [9])


def test_one_of_each_camera_goes_together_and_gets_its_own_score():
    bench, model = Bench(), judge(Scorer(together=2))
    queues = [(channel(name, model), frames(pixel, pixel + 1)) for name, pixel in (("a", 10), ("b", 20))]
    bench.run(*queues)
    assert model.scorer.calls == [[10, 20], [11, 21]]
    assert [(one[0], one[4]) for one in bench.answers.given] == [
        ("a", 10.0), ("b", 20.0), ("a", 11.0), ("b", 21.0)
    ]  # fmt: skip


def test_what_is_not_scored_at_once_keeps_its_turn():
    bench, model = Bench(), judge(Scorer(together=2))
    bench.run(*((channel(name, model), frames(k)) for k, name in enumerate("abc")))
    assert model.scorer.calls == [[0, 1, 2], [2]]
    assert bench.ticks[-1] == 3
    assert bench.order == ["a1", "b1", "c1"]


def test_only_frames_of_the_same_model_go_together():
    bench, one, other = Bench(), judge(Scorer(together=8)), judge(Scorer(together=8))
    cameras = [channel("a", one), channel("b", other), channel("c", one)]
    bench.run(*((camera, frames(k)) for k, camera in enumerate(cameras)))
    assert bench.order == ["a1", "c1", "b1"]
    assert (one.scorer.calls, other.scorer.calls) == ([[0, 2]], [[1]])


@pytest.mark.parametrize("urgent", ["a", "b", "c", "second of a"])
def test_the_model_is_told_of_the_most_urgent_part_that_waits_anywhere(urgent):
    """Of the batch, of another model, of the same camera; but not of one that is late already."""
    bench, one, other = Bench(), judge(Scorer(together=8)), judge(Scorer(together=8))
    due = {name: SOON if name == urgent else LAST for name in "abc"}
    a, b, c = channel("a", one, due["a"]), channel("b", one, due["b"]), channel("c", other, due["c"])
    long_ago = FrameReady(Frame(np.zeros((2, 2), np.uint8), 7, 1, "s", None))
    first = frames(1, 2)
    if urgent == "second of a":
        image, captured = first[1].frame.image, time.monotonic_ns() - (LAST - SOON) * 1_000_000
        first[1] = FrameReady(Frame(image, 2, captured, "s", None))
    bench.run((a, first), (b, frames(3)), (c, [*frames(4), long_ago]))
    assert one.scorer.calls[0] == [1, 3]
    assert SOON - 10_000 < one.scorer.left_ms[0] <= SOON


def test_what_else_a_camera_tells_keeps_its_place():
    bench, model = Bench(), judge(Scorer(together=2))
    lost = Lost("gap", 32)
    a, b, c = (channel(name, model) for name in "abc")
    told = bench.run((a, [lost, *frames(1)]), (b, [*frames(2), lost, *frames(3)]), (c, [lost, *frames(4)]))
    assert told == [("a", 0), ("b", 2), ("c", 3)]
    assert model.scorer.calls == [[1, 2], [3], [4]]
    assert bench.order == ["a1", "b1", "b2", "c1"]


def test_a_model_that_fails_is_fault_for_each_part_in_its_own_turn():
    bench, model = Bench(), judge(Scorer(together=2, fails=True))
    a, b = channel("a", model), channel("b", model)
    bench.run((a, frames(1, 2)), (b, frames(3)))
    assert bench.order == ["a1", "a2", "b1"]
    assert {one[2:4] for one in bench.answers.given} == {(Verdict.FAULT, Reason.MODEL_ERROR)}
    assert model.scorer.calls == [[1, 3], [3]], "the second of a is not shown to it"
    assert a.model_problem == b.model_problem == "broken"


@pytest.mark.parametrize("spoilt", ["model", "uncalibrated"])
def test_a_channel_that_may_not_pass_is_never_scored_with_others(spoilt):
    bench, model = Bench(), judge(Scorer(together=2))
    a, b = channel("a", model), channel("b", model)
    if spoilt == "model":
        b.model_failed("was NaN")
    else:
        b.judge = Judge(model.scorer, "b", None, "not calibrated")
    bench.run((a, frames(1)), (b, frames(2)))
    assert model.scorer.calls == [[1]]
    assert {one[2] for one in bench.answers.given if one[0] == "b"} == {Verdict.FAULT}


def test_a_frame_that_nobody_waits_for_is_given_back_at_once():
    bench, model = Bench(), judge(Scorer(together=2))
    a = channel("a", model, trigger="plc")
    a.lane.watch_from(PlcBlock(0, 0, 0, 0), (0, 0), time.monotonic_ns())
    asked = a.lane.trigger(PlcBlock(0, 7, 1, 0), time.monotonic_ns()).fire
    bench.run((a, [*frames(1, trigger=asked.token + 1), *frames(2, trigger=asked.token)]))
    assert bench.order == ["a7"]
    assert a.camera.released == [1, 2]
    assert a.in_work is None


def test_the_loop_shows_that_it_lives_after_each_answer_of_a_batch():
    bench, model = Bench(), judge(Scorer(together=8))
    bench.run(*((channel(name, model), frames(1)) for name in "abcd"))
    assert {1, 2, 3, 4} <= set(bench.ticks)
