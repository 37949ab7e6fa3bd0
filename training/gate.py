"""Whether a candidate may take the place of the active bundle: not worse, and not in doubt beyond a margin.

Both score the same golden set, part by part in turn. Differences carry a 95 % interval (paired bootstrap over
the parts). The difference itself may speak against the candidate by a tenth of a margin, no more, or small
losses would add up night by night; and the end of the interval that speaks against it must stay within the
margin: what could as well be worse is not promoted. Where neither tells defects from normal parts, neither is
worse: a candidate must do better than chance for sure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from inspector.model.records import Threshold
from training.metrics import bootstrap, image_auroc, paired_bootstrap

MEASURED = 0.1  # share of a margin that the measured difference may take
SLOWER = 1.25  # median time of a part may grow by this factor
PASSED, GOLDEN = "passed", "golden"  # kinds of normal parts: by the model's word alone; an integrator's
CONFIDENCE = 0.95
CHANCE = 0.5  # image AUROC of a guess


@dataclass(frozen=True)
class Margins:
    """How much worse a candidate may be, in shares: image AUROC, synthetic defects that it lets pass, and
    normal parts that it would reject. Some that passed are escapes, and rightly rejected.
    """

    auroc: float = 0.02
    escapes: float = 0.05
    rejects: float = 0.05


@dataclass(frozen=True)
class Shown:
    """One part of the golden set as both saw it.

    kind: where a normal part is from, PASSED and GOLDEN among others; "labelled", GOLDEN or a kind of
    synthetic defect otherwise.
    known: a real defect, as somebody has said. milliseconds: of active and candidate.
    """

    name: str
    defective: bool
    known: bool
    kind: str
    active: float
    candidate: float
    milliseconds: tuple[float, float]


@dataclass(frozen=True)
class Check:
    """One line of the gate's table."""

    name: str
    active: str
    candidate: str
    allowed: str
    passed: bool
    reason: str = ""  # why not


