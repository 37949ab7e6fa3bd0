"""The charts of a training report, drawn with matplotlib, the one thing here that needs it."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from math import log, nan
from typing import TYPE_CHECKING

import numpy as np

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


def _figure(columns: int, width: float = 12.0) -> Figure:
    from matplotlib.figure import Figure  # without pyplot: no window, no state that others share

    figure = Figure(figsize=(width if columns > 1 else min(width, 7.0), 3.4), dpi=110, layout="constrained")
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
