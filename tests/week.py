"""A week of a station, simulated: `python -m tests.week --data SETS --weights FILE --out results`.

Day 1 commissions with 100 normal parts and calibrates on 100 more. On each further day new normal parts come,
5 % of what passes are in truth defects that nobody labels, every other false reject is labelled normal, and
from day 4 on the light is 15 % weaker. Each night `inspector retrain` runs. Drift is what the daemon would
have told of the day's passed parts, had each of them come as often as makes 100. The same week is lived once
more with a clean pool, and both again for each seed, which shuffles what comes when. The test images are the
same every day of a week, shown in that day's light; no part that they show is ever on the line, in another
exposure either. What is done is kept in the work folder: the same command goes on.
"""

from __future__ import annotations

import argparse
import json
import logging
import re
import shutil
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from time import process_time

import cv2
import numpy as np
from tqdm import tqdm

from inspector.appearance import measure
from inspector.audit.frames import FrameStore
from inspector.audit.labels import add_label
from inspector.audit.log import AuditLog
from inspector.audit.records import BundleRecord, Evidence, Inspection
from inspector.calibration import Asked, calibrate_recipe
from inspector.commands import train_recipe
from inspector.drift import WINDOW, Drift
from inspector.driftwatch import references
from inspector.errors import InspectorError
from inspector.judges import active_bundle, open_engine
from inspector.model import store
from inspector.model.bundle import Bundle
from inspector.model.records import to_json
from inspector.nightly import priority
from inspector.nightly.retrain import retrain
from inspector.settings import Settings, load
from tests.same_part import parts_shown
from training.data import read_image
from training.datasets import Sample, find
from training.metrics import image_auroc, rates
from training.tables import write_json

DAYS, LIGHT_DAY, LIGHT = 7, 4, 0.85
COMMISSIONED, CALIBRATED, A_DAY = 100, 100, 60
ESCAPES = 0.05
TESTED = 60  # of each class
MEASURED = ("bundle", "auroc", "test_false_rejects", "test_escapes")
POOLS = ("contaminated", "clean")
RATE = 0.05  # false rejects; what 100 parts can prove
MARGIN = 0.05  # of AUROC: with some 120 parts kept apart the interval is as wide as the usual 0.02 by itself
NIGHT = re.compile("^(?:candidate|bundle) ([0-9a-f]+) is")
STATION = """
[station]
data = "data"
[log]
min_free_mib = 1
[plc]
enabled = false
[engine]
device = "cpu"
threads = 1
[retrain]
parts = 250
auroc_margin = {margin}
[[camera]]
name = "cam"
recipe = "part"
[camera.folder]
path = "."
[recipe.part]
method = "feature"
preset = "tiny"
backbone_weights = "{weights}"
symmetries = {symmetries}
false_reject_rate = {rate}
"""
SYMMETRIES = {"mvtec_screw": '["turn"]', "magnetic_tile": '["flip-x", "flip-y"]'}


@dataclass
class Parts:
    """Of one category, shuffled once: what comes when."""

    first: list[Path]
    second: list[Path]
    days: list[list[Path]]
    slipping: list[Path]
    test: list[Sample]


