"""The bundles of one recipe over time: which was active when, and which one to go back to.

`<recipe>/history.jsonl` has a line for each activation, appended before `current` is swapped: what has been
active is always in it, and a line that was never followed by its swap does no harm.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from inspector.errors import BundleError
from inspector.model import bundle as bundles
from inspector.model.bundle import Bundle

HISTORY = "history.jsonl"
By = Literal["train", "calibrate", "retrain", "activate", "rollback", "before"]


@dataclass(frozen=True)
class Activation:
    """One bundle made the active one. time: ISO 8601, UTC; by: the command that did it."""

    time: str
    id: str
    by: str


def activate(recipe_dir: Path, bundle_id: str, by: By) -> None:
    """Make this bundle the recipe's active one, atomically, and remember it. Raises BundleError."""
    bundles.load(recipe_dir / bundle_id)
    now = current(recipe_dir)
    if now is not None and not history(recipe_dir):
        _append(recipe_dir, now, "before")
    _append(recipe_dir, bundle_id, by)
    bundles.activate(recipe_dir, bundle_id)


def current(recipe_dir: Path) -> str | None:
    """What `current` says, None without it or where it cannot be read."""
    try:
        return (recipe_dir / bundles.CURRENT).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None


def history(recipe_dir: Path) -> list[Activation]:
    """Every activation, oldest first. A line that a power cut has spoilt is left out."""
    try:
        lines = (recipe_dir / HISTORY).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        try:
            entry = json.loads(line)
            found.append(Activation(str(entry["time"]), str(entry["id"]), str(entry["by"])))
        except (ValueError, KeyError, TypeError):
            continue
    return found


def before(recipe_dir: Path) -> list[str]:
    """Ids that were active before the present one, the latest first; rollbacks are not activations.

    A, B, C and one rollback leave B active with A before it: going back twice does not return to C.
    """
    stack: list[str] = []
    for entry in history(recipe_dir):
        if entry.by == "rollback" and entry.id in stack:
            while stack[-1] != entry.id:
                stack.pop()
        elif not stack or stack[-1] != entry.id:
            stack.append(entry.id)
    now = current(recipe_dir)
    while stack and stack[-1] != now:  # was written down, and the swap never came
        stack.pop()
    return stack[-2::-1]


def find(recipe_dir: Path, prefix: str) -> Bundle:
    """The one bundle whose id begins so. Raises BundleError, naming those that there are."""
    there = bundles.listing(recipe_dir)
    matching = [bundle for bundle in there if prefix and bundle.id.startswith(prefix.lower())]
    if len(matching) == 1:
        return matching[0]
    known = ", ".join(bundle.id[:12] for bundle in matching or there) or "none"
    wanted = "a longer beginning of one of" if matching else "the beginning of one of"
    raise BundleError(f"no single bundle {prefix!r} in {recipe_dir}: expected {wanted} {known}")


def _append(recipe_dir: Path, bundle_id: str, by: By) -> None:
    path = recipe_dir / HISTORY
    now = datetime.now(UTC).isoformat(timespec="seconds")
    line = json.dumps({"time": now, "id": bundle_id, "by": by}) + "\n"
    try:
        with path.open("ab") as file:
            if file.tell() and not _ends_whole(path):
                line = "\n" + line  # the last one was cut short
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise BundleError(f"{path} cannot be written ({error.strerror})") from error


def _ends_whole(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
