"""Measure methods on labelled sets: `python -m training.benchmark --data ROOT --out results`.

Every run trains on normal parts, calibrates on normal parts held out from training, and only then sees the
test set, from which nothing is chosen. Finished runs are not repeated; an interrupted one goes on. Written:

    benchmark.json    a list with one object a run
    benchmark.md      the same as a table, beside the paper's numbers
    comparisons.json  each variant against the plain method, with the interval of the difference
    runs/             each run with the score of every image
    sheets/           contact sheets: the worst misses and false rejects, and heatmaps of good and bad parts
    models/           bundles and checkpoints, with --reports also a report of each training
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from inspector.errors import InspectorError, TrainingError
from inspector.model.network import METHODS
from inspector.model.records import Scoring
from training import datasets, distributed
from training.datasets import Category
from training.fit import TrainOptions
from training.overrides import override
from training.runs import Protocol, Run, comparable, execute
from training.tables import PLAIN, write_tables


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Returns the exit code; errors that a user can meet are one line on stderr."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    args = _parser().parse_args(given)
    try:
        distributed.refuse(
            "training.benchmark", "give each GPU runs of its own with --categories and --device"
        )
        benchmark(args, shlex.join(["python", "-m", "training.benchmark", *given]))
    except InspectorError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("stopped; the same command goes on from here\n")
        return 130
    return 0


def benchmark(args: argparse.Namespace, command: str) -> None:
    """All runs that are not finished, then the tables. Raises InspectorError."""
    categories = datasets.find(args.data, args.categories, args.dataset)
    planned = list(plan(args, categories, command))
    waiting = [run for run in planned if not finished(run, args.out)]
    if len(waiting) < len(planned):
        tqdm.write(f"{len(planned) - len(waiting)} of {len(planned)} runs are finished already", sys.stderr)
    with tqdm(waiting, desc="benchmark", unit="run", disable=args.quiet) as bar:
        for run in bar:
            bar.set_postfix_str(str(run.name))
            record = execute(run, args.out, progress=not args.quiet, reports=args.reports)
            write_tables(args.out)
            tqdm.write(_line(run, record), sys.stderr)
    write_tables(args.out)
    tqdm.write(f"{args.out / 'benchmark.md'}", sys.stderr)


def plan(args: argparse.Namespace, categories: Sequence[Category], command: str) -> Iterator[Run]:
    """Every category × seed × method × variant, the plain variant first."""
    settings = [_assignment(text) for text in args.set]
    _refuse_unknown([where for where, *_ in settings if where], categories, bool(args.categories))
    variants = {PLAIN: {}, **dict(_variant(text) for text in args.variants)}
    protocol = Protocol(args.holdout, args.rate, args.confidence, args.precision, args.device, args.threads)
    for category in categories:
        for seed in args.seeds:
            for method in args.methods:
                common = {
                    key: value
                    for where, scope, key, value in settings
                    if where in (None, category.name) and scope in (None, method)
                }
                for variant, changes in variants.items():
                    options = _options(args, method, seed, {**common, **changes})
                    yield Run(category, variant, options, protocol, command)


def finished(run: Run, out: Path) -> bool:
    """Whether its record is there. Raises TrainingError if that was made with other settings."""
    path = out / "runs" / run.name.with_name(run.name.name + ".json")
    if not path.is_file():
        return False
    before, now = (
        _flat({part: comparable(values) for part, values in settings.items()})
        for settings in (json.loads(path.read_text(encoding="utf-8"))["settings"], run.settings)
    )
    usual = _flat({"training": comparable(asdict(TrainOptions()))})
    before = {**{key: usual[key] for key in usual if key in now}, **before}  # settings there were not yet
    changed = [key for key in sorted({*before, *now}) if before.get(key) != now.get(key)]
    if changed:
        what = ", ".join(f"{key} {before.get(key)} → {now.get(key)}" for key in changed)
        raise TrainingError(
            f"{path} was made with other settings ({what}): "
            "give another --out, or delete that file to repeat it."
        )
    return True


def _options(args: argparse.Namespace, method: str, seed: int, changes: Mapping[str, str]) -> TrainOptions:
    """The method's options, changed; the scoring last, as its defaults follow from the rest."""
    first = {key: value for key, value in changes.items() if key != "preset" and not _of_scoring(key)}
    last = {key.removeprefix("scoring."): value for key, value in changes.items() if _of_scoring(key)}
    options = TrainOptions.of(
        method=method,
        preset=changes.get("preset", args.preset),
        epochs=args.epochs,
        seed=seed,
        threads=args.threads,
        device=args.device,
    )
    options = override(options, first)
    return replace(options, scoring=override(options.chosen_scoring(), last)) if last else options


