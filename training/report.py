"""What a training came to, as one page to look at: <recipe>/reports/<bundle id>/report.html.

Pictures are embedded, so that the file can be sent to anybody. Its numbers lie beside it in report.json.
"""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from inspector.model.bundle import Bundle
from training import charts
from training.contact_sheet import overlay
from training.trial import Example, Trial

SIDE = 224  # pixels of a picture on the page
MASK = (0, 255, 80)
STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #1c2026; margin: 24px auto;
  max-width: 1320px; padding: 0 16px }
h1 { font-size: 24px } h2 { font-size: 18px; margin-top: 32px }
table { border-collapse: collapse } td, th { padding: 3px 14px 3px 0; text-align: left; vertical-align: top }
.parts td, .parts th { padding: 4px } .parts td:first-child { width: 190px; overflow-wrap: anywhere }
.number { text-align: right; font-variant-numeric: tabular-nums } .muted { color: #707882 }
img { display: block; max-width: 100% }
"""
logger = logging.getLogger(__name__)


def path_of(bundle: Bundle) -> Path:
    """Where the report of this bundle's training is, or would be."""
    return bundle.path.parent / "reports" / bundle.id / "report.html"


def write(bundle: Bundle, trial: Trial) -> None:
    """Write the report. What goes wrong is a warning: a picture must not cost a night's training."""
    path = path_of(bundle)
    drawn = charts.available()
    if not drawn:
        logger.warning(
            "matplotlib is not installed, so the training report has no charts; pip install matplotlib"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_name("report.json").write_text(
            json.dumps(_numbers(bundle, trial), indent=1, allow_nan=False) + "\n", encoding="utf-8"
        )
        path.write_text(_page(bundle, trial, drawn=drawn), encoding="utf-8")
    except OSError as error:
        logger.warning("the training report cannot be written to %s (%s)", path.parent, error)


def _numbers(bundle: Bundle, trial: Trial) -> dict[str, Any]:
    p = bundle.provenance
    return {
        "bundle": bundle.id,
        "method": bundle.architecture.method,
        "seconds": p["seconds"],
        "device": p["device"],
        "trained_on": len(p["trained_on"]),
        "held_out": len(p["held_out"]),
        "synthetic": p["synthetic"],
        "memory": p["memory"],
        "scores": {"normal": trial.good, "defective": trial.bad, "kinds": trial.kinds},
        "curve": p["curve"],
    }


def _page(bundle: Bundle, trial: Trial, *, drawn: bool) -> str:
    p, a = bundle.provenance, bundle.architecture
    slots = a.slots if p["memory"] else None
    scale = max(trial.good)
    body = [
        f"<h1>Training of {escape(bundle.path.parent.name)}, method {escape(a.method)}</h1>",
        table(_facts(bundle)),
        "<h2>How well damage is seen</h2>",
        *_separation(p["synthetic"]),
    ]
    if drawn:
        body += [
            picture(charts.histogram(trial.good, trial.bad), "histogram of scores"),
            "<h2>Training</h2>",
            picture(charts.curves(p["curve"], slots), "curves"),
        ]
    if p["memory"]:
        body.append(table(_memory(p["memory"])))
    body += [
        "<h2>Normal parts</h2>",
        f"<p>{'Held out' if p['held_out'] else 'Trained on, for none were held out'}. Yellow begins at the "
        f"highest score of these parts, {scale:.4g}, as it will at the threshold. What should not be seen: "
        "grey mush in place of the part, a bright frame, warm colours.</p>",
        _parts(trial.good_parts, scale),
        "<h2>Parts with a synthetic defect</h2>",
        "<p>Damage is outlined in green. The map should be warm there, and there alone.</p>",
        _parts(trial.bad_parts, scale),
        "<h2>Settings</h2>",
        table({key: json.dumps(value) for key, value in p["options"].items()}),
    ]
    title = f"Training of {escape(bundle.path.parent.name)}"
    head = f'<meta charset="utf-8"><title>{title}</title><style>{STYLE}</style>'
    return f"<!doctype html>\n<html><head>{head}</head><body>\n" + "\n".join(body) + "\n</body></html>\n"


def _facts(bundle: Bundle) -> dict[str, str]:
    p = bundle.provenance
    return {
        "bundle": bundle.id,
        "parts": f"{len(p['trained_on'])} learned from, {len(p['held_out'])} held out",
        "training": f"{p['seconds']:.0f} s on {p['device']}, {len(p['curve'])} epochs, ended {p['created']}",
    }


def _separation(summary: dict[str, Any] | None) -> Iterator[str]:
    if summary is None:
        yield "<p>No parts were held out, so nothing can be said; what follows is of parts learned from.</p>"
        return
    low, high = summary["image_auroc_interval"]
    yield table(
        {
            "image AUROC": f"{summary['image_auroc']:.3f} (95 % interval {low:.3f} to {high:.3f})",
            **{f"… {kind}": f"{value:.3f}" for kind, value in summary["image_auroc_by_kind"].items()},
            "pixel AUROC": f"{summary['pixel_auroc']:.3f}",
            "PRO": f"{summary['aupro']:.3f}",
        }
    )
    yield (
        f'<p class="muted">{summary["n_defective"]} synthetic defects on held-out parts against the '
        f"{summary['n_good']} held-out parts as they are. Real defects may be easier or harder; a method "
        "that learns from synthetic defects has seen such damage, though not on these parts.</p>"
    )


def _memory(statistics: dict[str, float]) -> dict[str, str]:
    s = statistics
    return {
        "slots": f"{s['slots']}, {s['slots_read']:.0%} are read, {s['slots_first']:.0%} match a token best",
        "empty rows": f"{s['empty_rows']:.1%} of tokens resemble all slots alike",
        "entropy": f"{s['entropy']:.2f} of at most {s['entropy_max']:.2f} nats",
    }


def table(rows: dict[str, str]) -> str:
    """A table of two columns."""
    return "<table>" + "".join(f"<tr><th>{escape(k)}<td>{escape(v)}" for k, v in rows.items()) + "</table>"


def _parts(examples: Sequence[Example], scale: float) -> str:
    titles = ["", "part", *examples[0].views, "map"]
    rows = ["".join(f"<th>{escape(title)}" for title in titles)]
    for e in examples:
        cells = [f"{escape(e.name)}<br>score {e.score:.4g}"]
        for title, view in {"part": e.image, **e.views, "map": e.map}.items():
            if view.ndim == 3:
                shown = jpeg(view)  # without the outline, which would hide fine damage
            else:
                shown = jpeg(overlay(e.image, view.astype(np.float32), scale), e.mask)
            cells.append(picture(shown, title))
        rows.append("".join(f"<td>{cell}" for cell in cells))
    return '<table class="parts">' + "".join(f"<tr>{row}" for row in rows) + "</table>"


def jpeg(view: NDArray[np.generic], mask: NDArray[np.bool_] | None = None) -> bytes:
    """(H, W, 3) RGB, at SIDE pixels, the mask (H, W) outlined."""
    size = (SIDE, SIDE)
    how = cv2.INTER_AREA if view.shape[0] > SIDE else cv2.INTER_CUBIC
    shown = cv2.resize(np.asarray(view, np.uint8), size, interpolation=how)
    if mask is not None:
        inside = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
        outline, _ = cv2.findContours(inside, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(shown, outline, -1, MASK, 1)
    _, data = cv2.imencode(".jpg", cv2.cvtColor(shown, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 88])
    return data.tobytes()


def picture(data: bytes, title: str) -> str:
    """An image of the page, PNG or JPEG, embedded."""
    kind = "png" if data.startswith(b"\x89PNG") else "jpeg"
    return f'<img alt="{escape(title)}" src="data:image/{kind};base64,{base64.b64encode(data).decode()}">'
