"""The ledger: the recorder's history against the log, after the fact.

A violation is

- *pass without inspection*: a PASS on the wire, whole block or used by the PLC's program, without a row that
  names the same sequence and part, has verdict 1, a score not above its threshold, a bundle and a frame, and
  whose score is that of a normal part (the campaign's pictures say so in their names);
- *wrong frame*: a PASS or REJECT whose score, in the row or on the wire, is of no picture that lay before the
  camera between its trigger and its arrival: each picture has a score of its own;
- *coil leads*: the pass coil is set while the registers hold no PASS, or stands beside a beating heart and
  another verdict;
- *verdict without row*: a verdict whose row was not in the log when its write arrived; in the phases in which
  the log cannot be written a FAULT goes out first and its row follows, but it must be there in the end;
- *unanswered*: a trigger that the PLC raised and that no write of its sequence and part id answers;
- *unasked*: a verdict for a part or sequence that the PLC did not ask for;
- *contradicted*: a PASS or REJECT after another verdict for the same trigger, or anything after them while
  the server is honest;
- *overwritten*: a verdict that the PLC waited for was taken out of the registers before its cycle saw it;
- *late*: a PASS or REJECT that arrives later after its trigger than deadline, timeout and SLACK_MS together;
- *stale*: a heartbeat beside a verdict from before, after the daemon has come back, or after the server has
  and the verdict's time (as for *late*) is over; a younger one may be confirmed by reading it back; or a
  heartbeat beside a PASS or REJECT for a part that the PLC had asked for before it lost its memory, later
  than timeout and SLACK_MS after that;
- *not recovered*: no PASS or REJECT within RECOVERED_S of the end of a cause;
- *died*: a daemon that ends unasked, whatever its exit status, or not with 0 when it is told to.

Where the camera is the trigger (the GenICam station) nobody asks: there a row whose verdict never reached the
wire is *unanswered*, and a sequence that does not follow the one before is *unasked*.

What cannot be helped, and is no violation:

- a trigger that the PLC itself forgets (a restart without retentive memory): it is counted as *withdrawn*;
- a trigger overtaken by the next before anybody could read it is answered with its sequence and part id 0,
  for nobody knows its part id;
- a verdict that the next one overwrites before the PLC's cycle of 5 ms has seen it, where the PLC triggered
  while a part was in work: it is on the wire, and counted as *overlooked*; to the PLC the part is a reject;
- a verdict written again, the same as before, where its first arrival was not confirmed;
- a FAULT after a PASS or REJECT whose arrival a dishonest or absent server kept to itself, or that arrived
  within a timeout before it became so (*taken back*): the inspector must take it for undelivered. The PLC's
  program uses the first that it sees;
- FAULT where a machine under load is late, and while a cause lasts.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable
from operator import itemgetter

from tests.campaign.figures import FAULT, PASS, REJECT, Figures, Row, Trigger, Verdict
from tests.campaign.history import Event
from tests.campaign.program import COILS, NORMAL
from tests.campaign.server import BLOCK, PART, SCORE, SEQUENCE, VERDICT

SLACK_MS = 100  # from the kernel to the thread that takes the time of an arrival, on a busy machine
SAME = 1e-4  # of two scores of one picture
RECOVERED_S = 60.0


def judge(
    events: list[Event],
    logged: Iterable[Row],
    deadline_ms: int,
    timeout_ms: int,
    scores: dict[str, float],
) -> Verdict:
    """Of a station that the PLC triggers. events: the recorder's and the campaign's, in order of time.

    scores: of the pictures, by name.
    """
    return _Ledger(events, logged, deadline_ms + timeout_ms + SLACK_MS, timeout_ms, scores).close()


def judge_free(events: list[Event], logged: Iterable[Row]) -> Verdict:
    """Of a station whose camera is the trigger, and whose every frame is a normal part."""
    return _FreeLedger(events, logged, 0, 0, {}).close()


def _same(one: float, other: float) -> bool:
    return abs(one - other) <= SAME * max(abs(one), abs(other))


class _Ledger:
    """One pass over the history."""

    def __init__(
        self,
        events: list[Event],
        logged: Iterable[Row],
        late_ms: int,
        timeout_ms: int,
        scores: dict[str, float],
    ) -> None:
        self._late_ns = late_ms * 1_000_000
        self._doubt_ns = timeout_ms * 1_000_000
        self._scores = scores
        self._scenes: list[tuple[int, str]] = []  # since when which picture lay before the camera
        self._log_fails = False  # in this phase
        self._held_received = 0
        self._pass_coil = False
        self._disturbed = False  # a coil may have gone astray since the server was honest
        self._rows: dict[tuple[int, int, int], list[Row]] = defaultdict(list)
        for row in logged:
            self._rows[row.sequence, row.part, row.verdict].append(row)
        self._by_part: dict[int, Trigger] = {}
        self._by_sequence: dict[int, Trigger] = {}
        self._triggers: list[Trigger] = []
        self._answered: set[tuple[int, int, int]] = set()
        self._figures: defaultdict[str, Figures] = defaultdict(Figures)
        self._found: list[str] = []
        self._phase = "start"
        self._honest = True
        self._held = 0  # the verdict in the registers
        self._held_ns = 0  # when it came …
        self._held_asked = 0  # … and when the PLC asked for it
        self._forgot = 0  # when the PLC lost its memory
        self._restarted = False  # the daemon, not only the server
        self._ends = {0: False, -9: False}  # exit statuses, and whether the campaign is the cause of one
        self._taken_up = True  # whether a whole block has come since daemon and server are there
        self._waits: tuple[str, int, int] | None = None  # fault, end of its cause, what counts as recovery
        for event in events:
            handle = getattr(self, "_on_" + event["is"], None)
            if handle is not None:
                handle(event)

    def close(self) -> Verdict:
        for trigger in self._triggers:
            if trigger.withdrawn:
                self._figures[trigger.phase].withdrawn += 1
            elif not trigger.answers and trigger.part:
                self._accuse("unanswered", trigger.t, f"sequence {trigger.sequence}", trigger.phase)
        return Verdict(dict(self._figures), self._found)

    def _accuse(self, kind: str, t: int, what: str, phase: str | None = None) -> None:
        phase = phase or self._phase
        self._figures[phase].violations[kind] += 1
        self._found.append(f"{kind}: {what} ({phase}, at {t / 1e9:.3f} s)")

    # --- the campaign's marks ---------------------------------------------------------------------

    def _on_phase(self, event: Event) -> None:
        self._phase = event["name"]
        self._log_fails = event.get("log_fails", False)

    def _on_fault(self, event: Event) -> None:
        self._figures[self._phase].times += 1
        self._ends[-9] = event.get("kills", False)
        self._waits = None

    def _on_undone(self, event: Event) -> None:
        self._figures[self._phase].times -= 1  # there was nothing to do it to

    def _on_stopping(self, event: Event) -> None:
        self._ends = {0: True, -9: False}

    def _on_over(self, event: Event) -> None:
        self._waits = (self._phase, event["t"], event["seen"])

    def _on_not_recovered(self, event: Event) -> None:
        self._accuse("not recovered", event["t"], f"no verdict within {RECOVERED_S:g} s")

    def _on_started(self, event: Event) -> None:
        self._taken_up, self._restarted = False, True

    def _on_ended(self, event: Event) -> None:
        if not self._ends.get(event["status"], False):
            self._accuse("died", event["t"], f"the daemon ended with {event['status']}")

    # --- the PLC ----------------------------------------------------------------------------------

    def _on_mode(self, event: Event) -> None:
        self._honest = not event["name"]
        self._disturb(event["t"])

    def _on_server(self, event: Event) -> None:
        self._honest = event["on"]
        self._taken_up = False
        self._disturb(event["t"])

    def _disturb(self, t: int) -> None:
        """What arrived just now may not have been confirmed, and its coils may not have followed."""
        self._disturbed = True
        for trigger in self._triggers[-10:]:
            trigger.answers = [
                (received, verdict, honest and received < t - self._doubt_ns)
                for received, verdict, honest in trigger.answers
            ]

    def _on_forget(self, event: Event) -> None:
        for trigger in self._triggers[-100:]:
            trigger.withdrawn |= not trigger.answers
        self._held, self._forgot = 0, event["t"]
        self._pass_coil = False
        # the trigger register changes to 0: that may be answered, but nobody waits for it
        self._ask(Trigger(event["t"], 0, 0, self._phase))

    def _on_scene(self, event: Event) -> None:
        self._scenes.append((event["t"], event["shows"]))

    def _on_trigger(self, event: Event) -> None:
        self._ask(Trigger(event["t"], event["sequence"], event["part"], self._phase))
        self._figures[self._phase].triggered += 1

    def _ask(self, trigger: Trigger) -> None:
        self._triggers.append(trigger)
        self._by_part[trigger.part] = trigger
        self._by_sequence[trigger.sequence] = trigger

    def _on_gave_up(self, event: Event) -> None:
        if not self._by_part[event["part"]].answers:
            return  # unanswered, and found so in the end
        if event["hurried"]:
            self._figures[self._phase].overlooked += 1
        else:
            self._accuse("overwritten", event["t"], f"sequence {event['sequence']}")

    def _on_used(self, event: Event) -> None:
        if event["good"] and not self._inspected(event["sequence"], event["part"]):
            self._accuse("pass without inspection", event["t"], f"used for part {event['part']}")

    # --- the wire ---------------------------------------------------------------------------------

    def _on_write(self, event: Event) -> None:
        values = event["values"]
        if len(values) != BLOCK:
            old = self._restarted or event["t"] - self._held_ns > self._late_ns
            forgotten = self._held_asked < self._forgot < event["t"] - self._doubt_ns - SLACK_MS * 1_000_000
            if self._held and ((old and not self._taken_up) or (forgotten and self._held != FAULT)):
                self._accuse("stale", event["t"], f"verdict {self._held}")
            if self._pass_coil and self._held != PASS and self._honest and not self._disturbed:
                self._accuse("coil leads", event["t"], f"it is still set beside verdict {self._held}")
            return
        self._held, self._held_ns = values[VERDICT], event["t"]
        self._held_received = max(self._held_received, event["received"])
        self._taken_up, self._restarted = True, False
        if not self._held:
            return
        part = (values[PART] << 16) + values[PART + 1]
        trigger = self._by_part.get(part) if part else self._by_sequence.get(values[SEQUENCE])
        self._held_asked = trigger.t if trigger else event["t"]
        self._count(values[VERDICT])
        self._check_row(event, values[SEQUENCE], part, values[VERDICT])
        self._check_frame(trigger, event, values)
        self._match(trigger, event, values[SEQUENCE], part, values[VERDICT])

    def _on_coils(self, event: Event) -> None:
        set_ = dict(enumerate(event["values"], event["address"])).get(COILS[0])
        if set_ is None or event["received"] < self._held_received:  # executed after what came later
            return
        self._pass_coil = bool(set_)
        self._disturbed &= not self._honest
        if set_ and self._held != PASS:
            self._accuse("coil leads", event["t"], f"it is set beside verdict {self._held}")

    def _check_frame(self, trigger: Trigger | None, event: Event, values: list[int]) -> None:
        if values[VERDICT] == FAULT or trigger is None:
            return
        wire = struct.unpack(">f", struct.pack(">2H", *values[SCORE : SCORE + 2]))[0]
        rows = self._rows.get((trigger.sequence, trigger.part, values[VERDICT]), ())
        first = bisect_right(self._scenes, trigger.t, key=itemgetter(0)) - 1
        shown = {name for t, name in self._scenes[max(first, 0) :] if t <= event["t"]}
        for score in (wire, *(row.score for row in rows)):
            if not any(_same(score, self._scores[name]) for name in shown):
                what = f"score {score} for part {trigger.part} is of none of {', '.join(sorted(shown))}"
                self._accuse("wrong frame", event["t"], what)
                return
        if values[VERDICT] == PASS and not any(name.startswith(NORMAL) for name in shown):
            self._accuse("pass without inspection", event["t"], f"part {trigger.part} shows {sorted(shown)}")

    def _match(self, trigger: Trigger | None, event: Event, sequence: int, part: int, verdict: int) -> None:
        if trigger is None or trigger.sequence != sequence:
            self._accuse("unasked", event["t"], f"sequence {sequence}, part {part}")
            return
        self._answer(trigger, event, verdict)

    def _count(self, verdict: int) -> None:
        figures = self._figures[self._phase]
        figures.verdicts += 1
        figures.passes += verdict == PASS
        figures.rejects += verdict == REJECT
        figures.faults += verdict == FAULT

    def _check_row(self, event: Event, sequence: int, part: int, verdict: int) -> None:
        name = f"verdict {verdict} for sequence {sequence}, part {part}"
        if verdict == PASS and not self._inspected(sequence, part):
            self._accuse("pass without inspection", event["t"], name)
        if not self._rows.get((sequence, part, verdict)):
            self._accuse("verdict without row", event["t"], f"{name}: no row in the log")
        elif event["row"] is None and not (verdict == FAULT and self._log_fails):
            self._accuse("verdict without row", event["t"], f"{name}: its row came after it")

    def _inspected(self, sequence: int, part: int) -> bool:
        return any(row.inspected() for row in self._rows.get((sequence, part, PASS), ()))

    def _recovered(self, received: int) -> None:
        if self._waits is not None and received > self._waits[2]:
            phase, since, _ = self._waits
            self._figures[phase].recovery_s.append((received - since) / 1e9)
            self._waits = None

    def _answer(self, trigger: Trigger, event: Event, verdict: int) -> None:
        received, name = event["received"], f"verdict {verdict} for sequence {trigger.sequence}"
        before = [answer for answer in trigger.answers if answer[0] <= received]
        trigger.answers.append((received, verdict, self._honest))
        if verdict != FAULT:
            self._recovered(received)
            if received - trigger.t > self._late_ns and (FAULT not in {a[1] for a in before}):
                late = f"{name} {(received - trigger.t) / 1e6:.0f} ms after its trigger"
                if not any(a[1] == verdict for a in before):  # a repetition is as old as the first
                    self._accuse("late", event["t"], late)
        if not before:
            return
        last = before[-1]
        figures = self._figures[self._phase]
        if last[1] == verdict:
            figures.repeated += 1
        elif verdict == FAULT and not last[2]:
            figures.taken_back += 1
        else:
            self._accuse("contradicted", event["t"], f"{name} after {last[1]}")


class _FreeLedger(_Ledger):
    """The inspector numbers the parts: 1 … 65535, 1 …"""

    _last: int | None = None
    _said = 0  # its verdict

    def _match(self, trigger: Trigger | None, event: Event, sequence: int, part: int, verdict: int) -> None:
        figures = self._figures[self._phase]
        if sequence == self._last:
            figures.repeated += 1
            if verdict != self._said:
                self._accuse(
                    "contradicted", event["t"], f"verdict {verdict} for {sequence} after {self._said}"
                )
        else:
            figures.triggered += 1
            if self._last is not None and sequence != self._last % 0xFFFF + 1:
                self._accuse("unasked", event["t"], f"sequence {sequence} after {self._last}")
        self._last, self._said = sequence, verdict
        self._answered.add((sequence, part, verdict))
        if verdict != FAULT:
            self._recovered(event["received"])

    def close(self) -> Verdict:
        for sequence, _, verdict in set(self._rows) - self._answered:
            self._accuse("unanswered", 0, f"verdict {verdict} for sequence {sequence} is in the log alone")
        return super().close()
