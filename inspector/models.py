"""`inspector models`, `inspector models activate` and `inspector rollback`: a recipe's bundles for people."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from inspector.errors import BundleError
from inspector.judges import refuse_other_roi
from inspector.model import bundle as bundles
from inspector.model import store
from inspector.model.bundle import Bundle
from inspector.model.engine import calibrated_where, describe, resolve
from inspector.settings import Settings

COLUMNS = ("", "bundle", "created", "method", "threshold", "false rejects", "gate", "from")


def gate_file(recipe_dir: Path, bundle_id: str) -> Path:
    """Where the nightly gate leaves what it found of a bundle, for the listing."""
    return recipe_dir / "reports" / bundle_id / "gate.json"


def listing(settings: Settings, recipe: str) -> list[dict[str, Any]]:
    """Every bundle of the recipe, oldest first, as JSON objects."""
    folder = settings.models / recipe
    now = store.current(folder)
    return [_described(bundle, bundle.id == now) for bundle in bundles.listing(folder)]


def show(settings: Settings, recipe: str, as_json: bool) -> None:
    """Print them."""
    rows = listing(settings, recipe)
    if as_json:
        sys.stdout.write(json.dumps(rows, indent=1) + "\n")
        return
    console = Console(width=None if sys.stdout.isatty() else 200, highlight=False)
    if not rows:
        console.print(f"recipe '{recipe}' has no bundles in {settings.models / recipe}")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in COLUMNS:
        table.add_column(name, overflow="fold", no_wrap=name in ("bundle", "created"))
    for row in rows:
        table.add_row(*(escape(text) for text in _cells(row)), style="bold" if row["active"] else None)
    console.print(table)


def activate(settings: Settings, recipe: str, prefix: str, *, force: bool) -> Iterator[str]:
    """Make the bundle whose id begins so the active one. Raises BundleError for one that may not judge."""
    bundle = bundles.load(store.find(settings.models / recipe, prefix).path)
    against = unfit(settings, recipe, bundle)
    if against is not None and not force:
        raise BundleError(f"{against}; with it every part is FAULT, so it stays as it was (--force)")
    store.activate(settings.models / recipe, bundle.id, "activate")
    yield f"bundle {bundle.id[:12]} is active for recipe '{recipe}'"
    if against is not None:
        yield f"but it may not judge: {against}; a running daemon keeps the one that it has"
    else:
        yield "a running daemon takes it between two parts"


def rollback(settings: Settings, recipe: str) -> Iterator[str]:
    """Go back to what was active before. Raises BundleError where nothing is left that may judge."""
    folder = settings.models / recipe
    passed_over: list[str] = []
    for bundle_id in store.before(folder):
        try:
            bundle = bundles.load(folder / bundle_id)
            against = unfit(settings, recipe, bundle)
        except BundleError as error:
            against = str(error)
        if against is None:
            store.activate(folder, bundle_id, "rollback")
            yield from passed_over
            yield f"bundle {bundle_id[:12]} is active again for recipe '{recipe}'"
            return
        passed_over.append(f"passed over {bundle_id[:12]}: {against}")
    raise BundleError(
        "\n".join(
            [
                f"recipe '{recipe}' has nothing to go back to: no bundle that may judge here was active "
                f"before; `inspector models --recipe {recipe}` lists what there is",
                *passed_over,
            ]
        )
    )


def unfit(settings: Settings, recipe: str, bundle: Bundle) -> str | None:
    """Why this bundle may not judge on this station, None when it may. Raises ModelError."""
    try:
        refuse_other_roi(bundle, settings.recipe[recipe], recipe)
    except BundleError as error:
        return str(error)
    return calibrated_where(bundle, describe(resolve(settings.engine.device)), settings.engine.precision)


def _described(bundle: Bundle, active: bool) -> dict[str, Any]:
    t, p = bundle.threshold, bundle.provenance
    return {
        "id": bundle.id,
        "active": active,
        "parent": p.get("parent"),
        "created": t.created if t is not None else p.get("created"),
        "method": bundle.architecture.method,
        "size": bundle.architecture.size,
        "trained_on": len(p.get("trained_on", ())),
        "threshold": None
        if t is None
        else {
            "value": t.value,
            "n": t.n,
            "method": t.method,
            "target_rate": t.target_rate,
            "proven_rate": t.proven_rate,
            "confidence": t.confidence,
            "proven": t.proven,
            "device": t.device,
            "precision": t.precision,
        },
        "gate": _gate(bundle),
    }


def _gate(bundle: Bundle) -> dict[str, Any] | None:
    """What the nightly gate found, None for bundles that never stood before it."""
    try:
        found = json.loads(gate_file(bundle.path.parent, bundle.id).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _cells(row: dict[str, Any]) -> list[str]:
    threshold, gate = row["threshold"], row["gate"]
    created = row["created"]
    promise = "not calibrated"
    if threshold is not None:
        promise = f"≤ {threshold['proven_rate']:.2%} at {threshold['confidence']:.0%}, {threshold['n']} parts"
        promise += "" if threshold["proven"] else f", asked {threshold['target_rate']:.2%}"
        promise += "" if threshold["method"] == "order-statistic" else f" ({threshold['method']})"
    return [
        "active" if row["active"] else "",
        row["id"][:12],
        datetime.fromisoformat(created).astimezone().strftime("%Y-%m-%d %H:%M") if created else "-",
        f"{row['method']} {row['size']}",
        "-"
        if threshold is None
        else f"{threshold['value']:.6g} {threshold['device']} {threshold['precision']}",
        promise,
        "-" if gate is None else gate["summary"],
        (row["parent"] or "")[:12],
    ]
