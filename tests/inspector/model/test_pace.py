import numpy as np
import pytest

from inspector.model.pace import ANSWER_MS, SPARE, Pace, sizes

RGB, MONO = np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.uint8)
LONG = 1e6


def test_sizes_double_up_to_what_may_wait() -> None:
    assert [sizes(n) for n in (0, 1, 2, 3, 4, 9)] == [[1], [1], [1, 2], [1, 2], [1, 2, 4], [1, 2, 4, 8]]


@pytest.mark.parametrize(("waiting", "together"), [(1, 1), (2, 2), (3, 2), (4, 4), (7, 4)])
def test_as_many_go_together_as_wait_and_were_measured(waiting: int, together: int) -> None:
    assert Pace({1: [10.0], 2: [12.0], 4: [15.0]}).choose([RGB] * waiting, LONG) == together


def test_sizes_that_do_not_pay_are_left_out() -> None:
    assert Pace({1: [10.0], 2: [19.0], 4: [20.0]}).choose([RGB] * 4, LONG) == 1, "2 cost what two times 1 do"
    assert Pace({1: [10.0], 2: [12.0], 4: [23.0]}).choose([RGB] * 4, LONG) == 2
    assert Pace().choose([RGB] * 4, LONG) == 1, "nothing was measured"


def test_a_batch_that_could_make_the_most_urgent_part_late_is_not_made() -> None:
    pace = Pace({1: [10.0] * 9, 2: [11.0] * 8 + [15.0], 4: [13.0] * 8 + [30.0]})
    enough = SPARE * 30.0 + 4 * ANSWER_MS
    assert pace.choose([RGB] * 4, enough) == 4
    assert pace.choose([RGB] * 4, enough - 1) == 2
    assert pace.choose([RGB] * 4, SPARE * 15.0 + 2 * ANSWER_MS - 1) == 1
    assert pace.choose([RGB] * 4, -1.0) == 1


def test_only_pictures_of_one_kind_go_together() -> None:
    pace = Pace({1: [10.0], 2: [12.0], 4: [15.0]})
    assert pace.choose([RGB, RGB, MONO, MONO], LONG) == 2
    assert pace.choose([RGB, MONO, RGB, RGB], LONG) == 1
    assert pace.choose([RGB, RGB.astype(np.uint16)], LONG) == 1
    assert pace.choose([RGB.astype(np.uint16)] * 2, LONG) == 1, "no batches of these are made ready"


def test_the_time_to_make_each_picture_small_counts() -> None:
    pace = Pace({1: [10.0], 2: [12.0]})
    enough = SPARE * (12.0 + 2 * 50.0) + 2 * ANSWER_MS
    assert pace.choose([RGB] * 2, enough, 50.0) == 2
    assert pace.choose([RGB] * 2, enough - 1, 50.0) == 1


def test_a_batch_is_of_a_size_that_was_measured() -> None:
    pace = Pace({1: [10.0], 2: [12.0], 4: [15.0]})
    assert [pace.whole(n) for n in (1, 2, 3, 4, 5)] == [1, 2, 2, 4, 4]
