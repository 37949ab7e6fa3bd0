"""Only a finished inspection passes a part."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inspector.verdict import Decision, Reason, Verdict, combine, judge

anything = st.floats(allow_nan=True, allow_infinity=True)


@settings(max_examples=1000)
@given(anything, st.none() | anything)
def test_passes_only_a_finite_score_not_above_a_finite_threshold(score, threshold):
    decision = judge(score, threshold)
    finite = threshold is not None and math.isfinite(threshold) and math.isfinite(score)
    assert (decision.verdict is Verdict.PASS) == (finite and score <= threshold)
    assert (decision.verdict is Verdict.REJECT) == (finite and score > threshold)
    assert (decision.reason is None) == finite


def test_no_threshold_is_a_fault_with_its_reason():
    assert judge(0.1, None) == Decision.fault(Reason.UNCALIBRATED)


def test_nan_score_is_a_fault_with_its_reason():
    assert judge(math.nan, 1.0) == Decision.fault(Reason.NOT_FINITE)


def test_zero_is_no_verdict():
    assert 0 not in list(Verdict)


@pytest.mark.parametrize(
    ("verdicts", "together"), [((1, 1), 1), ((1, 2), 2), ((2, 3), 3), ((3, 1), 3), ((1,), 1)]
)
def test_several_cameras_pass_only_together(verdicts, together):
    assert combine([Decision(Verdict(v)) for v in verdicts]).verdict == together


def test_no_camera_at_all_passes_nothing():
    with pytest.raises(ValueError, match="no decision"):
        combine([])
