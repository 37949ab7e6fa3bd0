"""Every trigger gets exactly one answer, carrying the sequence that asked for it."""

import threading

from hypothesis import given, settings
from hypothesis import strategies as st

from inspector.lane import MISSED_AT_MOST, Lane
from inspector.plc.registers import PlcBlock


def lane(seen: int = 0) -> Lane:
    one = Lane(deadline_ms=100)
    assert one.watch_from(PlcBlock(sequence=seen), answered=(seen, 0), now_ns=0) == []
    return one


def test_a_change_of_the_sequence_asks_for_an_inspection():
    triggered = lane(seen=7).trigger(PlcBlock(sequence=8, part_id=4711), asked_ns=0)
    assert (triggered.fire.sequence, triggered.fire.part_id) == (8, 4711)
    assert triggered.overrun == ()


def test_the_same_sequence_asks_for_nothing():
    assert lane(seen=7).trigger(PlcBlock(sequence=7), asked_ns=0).fire is None


def test_a_trigger_while_busy_is_an_overrun_and_is_counted():
    one = lane()
    first = one.trigger(PlcBlock(sequence=1), asked_ns=0).fire
    second = one.trigger(PlcBlock(sequence=2, part_id=9), asked_ns=1)
    assert second.fire is None
    assert [(r.sequence, r.part_id) for r in second.overrun] == [(2, 9)]
    assert one.overruns == 1
    assert one.claim(first)
    assert one.trigger(PlcBlock(sequence=3), asked_ns=2).fire.sequence == 3


def test_a_picture_taken_when_the_next_part_may_have_come_is_not_of_the_part_in_work():
    one = lane()
    first = one.trigger(PlcBlock(sequence=1), asked_ns=10).fire
    assert not one.overtaken(first, taken_ns=10**9)
    one.trigger(PlcBlock(sequence=2), asked_ns=50)
    one.trigger(PlcBlock(sequence=3), asked_ns=90)
    assert not one.overtaken(first, taken_ns=49)
    assert one.overtaken(first, taken_ns=50), "the first of them counts"
    assert one.claim(first)
    fourth = one.trigger(PlcBlock(sequence=4), asked_ns=120).fire
    assert not one.overtaken(fourth, taken_ns=130)


def test_triggers_overtaken_between_two_polls_are_answered_too():
    triggered = lane(seen=65534).trigger(PlcBlock(sequence=1), asked_ns=0)
    assert [r.sequence for r in triggered.overrun] == [65535, 0]
    assert triggered.fire.sequence == 1


def test_a_sequence_that_goes_back_is_a_restarted_plc_not_65000_missed_parts():
    triggered = lane(seen=500).trigger(PlcBlock(sequence=1), asked_ns=0)
    assert triggered.restarted
    assert triggered.fire.sequence == 1
    assert triggered.overrun == ()


def test_what_was_in_flight_during_a_restart_is_returned_once():
    one = Lane(deadline_ms=100)
    block = PlcBlock(sequence=12, part_id=3)
    (in_flight,) = one.watch_from(block, answered=(11, 2), now_ns=0)
    assert (in_flight.sequence, in_flight.part_id) == (12, 3)
    assert one.trigger(block, asked_ns=1).fire is None


def test_what_was_asked_while_no_inspector_ran_is_returned_in_its_order():
    block = PlcBlock(sequence=1, part_id=9)
    found = Lane(deadline_ms=100).watch_from(block, answered=(65534, 6), now_ns=0, gap=True)
    assert [(one.sequence, one.part_id) for one in found] == [(65535, 0), (0, 0), (1, 9)]
    assert len(Lane(deadline_ms=100).watch_from(block, answered=(65534, 6), now_ns=0)) == 1, (
        "the PLC was away"
    )
    far = Lane(deadline_ms=100).watch_from(block, answered=(9000, 6), now_ns=0, gap=True)
    assert [one.sequence for one in far] == [1], "the PLC counts anew"


