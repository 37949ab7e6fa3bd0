"""The sequence logic against a model of the PLC: triggers, polls, frames, deadlines and restarts."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from inspector.lane import MISSED_AT_MOST, Lane
from inspector.plc.registers import PlcBlock

DEADLINE_MS = 100
DEADLINE_NS = DEADLINE_MS * 1_000_000


class LaneAndPlc(RuleBasedStateMachine):
    """The PLC numbers its triggers in 16 bits; here each has a part id that never repeats, from 1.

    sequences[part] is what the register held, answers[part] how often it was answered.
    """

    @initialize(sequence=st.integers(0, 0xFFFF))
    def begin(self, sequence):
        self.now = 0
        self.sequences = {0: sequence}
        self.newest = self.read = 0  # parts: the last that the PLC raised, and that the lane has been shown
        self.restarted = False  # the PLC, since the last poll
        self.wire = (sequence, 0)  # in the inspector's registers
        self.answers = {}
        self.twice = set()
        self.unread = set()  # overtaken by a restart before anybody could read them: nobody can answer them
        self.work = None
        self.old_tokens = []
        self.overruns = 0
        self.start_inspector()

    def start_inspector(self):
        self.lane = Lane(DEADLINE_MS)
        self.overruns = 0
        self.work = None
        return self.lane.watch_from(self.block(), self.wire, self.now, gap=True)

    def block(self):
        return PlcBlock(sequence=self.sequences[self.newest], part_id=self.newest)

    def answer(self, part, request):
        assert self.sequences[part] == request.sequence, "the verdict bears the sequence that asked for it"
        self.answers[part] = self.answers.get(part, 0) + 1
        self.wire = (request.sequence, request.part_id)

    def raise_one(self, sequence):
        self.newest += 1
        self.sequences[self.newest] = sequence & 0xFFFF

    @rule(count=st.integers(1, 4))
    def plc_triggers(self, count):
        for _ in range(count):
            self.raise_one(self.sequences[self.newest] + 1)

    @rule(back=st.integers(2000, 60_000))
    def plc_restarts(self, back):
        """Its register jumps; what it held and nobody has read is gone."""
        self.unread.update(range(self.read + 1, self.newest + 1))
        self.raise_one(self.sequences[self.read] - back)
        self.restarted = True

    @rule()
    def poll(self):
        expected = [part for part in range(self.read + 1, self.newest + 1) if part not in self.unread]
        if self.restarted:
            self.unread.update(expected[:-1])
            expected = expected[-1:]
        triggered = self.lane.trigger(self.block(), self.now)
        assert triggered.restarted == self.restarted
        if self.restarted and self.work is not None:
            assert triggered.dropped == (self.work[1],)
            assert not self.lane.claim(self.work[1]), "a dropped part is nobody else's to answer"
            self.answer(self.work[0], self.work[1])
            self.work = None
        else:
            assert triggered.dropped == ()
        busy = self.work is not None
        found = [*triggered.overrun, *([triggered.fire] if triggered.fire else [])]
        assert [request.sequence for request in found] == [self.sequences[part] for part in expected]
        assert [request.part_id for request in found] == [0] * (len(found) - 1) + expected[-1:]
        assert (triggered.fire is None) == (busy or not expected)
        for part, request in zip(expected, triggered.overrun, strict=False):
            self.answer(part, request)
            assert not self.lane.claim(request), "an overrun is nobody else's to answer"
        self.overruns += len(triggered.overrun)
        if triggered.fire:
            assert triggered.fire.deadline_ns == self.now + DEADLINE_NS
            self.work = (expected[-1], triggered.fire)
            self.old_tokens.append(triggered.fire.token)
        self.read, self.restarted = self.newest, False

    @rule()
    def poll_once_more(self):
        self.poll()
        again = self.lane.trigger(self.block(), self.now)
        assert (again.fire, again.overrun, again.restarted) == (None, (), False)

    @precondition(lambda self: self.work is not None)
    @rule()
    def the_frame_is_scored(self):
        part, request = self.work
        assert self.lane.find(request.token) == request
        assert self.lane.claim(request)
        assert not self.lane.claim(request)
        self.answer(part, request)
        self.work = None

    @rule(token=st.integers(0, 100))
    def a_frame_that_nobody_waits_for(self, token):
        """Late, or of an earlier life of the camera."""
        if self.old_tokens and (
            self.work is None or self.old_tokens[token % len(self.old_tokens)] != self.work[1].token
        ):
            assert self.lane.find(self.old_tokens[token % len(self.old_tokens)]) is None
        assert self.lane.find(None) is None

    @rule(ms=st.integers(0, 150))
    def time_passes(self, ms):
        self.now += ms * 1_000_000
        late = self.lane.claim_expired(self.now)
        due = self.work is not None and self.now >= self.work[1].deadline_ns
        assert late == ([self.work[1]] if due else [])
        if due:
            self.answer(self.work[0], self.work[1])
            self.work = None

    @rule()
    def inspector_restarts(self):
        """It goes on from the registers: what the PLC asks now, and what was answered last."""
        asked = (self.sequences[self.newest], self.newest)
        behind = (asked[0] - self.wire[0]) & 0xFFFF
        if self.wire == asked:
            numbers = []
        elif 1 <= behind <= MISSED_AT_MOST:
            numbers = [(asked[0] - back) & 0xFFFF for back in reversed(range(behind))]
        else:
            numbers = asked[:1]
        # a PLC that restarted to a little above the last answer has raised fewer: then nobody asked for some
        near = range(max(1, self.newest - len(numbers) + 1), self.newest + 1)
        expected = [part for part in near if self.sequences[part] == (asked[0] - self.newest + part) & 0xFFFF]
        expected = expected if numbers else []
        # what lies before the last answered one, or before the PLC's restart, is in no register any more
        lost = {*range(self.read + 1, self.newest), *([self.work[0]] if self.work else [])}
        self.unread.update(lost - set(expected))
        self.old_tokens.clear()
        found = self.start_inspector()
        assert [one.sequence for one in found] == list(numbers)
        assert [one.part_id for one in found] == [0] * (len(found) - 1) + [self.newest][: len(found)]
        asking = {one.sequence: one for one in found}
        for part in expected:
            request = asking[self.sequences[part]]
            if self.answers.get(part):
                self.twice.add(part)  # FAULT once more: the registers held an older part's answer by then
            self.answer(part, request)
        self.read, self.restarted = self.newest, False

    @invariant()
    def nothing_is_answered_twice(self):
        wrong = [part for part, count in self.answers.items() if count > 1 + (part in self.twice)]
        assert wrong == []

    @invariant()
    def busy_and_counts_are_right(self):
        assert self.lane.busy == (self.work is not None)
        assert self.lane.overruns == self.overruns

    def teardown(self):
        self.poll()
        for request in self.lane.claim_all():
            self.answer(self.work[0], request)
        self.work = None
        raised = set(range(1, self.newest + 1)) - self.unread
        assert {part for part in raised if not self.answers.get(part)} == set(), "every trigger is answered"


TestLaneAndPlc = LaneAndPlc.TestCase
TestLaneAndPlc.settings = settings(max_examples=1000, stateful_step_count=30, deadline=None)