def parts_of(data: Path, name: str, seed: int) -> Parts:
    """The same for every run. Nothing on the line shows a part that a test picture shows."""
    rng = np.random.default_rng(seed)
    category = find(data, [name])[0]
    shown = parts_shown([*category.normals, *(one.path for one in category.test)])
    normals = [category.normals[i] for i in rng.permutation(len(category.normals))]
    bad = by_part([one for one in category.test if one.defective], shown, rng)
    good = by_part([one for one in category.test if not one.defective], shown, rng)[:TESTED]
    slipping, tested = bad[: len(bad) // 3], [*good, *bad[len(bad) // 3 :][:TESTED]]
    apart = {shown[one.path] for one in tested}
    normals = [file for file in normals if shown[file] not in apart]
    later = normals[COMMISSIONED + CALIBRATED :]
    each = min(A_DAY, len(later) // (DAYS - 1))
    return Parts(
        normals[:COMMISSIONED],
        normals[COMMISSIONED : COMMISSIONED + CALIBRATED],
        [later[day * each : (day + 1) * each] for day in range(DAYS - 1)],
        [one.path for one in slipping if shown[one.path] not in apart],
        tested,
    )


def by_part(samples: list[Sample], shown: dict[Path, int], rng: np.random.Generator) -> list[Sample]:
    """Shuffled, all pictures of one part together."""
    parts: dict[int, list[Sample]] = {}
    for one in samples:
        parts.setdefault(shown[one.path], []).append(one)
    groups = list(parts.values())
    return [one for i in rng.permutation(len(groups)) for one in groups[i]]


def seen(path: Path, day: int) -> np.ndarray:
    """The picture in the light of that day."""
    image = read_image(path)
    return image if day < LIGHT_DAY else np.rint(image * LIGHT).astype(image.dtype)


def live(
    work: Path, data: Path, weights: Path, name: str, seed: int, *, clean: bool, epochs: int | None, bar: tqdm
) -> list[dict]:
    """One week; a row a day. Its first day is the same for both pools, and lived once."""
    parts, state = parts_of(data, name, seed), work / "state.json"
    if not state.exists():
        first = work.parent / f"commissioned-{seed}"
        if not (first / "state.json").exists():
            commission(first, parts, weights, name, epochs)
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(first, work, ignore=shutil.ignore_patterns("state.json"))
        shutil.copy(first / "state.json", state)
    rows, settings = json.loads(state.read_text()), load(work / "station.toml")
    for row in rows:
        if "candidate" not in row:
            row["candidate"] = candidate(settings, parts, row)
    write_json(state, rows)
    bar.update(len(rows))
    for day in range(len(rows) + 1, DAYS + 1):
        done = work / f"inspected-{day}.json"
        if not done.exists():  # a day that was cut short begins anew, with what the log has of it
            write_json(done, inspect(settings, parts, day, clean=clean))
        row = {"day": day} | json.loads(done.read_text()) | measured(settings, parts, day, rows)
        began = process_time()
        try:
            night = list(retrain(settings, ["part"], epochs=epochs, seed=day))[-1]
        except InspectorError as error:
            night = str(error)
        row |= {"night": night.removeprefix("recipe 'part': "), "night_s": round(process_time() - began, 1)}
        row["after"] = measured(settings, parts, day, [*rows, row])
        row["candidate"] = candidate(settings, parts, row)
        rows.append(row)
        write_json(state, rows)
        bar.update()
    return rows


def commission(work: Path, parts: Parts, weights: Path, name: str, epochs: int | None) -> None:
    """The first day of a station in this folder."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    (work / "station.toml").write_text(
        STATION.format(weights=weights, symmetries=SYMMETRIES.get(name, "[]"), rate=RATE, margin=MARGIN)
    )
    for folder, files in (("first", parts.first), ("second", parts.second)):
        (work / folder).mkdir()
        for file in files:
            shutil.copy(file, work / folder)
    settings = load(work / "station.toml")
    list(train_recipe(settings, "part", work / "first", None, None, epochs, 0))
    list(calibrate_recipe(settings, "part", Asked(images=work / "second")))
    AuditLog.open(settings.database).close()
    row = {"day": 1, "night": "commissioned"} | measured(settings, parts, 1, [])
    write_json(work / "state.json", [row])


def inspect(settings: Settings, parts: Parts, day: int, *, clean: bool) -> dict:
    """Judge and log the day's parts; slip defects in; label every other false reject."""
    bundle = active_bundle(settings, "part")
    engine, limit = open_engine(bundle, settings.engine), bundle.threshold.value
    frames, rng = FrameStore(settings.frames), np.random.default_rng((day, 1))
    began = datetime.now(UTC) - timedelta(days=DAYS - day + 1)
    scored = [(seen(path, day), path) for path in parts.days[day - 2]]
    judged = [(image, engine.score(image).score, path.name) for image, path in scored]
    passed = [score for _, score, _ in judged if score <= limit]
    slipped = [] if clean else slip(parts, day, round(ESCAPES * len(passed) / (1 - ESCAPES)))
    for path in slipped:
        image = seen(path, day)
        score = engine.score(image).score
        # nobody noticed it: where the model would have, it gets the score of some part that passed
        judged.append((image, score if score <= limit else float(rng.choice(passed)), f"escaped-{path.name}"))
    rejected = []
    with AuditLog.open(settings.database) as log:
        record = BundleRecord(id=bundle.id, recipe="part", architecture=to_json(bundle.architecture))
        log.register_bundle(record)
        for number, (image, score, name) in enumerate(judged):
            when = began + timedelta(minutes=number)
            row = Inspection(
                time=when,
                camera="cam",
                recipe="part",
                verdict=1 if score <= limit else 2,
                score=score,
                threshold=limit,
                bundle=bundle.id,
                source=name,
            )
            id_ = log.commit(row)
            log.add_evidence([Evidence(id_, frame=frames.store(id_, "cam", when, image))])
            rejected += [id_] if score > limit else []
    for id_ in rejected[::2]:
        add_label(settings.database, id_, "normal", by="week")
    light = float(np.mean([image.mean() for image, _, _ in judged]))
    drift = moved(bundle, day, [(image, score) for image, score, _ in judged])
    return {
        "parts": len(scored),
        "false_rejects": len(rejected),
        "labelled": len(rejected[::2]),
        "slipped": len(slipped),
        "mean_grey": light,
        "drift": drift,
    }


def moved(bundle: Bundle, day: int, judged: list[tuple[np.ndarray, float]]) -> list[str]:
    """Which quantities of these parts have moved away from the calibration's."""
    drift, of_frames = Drift(references(bundle)), ("brightness", "sharpness", "highlight")
    values = []
    for image, score in judged:
        seen_as = measure(image, bundle.preprocessing.roi)
        values.append({"score": score} | {name: getattr(seen_as, name) for name in of_frames})
    for number in range(WINDOW):
        one = values[number % len(values)]
        drift.add(date(2026, 1, day), one, passed=one["score"] <= bundle.threshold.value)
    return list(drift.moved)


def slip(parts: Parts, day: int, count: int) -> list[Path]:
    start = (day - 2) * count
    return [parts.slipping[k % len(parts.slipping)] for k in range(start, start + count)]


def measured(settings: Settings, parts: Parts, day: int, before: list[dict]) -> dict:
    """The active bundle on the fixed test images, in the light of that day, as before where it has judged in
    that light before.
    """
    bundle = active_bundle(settings, "part")
    for row in before:
        for one in (row, row.get("after", {})):
            if one.get("bundle") == bundle.id and (row["day"] < LIGHT_DAY) == (day < LIGHT_DAY):
                return {name: one[name] for name in MEASURED}
    labels, scores = scored(settings, parts, bundle, day)
    found = rates(labels, scores, bundle.threshold.value)
    values = (bundle.id, image_auroc(labels, scores), found.false_reject, found.escape)
    return dict(zip(MEASURED, values, strict=True))


def candidate(settings: Settings, parts: Parts, row: dict) -> float | None:
    """AUROC of what this day's night has made, promoted or not, on the test images in that day's light."""
    made = NIGHT.search(row["night"])
    if made is None:
        return None
    bundle = store.find(settings.models / "part", made[1])
    return image_auroc(*scored(settings, parts, bundle, row["day"]))


def scored(settings: Settings, parts: Parts, bundle: Bundle, day: int) -> tuple[list[bool], list[float]]:
    """Which test images show a defect, and their scores."""
    engine = open_engine(bundle, settings.engine)
    scores = [engine.score(seen(one.path, day)).score for one in parts.test]
    return [one.defective for one in parts.test], scores


def cost(clean: list[dict], contaminated: list[dict]) -> tuple[float, float, float]:
    """AUROC lost to unnoticed defects: by what the nights made, promoted or not, on average; by what was
    active, on average from day 3, the first after a night, to after the last night; and after that alone.
    """
    both = (clean, contaminated)
    made = np.array([[row["candidate"] for row in rows] for rows in both], np.float64)
    active = np.array([[row["auroc"] for row in rows[2:]] + [rows[-1]["after"]["auroc"]] for rows in both])
    lost = active[0] - active[1]
    return float(np.nanmean(made[0] - made[1])), float(lost.mean()), float(lost[-1])


def summary(weeks: list[dict]) -> list[str]:
    """What contamination costs, and when the light was flagged; a row for each pair of weeks."""
    lines = [
        "| set | seed | AUROC that contamination costs: what the nights made, average "
        "| what was active, average | after the last night "
        "| light flagged on day (contaminated, clean) | promoted (contaminated, clean) |",
        "|---|---|---|---|---|---|---|",
    ]
    found: dict[str, list[tuple[float, float, float]]] = {}
    pools = {(week["set"], week["seed"], week["pool"]): week["days"] for week in weeks}
    for (name, seed, pool), days in pools.items():
        if pool != POOLS[0] or (name, seed, POOLS[1]) not in pools:
            continue
        both = (days, pools[name, seed, POOLS[1]])
        costs = cost(both[1], both[0])
        found.setdefault(name, []).append(costs)
        told = ", ".join(flagged(one) for one in both)
        nights = ", ".join(str(sum("is active" in day["night"] for day in one)) for one in both)
        shown = " | ".join(f"{one:+.3f}" for one in costs)
        lines.append(f"| {name} | {seed} | {shown} | {told} | {nights} |")
    for name, of_seeds in found.items():
        if len(of_seeds) > 1:
            means, errors = np.mean(of_seeds, 0), np.std(of_seeds, 0, ddof=1) / np.sqrt(len(of_seeds))
            shown = " | ".join(f"**{m:+.3f}** ± {e:.3f}" for m, e in zip(means, errors, strict=True))
            lines.append(f"| **{name}** | all, ± standard error | {shown} | | |")
    return [*lines, ""]


def flagged(days: list[dict]) -> str:
    """The first day on which light was told to have moved."""
    return next(
        (str(day["day"]) for day in days if {"brightness", "highlight"} & set(day.get("drift", ()))), "never"
    )


def markdown(weeks: list[dict]) -> str:
    lines = ["# A simulated week", "", *(__doc__ or "").split("\n\n", 1)[1].strip().splitlines(), ""]
    lines += summary(weeks)
    for week in weeks:
        rows = week["days"]
        lines += [f"## {week['set']}, seed {week['seed']}, {week['pool']} pool", ""]
        lines.append(
            "| day | false rejects | drift | AUROC | escapes in test | false rejects in test | night |"
        )
        lines.append("|---|---|---|---|---|---|---|")
        for row in rows:
            rejects = f"{row['false_rejects']} of {row['parts']}" if "parts" in row else "–"
            drift = ", ".join(row.get("drift", ())) or "–"
            lines.append(
                f"| {row['day']} | {rejects} | {drift} | {row['auroc']:.3f} | {row['test_escapes']:.0%} | "
                f"{row['test_false_rejects']:.0%} | {row['night']} |"
            )
        if after := rows[-1].get("after"):
            lines.append(
                f"| after | – | – | {after['auroc']:.3f} | {after['test_escapes']:.0%} | ",
            )
            lines[-1] += f"{after['test_false_rejects']:.0%} | – |"
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of categories in the MVTec layout")
    parser.add_argument("--categories", nargs="+", default=["mvtec_screw", "magnetic_tile"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="orders of the parts")
    parser.add_argument("--weights", type=Path, required=True, help="of EfficientNet-Lite0")
    parser.add_argument("--epochs", type=int, help="of every training; default: those of the preset")
    parser.add_argument("--work", type=Path, default=Path("runs/week"), help="what is done is kept here")
    parser.add_argument("--out", type=Path, default=Path("results"))
    asked = parser.parse_args()
    logging.getLogger().setLevel(logging.ERROR)
    priority.lower = lambda: None  # no line runs beside this: whoever starts it says what it may take
    cv2.setNumThreads(1)
    weeks: list[dict] = []
    plan = [(name, seed, pool) for name in asked.categories for seed in asked.seeds for pool in POOLS]
    with tqdm(total=DAYS * len(plan), desc="week", unit="day") as bar:
        for name, seed, pool in plan:
            days = live(
                asked.work / name / f"{pool}-{seed}",
                asked.data,
                asked.weights.resolve(),
                name,
                seed,
                clean=pool == "clean",
                epochs=asked.epochs,
                bar=bar,
            )
            weeks.append({"set": name, "seed": seed, "pool": pool, "days": days})
            write_json(asked.out / "week.json", weeks)
            (asked.out / "week.md").write_text(markdown(weeks), encoding="utf-8")


if __name__ == "__main__":
    main()