def test_the_same_sequence_with_another_part_is_another_trigger():
    block = PlcBlock(sequence=3, part_id=7)
    (one,) = Lane(deadline_ms=100).watch_from(block, answered=(3, 3), now_ns=0, gap=True)
    assert (one.sequence, one.part_id) == (3, 7)
    assert Lane(deadline_ms=100).watch_from(block, answered=(3, 3), now_ns=0) == [], "of a part to come"
    assert (
        Lane(deadline_ms=100).watch_from(block, answered=(3, 3), now_ns=0, waiting={(3, 7)}, gap=True) == []
    )


def test_a_plc_that_has_lost_its_memory_asks_for_nothing():
    one = lane(seen=7000)
    work = one.trigger(PlcBlock(sequence=7001, part_id=1), asked_ns=0).fire
    found = one.trigger(PlcBlock(), asked_ns=1)
    assert (found.fire, found.overrun, found.restarted, found.dropped) == (None, (), True, (work,))
    assert one.trigger(PlcBlock(sequence=1, part_id=1), asked_ns=2).fire.sequence == 1


def test_zeros_just_before_the_wrap_are_a_trigger_unless_the_memory_is_known_to_be_lost():
    for anew in (False, True):
        one = lane(seen=65_500)
        assert one.zeroed(PlcBlock())
        assert not one.zeroed(PlcBlock(part_id=1))
        found = one.trigger(PlcBlock(), asked_ns=0, anew=anew)
        assert (found.restarted, len(found.overrun)) == ((True, 0) if anew else (False, 35))
        assert not one.zeroed(PlcBlock())


def test_own_numbers_go_on_after_a_restart_and_never_use_zero():
    one = Lane(deadline_ms=100)
    one.resume(65534)
    assert [one.own(0).sequence for _ in range(3)] == [65535, 1, 2]


def test_own_numbers_never_go_back_to_what_the_plc_still_holds():
    one = Lane(deadline_ms=100)
    one.resume(4)  # from the log
    one.resume(3)  # from registers that missed the last write
    assert one.own(0).sequence == 5


def test_a_trigger_counts_from_the_last_time_that_the_plc_was_read():
    request = lane().trigger(PlcBlock(sequence=1), asked_ns=5).fire
    assert request.deadline_ns == 5 + 100_000_000


def test_only_one_of_many_threads_may_answer():
    one = Lane(deadline_ms=100)
    request = one.own(0)
    start, wins = threading.Barrier(8), []

    def try_to_claim():
        start.wait()
        wins.append(one.claim(request))

    threads = [threading.Thread(target=try_to_claim) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wins.count(True) == 1


def test_the_deadline_takes_the_right_to_answer_from_the_score():
    one = Lane(deadline_ms=100)
    request = one.own(now_ns=0)
    assert one.claim_expired(now_ns=99_999_999) == []
    assert one.claim_expired(now_ns=100_000_000) == [request]
    assert not one.claim(request)


@settings(max_examples=1000, deadline=None)
@given(
    start=st.integers(0, 0xFFFF),
    steps=st.lists(st.tuples(st.integers(0, MISSED_AT_MOST), st.booleans()), max_size=60),
)
def test_every_sequence_of_a_well_behaved_plc_is_answered_exactly_once(start, steps):
    """Whatever the polls miss and however slow the model is."""
    one, answered, sequence, working = lane(seen=start), [], start, None
    for advance, finish in steps:
        sequence += advance
        triggered = one.trigger(PlcBlock(sequence=sequence & 0xFFFF), asked_ns=0)
        answered += [request.sequence for request in triggered.overrun]
        working = triggered.fire or working
        if finish and working is not None and one.claim(working):
            answered.append(working.sequence)
    answered += [request.sequence for request in one.claim_all()]
    assert sorted(answered) == sorted(s & 0xFFFF for s in range(start + 1, sequence + 1))
