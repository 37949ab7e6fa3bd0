"""Which heartbeat is due, and how long one stood still."""

from inspector.beats import WINDOW_S, Beats


def test_the_oldest_of_those_that_may_beat_is_due():
    beats = Beats(["a", "b", "c"])
    assert beats.due(0.0, 0.2, []) is None
    assert beats.due(0.0, 0.2, ["b", "c"]) == "b", "one that has never beaten is due"
    for name, when in (("a", 1.0), ("b", 1.1), ("c", 1.3)):
        beats.beaten(name, when)
    assert beats.due(1.15, 0.2, ["a", "b", "c"]) is None
    assert beats.due(1.35, 0.2, ["a", "b", "c"]) == "a"
    assert beats.due(1.35, 0.2, ["b", "c"]) == "b"


def test_the_longest_pause_is_kept_for_a_while_and_a_new_connection_is_none():
    beats = Beats(["a"])
    for when in (0.0, 0.2, 1.4, 1.6):
        beats.beaten("a", when)
    assert round(beats.longest_s("a"), 3) == 1.2
    beats.forget()
    beats.beaten("a", 30.0)
    assert round(beats.longest_s("a"), 3) == 1.2, "an outage is no pause of ours"
    when = 30.0
    while when < 3 * WINDOW_S:
        when += 0.2
        beats.beaten("a", when)
    assert round(beats.longest_s("a"), 3) == 0.2, "it was long ago"
