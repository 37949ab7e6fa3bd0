"""The line loop lets a verdict by that is being given, and never stops for long."""

from threading import Lock
from types import SimpleNamespace
from unittest.mock import Mock

from inspector.line import LineLoop
from inspector.settings import Plc


def loop(channel):
    others = [Mock() for _ in range(6)]
    return LineLoop(Mock(), Plc(), [channel], *others)


def test_a_round_is_left_out_while_a_verdict_is_given_but_never_two_on_end():
    channel = SimpleNamespace(name="cam", lock=Lock())
    line = loop(channel)
    assert [line._gives_way() for _ in range(3)] == [False, False, False]
    with channel.lock:  # a commit that hangs
        assert [line._gives_way() for _ in range(4)] == [True, False, True, False]
    assert [line._gives_way() for _ in range(2)] == [False, False]