def _of_scoring(key: str) -> bool:
    training = {field.name for field in fields(TrainOptions)}
    return key.startswith("scoring.") or key in {field.name for field in fields(Scoring)} - training


def _assignment(text: str) -> tuple[str | None, str | None, str, str]:
    """[CATEGORY:][METHOD.]KEY=VALUE → (category or None, method or None for all, key, value)."""
    name, equals, value = text.partition("=")
    where, _, key = name.rpartition(":")
    if not equals or not key:
        raise TrainingError(
            f"--set {text}: expected [CATEGORY:][METHOD.]KEY=VALUE, such as feature.epochs=10."
        )
    scope, dot, rest = key.partition(".")
    return (
        (where or None, scope, rest, value) if dot and scope in METHODS else (where or None, None, key, value)
    )


def _refuse_unknown(names: Sequence[str], categories: Sequence[Category], some: bool) -> None:
    """A setting for a category that is not there would be lost; one for a category not asked for may be."""
    known = [category.name for category in categories]
    for name in names:
        if name not in known and not some:
            raise TrainingError(f"--set {name}:…: no category {name}; there is {', '.join(known)}.")


def _variant(text: str) -> tuple[str, dict[str, str]]:
    """NAME:KEY=VALUE[,KEY=VALUE…] → name and changes."""
    name, colon, rest = text.partition(":")
    pairs = [pair.partition("=") for pair in rest.split(",")]
    sound = bool(colon) and name.replace("-", "").replace("_", "").isalnum() and name != PLAIN
    if not sound or any(not equals for _, equals, _ in pairs):
        raise TrainingError(
            f"--variants {text}: expected NAME:KEY=VALUE[,KEY=VALUE…], such as no-memory:memory=false."
        )
    return name, {key: value for key, _, value in pairs}


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def _line(run: Run, record: Mapping[str, Any]) -> str:
    low, high = record["image_auroc_interval"]
    return (
        f"{run.name}: image AUROC {record['image_auroc']:.3f} [{low:.3f}, {high:.3f}], "
        f"pixel AUROC {record['pixel_auroc']:.3f}, PRO {record['aupro']:.3f}, "
        f"false rejects {record['false_reject_rate']:.1%}, escapes {record['escape_rate']:.1%}, "
        f"trained {record['train_seconds']:.0f} s, {record['ms_per_image']:.1f} ms a part"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.benchmark",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--data", type=Path, required=True, help="a set or one category: MVTec AD, BTAD or VisA layout")
    add("--out", type=Path, default=Path("results"), help="where everything goes (default: results)")
    add("--dataset", help="what the set is called in the results (default: its folder's name)")
    add("--categories", nargs="+", default=[], help="default: all")
    add("--methods", nargs="+", default=sorted(METHODS), choices=sorted(METHODS), help="default: all")
    add("--seeds", nargs="+", type=int, default=[0], help="default: 0")
    add("--preset", default="small", help="sizes of the network (default: small)")
    add("--epochs", type=int, help="default: the preset's")
    add(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="[CATEGORY:][METHOD.]KEY=VALUE",
        help="any training setting, for all or for one category or method, such as screw:symmetries=turn; "
        "preset=NAME too",
    )
    add(
        "--variants",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME:KEY=VALUE,…",
        help="run each method also with these settings and compare, such as no-memory:memory=false",
    )
    defaults = Protocol()
    add("--holdout", type=float, default=defaults.holdout, help="share of normals to calibrate on")
    add("--rate", type=float, default=defaults.rate, help="false-reject rate to calibrate for")
    add("--confidence", type=float, default=defaults.confidence, help="with which to prove that rate")
    add("--device", default=defaults.device, help="auto, cpu or cuda[:n]")
    add("--precision", default=defaults.precision, help="float32, bfloat16 or float16, for inference")
    add("--threads", type=int, default=defaults.threads, help="CPU threads; 0: all")
    add("--reports", action="store_true", help="write the report of each training beside its bundle")
    add("--quiet", action="store_true", help="no progress bars")
    return parser


if __name__ == "__main__":
    sys.exit(main())
