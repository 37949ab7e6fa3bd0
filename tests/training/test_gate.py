from dataclasses import replace

import numpy as np
import pytest

from inspector.model.records import Threshold
from training.gate import GOLDEN, PASSED, Margins, Outcome, Shown, disagreements, judge

ACTIVE = Threshold(
    value=1.0,
    target_rate=0.005,
    confidence=0.95,
    proven_rate=0.005,
    n=600,
    rank=600,
    method="order-statistic",
    device="cpu",
    precision="float32",
    created="2026-01-01T00:00:00+00:00",
    scores_sha256="0" * 64,
    source="test",
)
MARGINS = Margins(auroc=0.02, escapes=0.05)


def parts(lift: float = 2.0, change: float = 0.0, slower: float = 1.0, known: int = 0) -> list[Shown]:
    """300 normals and 200 synthetic defects that lie `lift` higher; the candidate's lie lower by `change`."""
    rng = np.random.default_rng(0)
    found = []
    for k in range(500 + known):
        bad = k >= 300
        before = float(rng.normal(0, 0.3) + (lift if bad else 0))
        after = before + float(rng.normal(0, 0.05)) - (change if bad else 0)
        real = k >= 500
        found.append(Shown(str(k), bad, real, "apart", before, after, (10.0, 10.0 * slower)))
    return found


def gate(shown: list[Shown], **changes: float) -> Outcome:
    return judge(shown, ACTIVE, replace(ACTIVE, **changes), MARGINS)


def refused(outcome: Outcome) -> list[str]:
    return [check.name for check in outcome.checks if not check.passed]


def test_a_candidate_as_good_as_the_active_bundle_passes() -> None:
    outcome = gate(parts())
    assert outcome.passed
    assert outcome.reasons == []
    assert outcome.to_json()["passed"]


def test_a_candidate_that_ranks_worse_is_refused_with_the_difference() -> None:
    outcome = gate(parts(change=1.8))
    assert "image AUROC" in refused(outcome)
    assert "image AUROC is lower than before" in outcome.reasons[0]
    assert outcome.to_json()["summary"].startswith("refused: image AUROC")


def test_what_could_as_well_be_worse_is_refused_though_its_mean_is_within_the_margin() -> None:
    few = [p for k, p in enumerate(parts(lift=0.6)) if k % 20 == 0]
    chance = np.random.default_rng(1)
    better = [replace(p, candidate=p.active + chance.normal(1.5 if p.defective else 0, 1)) for p in few]
    check = gate(better).checks[0]
    assert float(check.candidate) > float(check.active) - MARGINS.auroc
    assert not check.passed


def test_a_small_loss_within_the_margin_is_refused_for_it_would_add_up() -> None:
    shown = parts(lift=1.0, change=0.1)
    outcome = gate(shown)
    assert -MARGINS.auroc < float(outcome.checks[0].candidate) - float(outcome.checks[0].active) < 0
    assert "image AUROC" in refused(outcome)


def test_a_threshold_that_lets_more_defects_pass_is_refused() -> None:
    assert refused(gate(parts(), value=2.0)) == ["synthetic defects that pass"]


def test_not_one_known_defect_that_is_rejected_may_pass() -> None:
    shown = parts(known=3)
    shown[-1] = replace(shown[-1], candidate=0.5)
    outcome = gate(shown)
    assert refused(outcome) == ["known defects that pass"]
    assert "502" in outcome.reasons[0]
    shown[-1] = replace(shown[-1], active=0.4)  # passes already: no worse
    assert gate(shown).passed


def test_too_few_parts_kept_apart_are_no_proof() -> None:
    outcome = gate(parts(), n=100, proven_rate=0.03)
    assert refused(outcome) == ["false rejects, proven"]
    assert "100 normal parts kept apart prove" in outcome.reasons[0]
    before, after = replace(ACTIVE, n=50, proven_rate=0.06), replace(ACTIVE, n=100, proven_rate=0.03)
    assert judge(parts(), before, after, MARGINS).passed, "it was weaker before"


@pytest.mark.parametrize("kind", [PASSED, GOLDEN])
def test_a_candidate_that_rejects_normal_parts_is_refused_only_if_that_is_proven(kind: str) -> None:
    shown = [replace(p, kind=kind) if k < 100 else p for k, p in enumerate(parts())]
    for rejected, passes in ((8, True), (10, False)):
        some = [replace(p, candidate=1.5) if k < rejected else p for k, p in enumerate(shown)]
        outcome = gate(some)
        assert outcome.passed == passes
    assert refused(outcome) == ["normal parts, rejected"]
    assert "10 of 100 parts that passed, or are" in outcome.reasons[0]


def test_two_that_guess_are_not_as_good_as_each_other() -> None:
    """Seen: both had an image AUROC of 0.55 on synthetic defects; on real ones it went from 0.95 to 0.67."""
    shown = [replace(p, candidate=p.active) for p in parts(lift=0.02)]
    outcome = gate(shown)
    assert refused(outcome) == ["image AUROC, against chance"]
    assert "does not for sure tell defects" in outcome.reasons[0]


@pytest.mark.parametrize(("slower", "passes"), [(1.2, True), (1.5, False)])
def test_a_slower_candidate_is_refused(slower: float, passes: bool) -> None:
    assert gate(parts(slower=slower)).passed == passes


def test_disagreements_show_real_parts_first() -> None:
    shown = [
        Shown("synthetic", True, False, "pasted", 9.0, 0.5, (1, 1)),
        Shown("normal", False, False, "apart", 0.9, 1.1, (1, 1)),
        Shown("known", True, True, "labelled", 1.5, 0.5, (1, 1)),
        Shown("agreed", True, False, "pasted", 9.0, 9.0, (1, 1)),
    ]
    assert [p.name for p in disagreements(shown, ACTIVE, ACTIVE)] == ["known", "normal", "synthetic"]