@dataclass(frozen=True)
class Outcome:
    """What the gate says."""

    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether the candidate may be promoted."""
        return all(check.passed for check in self.checks)

    @property
    def reasons(self) -> list[str]:
        """Why not."""
        return [check.reason for check in self.checks if not check.passed]

    def to_json(self) -> dict[str, Any]:
        """The table, and a line for listings."""
        auroc = self.checks[0]
        summary = f"AUROC {auroc.candidate} (before {auroc.active})"
        summary = summary if self.passed else f"refused: {'; '.join(self.reasons)}"
        return {
            "passed": self.passed,
            "summary": summary,
            "reasons": self.reasons,
            "checks": [asdict(check) for check in self.checks],
        }


def judge(parts: Sequence[Shown], active: Threshold, candidate: Threshold, margins: Margins) -> Outcome:
    """Hold the candidate against the active bundle. parts: normal and defective ones, in any order."""
    labels = np.array([part.defective for part in parts])
    ours = np.array([part.candidate for part in parts])
    theirs = np.array([part.active for part in parts])
    let_pass = ours <= candidate.value, theirs <= active.value
    seen = np.array([part.kind in {PASSED, GOLDEN} for part in parts]) & ~labels
    painted = np.array([part.defective and not part.known for part in parts])
    known = np.array([part.known for part in parts])
    return Outcome(
        (
            _auroc(labels, ours, theirs, margins.auroc),
            _escapes(painted, *let_pass, margins.escapes),
            _known(known, *let_pass, [part.name for part in parts]),
            _false_rejects(active, candidate),
            _rejected(seen, *let_pass, margins.rejects),
            _latency(parts),
            _chance(labels, ours),
        )
    )


def disagreements(parts: Sequence[Shown], active: Threshold, candidate: Threshold) -> list[Shown]:
    """Parts that one would pass and the other reject, real ones first, then the clearest."""
    split = [p for p in parts if (p.active > active.value) != (p.candidate > candidate.value)]

    def clearness(part: Shown) -> tuple[bool, float]:
        apart = abs(part.active - active.value) / (abs(active.value) or 1)
        return part.defective and not part.known, -apart

    return sorted(split, key=clearness)


def _auroc(
    labels: NDArray[np.bool_], ours: NDArray[np.float64], theirs: NDArray[np.float64], margin: float
) -> Check:
    difference, interval = paired_bootstrap(image_auroc, labels, ours, theirs)
    told = f"{difference:+.4f} (95 % interval {interval.low:+.4f} to {interval.high:+.4f})"
    return Check(
        "image AUROC",
        f"{image_auroc(labels, theirs):.4f}",
        f"{image_auroc(labels, ours):.4f}",
        f"{-MEASURED * margin:+.4f}, {-margin:+.3f} at worst: {told}",
        difference >= -MEASURED * margin and interval.low >= -margin,
        f"image AUROC is lower than before, or may be by more than {margin:g}: {told}",
    )


def _chance(labels: NDArray[np.bool_], ours: NDArray[np.float64]) -> Check:
    """Two that guess are alike, whatever each of them would do on real defects."""
    reached, interval = image_auroc(labels, ours), bootstrap(image_auroc, labels, ours)
    told = f"{reached:.4f} (95 % interval {interval.low:.4f} to {interval.high:.4f})"
    return Check(
        "image AUROC, against chance",
        "–",
        f"{reached:.4f}",
        f"above 0.5 for sure: {told}",
        interval.low > CHANCE,
        "the candidate does not for sure tell defects of the golden set from normal parts, its image AUROC "
        f"is {told}: train longer or with another method, or put known defects into the golden folder",
    )


def _escapes(
    painted: NDArray[np.bool_],
    ours: NDArray[np.bool_],
    theirs: NDArray[np.bool_],
    margin: float,
) -> Check:
    """Synthetic defects that would pass at the threshold."""

    def share(defective: NDArray[np.bool_], passed: NDArray[np.float64]) -> float:
        return float(passed[defective].mean())

    difference, interval = _paired(share, painted, ours, theirs)
    told = f"{difference:+.1%} (95 % interval {interval[0]:+.1%} to {interval[1]:+.1%})"
    return Check(
        "synthetic defects that pass",
        f"{share(painted, theirs.astype(float)):.1%}",
        f"{share(painted, ours.astype(float)):.1%}",
        f"{MEASURED * margin:+.1%}, {margin:+.1%} at worst: {told}",
        difference <= MEASURED * margin and interval[1] <= margin,
        f"more of the synthetic defects pass, or more than {margin:.1%} more may: {told}",
    )


def _paired(
    statistic: Callable[[NDArray[np.bool_], NDArray[np.float64]], float],
    labels: NDArray[np.bool_],
    ours: NDArray[np.bool_],
    theirs: NDArray[np.bool_],
) -> tuple[float, tuple[float, float]]:
    difference, interval = paired_bootstrap(statistic, labels, ours.astype(float), theirs.astype(float))
    return difference, (interval.low, interval.high)


def _known(
    known: NDArray[np.bool_], ours: NDArray[np.bool_], theirs: NDArray[np.bool_], names: Sequence[str]
) -> Check:
    """Defects that people have found: not one that is rejected now may pass."""
    lost = [name for name, is_one, a, b in zip(names, known, ours, theirs, strict=True) if is_one and a > b]
    total = int(known.sum())
    return Check(
        "known defects that pass",
        f"{int(theirs[known].sum())} of {total}",
        f"{int(ours[known].sum())} of {total}",
        "none that is rejected now",
        not lost,
        f"{len(lost)} known defects that are rejected now would pass: {', '.join(lost[:5])}",
    )


def _false_rejects(active: Threshold, candidate: Threshold) -> Check:
    bound = max(candidate.target_rate, active.proven_rate)
    return Check(
        "false rejects, proven",
        f"≤ {active.proven_rate:.2%} from {active.n} parts",
        f"≤ {candidate.proven_rate:.2%} from {candidate.n} parts",
        f"≤ {bound:.2%} at {candidate.confidence:.0%}",
        candidate.proven_rate <= bound,
        f"{candidate.n} normal parts kept apart prove a false-reject rate of {candidate.proven_rate:.2%}, "
        f"{bound:.2%} is needed",
    )


def _rejected(
    normal: NDArray[np.bool_], ours: NDArray[np.bool_], theirs: NDArray[np.bool_], margin: float
) -> Check:
    """Parts that passed or are an integrator's: rejects of which a share above the margin is proven."""
    count, rejected = int(normal.sum()), int((normal & ~ours).sum())
    proven = rejected > 0 and float(binom.sf(rejected - 1, count, margin)) < 1 - CONFIDENCE
    return Check(
        "normal parts, rejected",
        f"{int((normal & ~theirs).sum())} of {count}",
        f"{rejected} of {count}",
        f"not above {margin:.1%} at {CONFIDENCE:.0%}",
        not proven,
        f"{rejected} of {count} parts that passed, or are normal parts of the golden folder, would be "
        f"rejected, above {margin:.1%} for sure; if they are normal, calibrate on today's parts",
    )


def _latency(parts: Sequence[Shown]) -> Check:
    before, after = (float(np.median([part.milliseconds[k] for part in parts])) for k in (0, 1))
    return Check(
        "time of a part, median",
        f"{before:.1f} ms",
        f"{after:.1f} ms",
        f"{SLOWER:g} × at most",
        after <= SLOWER * before,
        f"a part takes {after:.1f} ms, {before:.1f} before; {SLOWER:g} × is allowed",
    )
