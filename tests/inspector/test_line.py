"""The line loop lets a verdict by that is being given, and never stops for long."""

from threading import Lock
from types import SimpleNamespace
from unittest.mock import Mock

from inspector.line import GIVE_WAY_S, LineLoop
from inspector.settings import Plc


class Turns:
    """Stands for the event that ends the loop: notes how long each round waited, and ends after some."""

    def __init__(self, rounds):
        self.rounds, self.waited = rounds, []

    def wait(self, seconds):
        self.waited.append(seconds)
        return len(self.waited) > self.rounds


def rounds(channel, count, poll_ms):
    """How long each round waited, and how many talked to the PLC."""
    line = LineLoop(Mock(), Plc(poll_ms=poll_ms), [channel], *(Mock() for _ in range(6)))
    line._stop_asked, line._talk = Turns(count), Mock()
    line.run()
    return line._stop_asked.waited, line._talk.call_count


def test_a_verdict_that_is_being_given_has_the_connection_for_a_moment_and_no_longer_though_it_hangs():
    channel = SimpleNamespace(
        name="cam", lock=Lock(), lane=SimpleNamespace(claim_expired=Mock(return_value=[]))
    )
    assert rounds(channel, 4, 100) == ([0.1] * 5, 4)
    with channel.lock:
        assert rounds(channel, 4, 100) == ([0.1, GIVE_WAY_S, 0.1, GIVE_WAY_S, 0.1], 2)
        assert rounds(channel, 4, 1) == ([0.001] * 5, 2)
    assert channel.lane.claim_expired.call_count == 12, "deadlines are kept in every round"
