"""The charts of trainings and calibrations, drawn with matplotlib, the one thing here that needs it."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from math import log, nan
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from inspector.model.records import Threshold
from training import tail

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SLOTS = {  # key of the curve: what it is called
    "slots_read": "slots read by any token",
    "slots_first": "slots that match any token best",
    "empty_rows": "tokens that no slot expresses",
}
BLUE, RED, GREY = "#2b6ca3", "#c0392b", "#777777"


def available() -> bool:
    """Whether matplotlib can be imported."""
    try:
        import matplotlib.figure  # noqa: F401 - only to see that it is there
    except ImportError:
        return False
    return True


def curves(curve: Sequence[dict[str, float]], slots: int | None) -> bytes:
    """PNG of the losses and, with a memory of so many slots, of its use and addressing, over the epochs."""
    figure = _figure(3 if slots else 1)
    axes = list(figure.axes)
    of_memory = {*SLOTS, "entropy"}
    names = dict.fromkeys(key for e in curve for key in e)  # a training in stages has not always the same
    for name in [key for key in names if key not in of_memory]:
        style = {"loss": (BLUE, 2.0, "-"), "held_out": (RED, 2.0, "-")}.get(name, (None, 1.0, "--"))
        label = {"loss": "loss", "held_out": "loss of held-out parts"}.get(name, name)
        _line(axes[0], [e.get(name, nan) for e in curve], label, *style)
    axes[0].set_title("loss")
    if min(value for e in curve for key, value in e.items() if key not in of_memory) > 0:
        axes[0].set_yscale("log")
    if slots:
        for name, label in SLOTS.items():
            _line(axes[1], [100 * e.get(name, nan) for e in curve], label)
        axes[1].set_title(f"memory of {slots} slots, %")
        axes[1].set_ylim(-3, 103)
        _line(axes[2], [e.get("entropy", nan) for e in curve], "mean over tokens", BLUE, 2.0)
        axes[2].axhline(log(slots), color=GREY, linestyle=":", label=f"all slots alike: log {slots}")
        axes[2].set_ylim(0, 1.05 * log(slots))
        axes[2].set_title("entropy of the addressing, nats")
    for one in axes:
        one.locator_params(axis="x", integer=True)
        one.set_xlabel("epoch")
        one.legend(fontsize=8)
    return _png(figure)


def histogram(good: Sequence[float], bad: Sequence[float]) -> bytes:
    """PNG of the scores of held-out normal parts and of damaged ones."""
    figure = _figure(1, width=7.0)
    (axes,) = figure.axes
    low, high = min(*good, *bad), float(np.quantile([*good, *bad], 0.98))
    bins = np.linspace(low, max(high, *good), 26)
    clipped = np.minimum(bad, bins[-1])  # what lies beyond is counted in the last bin
    for scores, label, colour in ((good, "normal, held out", BLUE), (clipped, "synthetic defects", RED)):
        shares = np.full(len(scores), 100 / len(scores))
        axes.hist(scores, bins.tolist(), weights=shares, label=label, color=colour, alpha=0.6)
    axes.set_xlabel("score; the last bin holds all that is higher")
    axes.set_ylabel("% of parts")
    axes.legend(fontsize=8)
    return _png(figure)


def calibration(
    threshold: Threshold, scores: Sequence[float] | NDArray[np.float64], defects: Sequence[float] = ()
) -> bytes:
    """PNG of a calibration: the normal parts' scores, and their tail on a logarithmic axis, each with the
    threshold, its interval and the scores of known defects.
    """
    figure = _figure(2, height=5.0)
    whole, end = figure.axes
    ordered = np.sort(np.asarray(scores, np.float64))
    n, value = len(ordered), threshold.value
    reach = max(float(ordered[-1]), value)
    margin = 0.08 * (reach - float(ordered[0])) or 1.0
    right = reach + margin + (0.25 * (reach - float(ordered[0])) if len(defects) else 0.0)
    whole.hist(ordered, 40, color=BLUE, alpha=0.6, label=f"{n} normal parts")
    whole.set_ylabel("parts")
    start = float(np.quantile(ordered, 0.8))
    above = ordered[ordered > start]
    shares = 100 * (n - np.searchsorted(ordered, above, side="left")) / n
    end.plot(above, shares, "o", color=BLUE, markersize=4, label="normal parts, the highest fifth")
    if threshold.extrapolated:
        fitted = tail.fit(ordered, threshold.target_rate, threshold.confidence)
        line = np.linspace(fitted.start, value + margin, 200)
        end.plot(line, 100 * fitted.exceeded(line), "--", color=BLUE, label="fitted tail (extrapolated)")
    end.axhline(
        100 * threshold.target_rate, color=GREY, linestyle=":", label=f"asked: {threshold.target_rate:.2%}"
    )
    end.set_yscale("log")
    end.set_ylabel("% of parts at or above")
    for axes, left in ((whole, float(ordered[0]) - margin), (end, start - margin / 2)):
        kind = "threshold, EXTRAPOLATED" if threshold.extrapolated else "threshold"
        axes.axvline(value, color=RED, linewidth=2.0, label=f"{kind}: {value:.5g}")
        if threshold.interval:
            sure = f"its interval at {threshold.confidence:.0%}"
            axes.axvspan(*threshold.interval, color=RED, alpha=0.12, label=sure)
        _defects(axes, defects, value, left, right)
        axes.set_xlim(left, right)
        axes.set_xlabel("score")
        axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(0, -0.16), frameon=False)
    return _png(figure)


def _defects(axes: Axes, scores: Sequence[float], threshold: float, left: float, right: float) -> None:
    """A mark each along the foot; what lies beyond the axis stands at its end."""
    if not scores:
        return
    missed = sum(score <= threshold for score in scores)
    beyond = sum(score > right for score in scores)
    label = f"{len(scores)} known defects, {missed} below the threshold"
    label += f", {beyond} beyond the axis" if beyond else ""
    places = [min(score, right) for score in scores if score >= left]
    foot = [0.03] * len(places)
    (marks,) = axes.plot(places, foot, "kx", transform=axes.get_xaxis_transform(), clip_on=False, label=label)
    marks.set_in_layout(False)  # where none is on the axis they would pull it out of the picture


def gate(
    good: Sequence[float], synthetic: Sequence[float], known: Sequence[float], threshold: float, name: str
) -> bytes:
    """PNG of the scores that one bundle gives the golden set, and its threshold."""
    figure = _figure(1)
    (axes,) = figure.axes
    scores = [*good, *synthetic, *known]
    low, high = float(np.quantile(scores, 0.005)), float(np.quantile(scores, 0.97))
    bins = np.linspace(min(low, threshold), max(high, threshold), 41)
    for values, label, colour in (
        (good, "normal", BLUE),
        (synthetic, "synthetic defects", RED),
        (known, "known defects", GREY),
    ):
        if len(values):
            clipped = np.clip(values, bins[0], bins[-1])
            shares = np.full(len(values), 100 / len(values))
            axes.hist(clipped, bins.tolist(), weights=shares, label=label, color=colour, alpha=0.6)
    axes.axvline(threshold, color="black", linewidth=1.2, label="threshold")
    axes.set_title(name)
    axes.set_xlabel("score; what lies beyond is in the first and last bin")
    axes.set_ylabel("% of parts")
    axes.legend(fontsize=8)
    return _png(figure)


def bars(values: dict[str, dict[str, float]], floor: float | None, title: str) -> bytes:
    """PNG of p50 as bars and p99 as a mark beside each, in ms; floor: drawn as a line."""
    figure = _figure(1, width=7.0)
    (axes,) = figure.axes
    names = list(values)[::-1]
    axes.barh(names, [values[name]["p50"] for name in names], color=BLUE, label="p50")
    axes.plot([values[name]["p99"] for name in names], names, "|", color=RED, markersize=14, label="p99")
    if floor is not None:
        axes.axvline(floor, color=GREY, linestyle=":", label="floor")
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("ms")
    axes.legend(fontsize=8)
    return _png(figure)


def _figure(columns: int, width: float = 12.0, height: float = 3.4) -> Figure:
    from matplotlib.figure import Figure  # without pyplot: no window, no state that others share

    figure = Figure(
        figsize=(width if columns > 1 else min(width, 7.0), height), dpi=110, layout="constrained"
    )
    figure.subplots(1, columns)
    for axes in figure.axes:
        axes.grid(visible=True, alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _line(
    axes: Axes,
    values: list[float],
    label: str,
    colour: str | None = None,
    width: float = 1.5,
    style: str = "-",
) -> None:
    marker = "o" if len(values) == 1 else None  # a line of one point cannot be seen
    axes.plot(
        range(1, len(values) + 1),
        values,
        label=label,
        color=colour,
        linewidth=width,
        linestyle=style,
        marker=marker,
    )


def _png(figure: Figure) -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
