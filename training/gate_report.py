"""What the gate found, as one page: <recipe>/reports/<bundle id>/gate.html, with gate.json beside it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inspector.model.records import Threshold
from training import charts, report
from training.contact_sheet import overlay
from training.gate import Outcome, Shown

FEW = 24  # parts on which the two disagree that are drawn
Picture = tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.float32]]


def write(
    folder: Path,
    about: dict[str, str],
    outcome: Outcome,
    parts: Sequence[Shown],
    thresholds: tuple[Threshold, Threshold],
    disagreed: Sequence[tuple[Shown, Picture]],
    count: int,
) -> Path:
    """Write page and numbers; returns the page. Raises OSError.

    thresholds: of active and candidate. disagreed: the parts to be drawn, each with its picture (S, S, 3) and
    the maps (S, S) of active and candidate; count: how many there are in all.
    """
    folder.mkdir(parents=True, exist_ok=True)
    scores = {
        name: [[p.kind, p.defective, p.active, p.candidate] for p in parts if p.known is known]
        for name, known in (("normal_and_synthetic", False), ("known_defects", True))
    }
    numbers = {**outcome.to_json(), **about, "parts": len(parts), "disagreements": count, "scores": scores}
    (folder / "gate.json").write_text(json.dumps(numbers, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    page = folder / "gate.html"
    page.write_text(_page(about, outcome, parts, thresholds, disagreed, count), encoding="utf-8")
    return page


def _page(
    about: dict[str, str],
    outcome: Outcome,
    parts: Sequence[Shown],
    thresholds: tuple[Threshold, Threshold],
    disagreed: Sequence[tuple[Shown, Picture]],
    count: int,
) -> str:
    verdict = "passed" if outcome.passed else "refused"
    title = f"Candidate {verdict}: {escape(about['recipe'])}"
    body = [f"<h1>{title}</h1>", report.table(about)]
    if not outcome.passed:
        reasons = "".join(f"<li>{escape(reason)}" for reason in outcome.reasons)
        body.append(f"<p>The active bundle stays, because:</p><ul>{reasons}</ul>")
    body += ["<h2>Against the active bundle</h2>", _checks(outcome)]
    if charts.available():
        body.append("<h2>Scores</h2>")
        for name, threshold in zip(("active", "candidate"), thresholds, strict=True):
            good = [getattr(p, name) for p in parts if not p.defective]
            synthetic = [getattr(p, name) for p in parts if p.defective and not p.known]
            known = [getattr(p, name) for p in parts if p.known]
            drawn = charts.gate(good, synthetic, known, threshold.value, name)
            body.append(report.picture(drawn, f"scores of the {name} bundle"))
    body.append(f"<h2>Where the two disagree: {count} of {len(parts)} parts</h2>")
    if count > len(disagreed):
        body.append(f"<p>Known defects and normal parts first; the {len(disagreed)} clearest are drawn.</p>")
    body.append(_disagreements(disagreed, thresholds) if disagreed else "<p>Nowhere.</p>")
    head = f'<meta charset="utf-8"><title>{title}</title><style>{report.STYLE}</style>'
    return f"<!doctype html>\n<html><head>{head}</head><body>\n" + "\n".join(body) + "\n</body></html>\n"


def _checks(outcome: Outcome) -> str:
    rows = ["<tr><th>what<th>active<th>candidate<th>allowed<th>"]
    for check in outcome.checks:
        cells = (
            check.name,
            check.active,
            check.candidate,
            check.allowed,
            "ok" if check.passed else "REFUSED",
        )
        rows.append("<tr>" + "".join(f"<td>{escape(cell)}" for cell in cells))
    return "<table>" + "".join(rows) + "</table>"


def _disagreements(
    disagreed: Sequence[tuple[Shown, Picture]], thresholds: tuple[Threshold, Threshold]
) -> str:
    """Yellow begins at the threshold of the bundle whose map it is."""
    titles = ["", "part", "active", "candidate"]
    rows = ["".join(f"<th>{title}" for title in titles)]
    for part, (image, *maps) in disagreed:
        truth = f"{'defect' if part.defective else 'normal'}, {escape(part.kind)}"
        cells = [escape(Path(part.name).name), f"{truth}{report.picture(report.jpeg(image), 'part')}"]
        for map_, score, threshold in zip(maps, (part.active, part.candidate), thresholds, strict=True):
            said = "rejects" if score > threshold.value else "passes"
            drawn = report.jpeg(overlay(image, map_, threshold.value))
            cells.append(f"{said}: {score:.4g}{report.picture(drawn, 'map')}")
        rows.append("".join(f"<td>{cell}" for cell in cells))
    return '<table class="parts">' + "".join(f"<tr>{row}" for row in rows) + "</table>"
