"""From the records of finished runs to benchmark.json, comparisons.json and benchmark.md."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from inspector.errors import TrainingError
from training.metrics import image_auroc, paired_bootstrap
from training.reported import reported

Record = Mapping[str, Any]

PLAIN = "plain"  # the variant that nothing is switched in; the others are compared with it
TELLING = 0.9  # AUROC from which the mean brightness of the images is worth a warning
PER_IMAGE = "scores"  # the key that stays in the run's own file

COLUMNS: dict[str, Callable[[float], str]] = {
    "image_auroc": "{:.3f}".format,
    "pixel_auroc": "{:.3f}".format,
    "aupro": "{:.3f}".format,
    "f1_max": "{:.3f}".format,
    "average_precision": "{:.3f}".format,
    "false_reject_rate": "{:.1%}".format,
    "escape_rate": "{:.1%}".format,
    "train_seconds": "{:.0f}".format,
    "ms_per_image": "{:.1f}".format,
}
HEADINGS = (
    "image AUROC",
    "pixel AUROC",
    "PRO",
    "F1-max",
    "AP",
    "false rejects",
    "escapes",
    "training s",
    "ms / image",
)


def read_runs(folder: Path) -> list[dict[str, Any]]:
    """The records of all finished runs under folder, plain before its variants."""
    records = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.rglob("*.json"))]
    return sorted(records, key=_place)


def write_tables(out: Path) -> None:
    """Write benchmark.json, comparisons.json and benchmark.md in out from the records in out/runs."""
    records = read_runs(out / "runs")
    short = [{key: value for key, value in record.items() if key != PER_IMAGE} for record in records]
    compared = comparisons(records)
    write_json(out / "benchmark.json", short)
    write_json(out / "comparisons.json", compared)
    (out / "benchmark.md").write_text(markdown(short, compared), encoding="utf-8")


def write_json(path: Path, data: object) -> None:
    """JSON, in one move: a reader never sees half a file. NaN (a metric that is not defined) becomes null."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".part")
    draft.write_text(json.dumps(_defined(data), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    draft.replace(path)


def comparisons(records: Iterable[Record]) -> list[dict[str, Any]]:
    """Each variant against the plain run of its category and method: differences, variant minus plain.

    Seeds that both have are averaged; the 95 % interval of the difference in image AUROC is a paired
    bootstrap over the test images. Raises TrainingError where the two saw different test images.
    """
    runs = {(*_group(r), r["seed"]): r for r in records}
    found = []
    for (dataset, category, method, variant), group in groupby(sorted(runs), key=lambda key: key[:4]):
        seeds = [key[4] for key in group if (*key[:3], PLAIN, key[4]) in runs]
        place = (dataset, category, method)
        pairs = [(runs[*place, variant, seed], runs[*place, PLAIN, seed]) for seed in seeds]
        if variant == PLAIN or not pairs:
            continue
        labels = [row["defect"] is not None for row in pairs[0][0][PER_IMAGE]]
        if len({_images(record) for pair in pairs for record in pair}) > 1:
            raise TrainingError(
                f"{dataset}/{category}, {method}: {variant} and {PLAIN} saw different test images, "
                "so they cannot be compared; delete the older ones among them to repeat them."
            )
        ours, plain = (
            np.array([[row["score"] for row in pair[k][PER_IMAGE]] for pair in pairs]) for k in (0, 1)
        )
        difference, interval = paired_bootstrap(image_auroc, labels, ours, plain)
        found.append(
            {
                "dataset": dataset,
                "category": category,
                "method": method,
                "variant": variant,
                "against": PLAIN,
                "image_auroc": difference,
                "image_auroc_interval": list(interval),
                **{
                    key: float(np.mean([_number(a[key]) - _number(b[key]) for a, b in pairs]))
                    for key in ("pixel_auroc", "aupro")
                },
                "image_auroc_by_seed": {
                    str(seed): image_auroc(labels, a) - image_auroc(labels, b)
                    for seed, a, b in zip(seeds, ours, plain, strict=True)
                },
                "n_images": len(labels),
            }
        )
    return found


def markdown(records: Sequence[Record], compared: Sequence[Record] = ()) -> str:
    """The tables as Markdown: one row a category and method, the mean over its seeds ± their spread."""
    rows = ["# Benchmark", "", *_how(records), ""]
    head = ["category", "method", "seeds", *HEADINGS, "paper: image / pixel / PRO"]
    rows += _table(head, _results(records))
    rows += _told_by_brightness(records)
    if compared:
        rows += ["", "## Variants against the plain method", ""]
        rows += ["Differences, variant minus plain. Where the interval spans 0, none is shown.", ""]
        rows += _table(
            [
                "category",
                "method",
                "variant",
                "image AUROC",
                "95 % interval",
                "by seed",
                "pixel AUROC",
                "PRO",
            ],
            [
                [
                    c["category"],
                    c["method"],
                    c["variant"],
                    f"{c['image_auroc']:+.3f}",
                    "{:+.3f} … {:+.3f}".format(*c["image_auroc_interval"]),
                    ", ".join(f"{d:+.3f}" for d in c["image_auroc_by_seed"].values()),
                    *("–" if math.isnan(c[key]) else f"{c[key]:+.3f}" for key in ("pixel_auroc", "aupro")),
                ]
                for c in compared
            ],
        )
    return "\n".join(rows) + "\n"


def _how(records: Sequence[Record]) -> list[str]:
    devices = sorted({f"{r['device']} ({r['precision']})" for r in records})
    return [
        f"Measured on {'; '.join(devices)}. The settings of every run are in `benchmark.json`.",
        "Mean over the seeds, ± their standard deviation; with one seed, the 95 % interval of the image",
        "AUROC over the test images. Maps and masks are compared at 256 × 256; PRO is integrated to a",
        "false-positive rate of 0.3. False rejects and escapes are at the threshold calibrated on held-out",
        "normal parts. No run chooses anything on test images.",
    ]


def _told_by_brightness(records: Sequence[Record]) -> list[str]:
    """A warning for each category whose good and defective images differ in light alone."""
    lines = []
    for (dataset, category), group in groupby(records, key=lambda r: (r["dataset"], r["category"])):
        auroc = _number(next(group).get("brightness_auroc"))
        if max(auroc, 1 - auroc) >= TELLING:
            warning = "good and defective parts were not photographed in the same light"
            told = f"the mean brightness of the images alone has an image AUROC of {auroc:.3f}"
            lines += ["", f"**{dataset}/{category}**: {told}: {warning}."]
    return lines


def _results(records: Sequence[Record]) -> list[list[str]]:
    rows: list[list[str]] = []
    means: dict[tuple[str, str], list[dict[str, float]]] = {}
    for (dataset, category, method, variant), found in groupby(records, key=_group):
        group = list(found)
        mean = {key: float(np.mean([_number(r[key]) for r in group])) for key in COLUMNS}
        means.setdefault((method, variant), []).append(mean)
        cells = [_cell(key, [_number(r[key]) for r in group], group) for key in COLUMNS]
        paper = reported(dataset, category)
        theirs = " / ".join(f"{value:.3f}" for value in paper) if paper else ""
        rows.append([category, _label(method, variant), str(len(group)), *cells, theirs])
    categories = len({(r["dataset"], r["category"]) for r in records})
    for (method, variant), several in means.items():
        if len(several) > 1:
            cells = [_cell(key, [_mean_defined([m[key] for m in several])]) for key in COLUMNS]
            count = f"mean of {len(several)}" if len(several) == categories else f"{len(several)} only"
            rows.append([f"**{count}**", _label(method, variant), "", *cells, ""])
    return rows


def _cell(key: str, values: Sequence[float], group: Sequence[Record] = ()) -> str:
    show = COLUMNS[key]
    if math.isnan(float(np.mean(values))):
        return "–"
    text = show(float(np.mean(values)))
    if len(values) > 1:
        return f"{text} ± {show(float(np.std(values, ddof=1)))}"
    if key == "image_auroc" and group:
        return "{} [{:.3f}, {:.3f}]".format(text, *group[0]["image_auroc_interval"])
    return text


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]


def _images(record: Record) -> tuple[str, ...]:
    return tuple(row["image"] for row in record[PER_IMAGE])


def _place(record: Record) -> tuple[str, str, str, bool, str, int]:
    *where, variant = _group(record)
    return where[0], where[1], where[2], variant != PLAIN, variant, record["seed"]


def _group(record: Record) -> tuple[str, str, str, str]:
    return record["dataset"], record["category"], record["method"], record["variant"]


def _label(method: str, variant: str) -> str:
    return method if variant == PLAIN else f"{method}, {variant}"


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _mean_defined(values: Sequence[float]) -> float:
    defined = [value for value in values if not math.isnan(value)]
    return float(np.mean(defined)) if defined else math.nan


def _defined(data: object) -> object:
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    if isinstance(data, Mapping):
        return {str(key): _defined(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_defined(value) for value in data]
    return data
