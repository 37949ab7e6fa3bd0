"""A model on disk, <recipe>/<id>/: weights, bundle.json and, once calibrated, its scores.

bundle.json names the SHA-256 of the others, and the id is the SHA-256 of bundle.json: `sha256sum` verifies a
bundle by hand. A bundle is never changed; a new threshold makes a child beside it. `<recipe>/current` holds
the id of the active one.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from inspector.errors import BundleError
from inspector.model import sample as samples
from inspector.model.records import (
    Architecture,
    Preprocessing,
    Scoring,
    Threshold,
    from_json,
    to_json,
)
from inspector.model.sample import Sample

FORMAT = 1
WEIGHTS = "weights.safetensors"
SAMPLE = "calibration.safetensors"
RECORD = "bundle.json"
CURRENT = "current"
PIECE = 4 << 20  # bytes

__all__ = [
    "Architecture",
    "Bundle",
    "Preprocessing",
    "Sample",
    "Scoring",
    "Threshold",
    "activate",
    "active",
    "describe",
    "listing",
    "load",
    "sample",
    "weights",
    "with_threshold",
    "write",
]


@dataclass(frozen=True)
class Bundle:
    """A verified bundle. threshold is None until it is calibrated.

    provenance: JSON object with what it was trained from (image hashes, settings, metrics), parent id,
    library versions and time of creation.
    """

    id: str
    path: Path
    architecture: Architecture
    preprocessing: Preprocessing
    scoring: Scoring
    threshold: Threshold | None
    provenance: dict[str, Any]
    weights_sha256: str


def write(
    recipe_dir: Path,
    state_dict: Mapping[str, Tensor],
    architecture: Architecture,
    preprocessing: Preprocessing,
    scoring: Scoring,
    *,
    threshold: Threshold | None = None,
    provenance: Mapping[str, Any],
) -> Bundle:
    """Store a bundle, whole or not at all. Raises BundleError when it cannot be written."""
    tensors = {name: t.detach().cpu().contiguous().clone() for name, t in state_dict.items()}
    with _staged(recipe_dir) as folder:
        _write_in_pieces(folder / WEIGHTS, safetensors.torch.save(tensors))
        record = {
            "format": FORMAT,
            "architecture": to_json(architecture),
            "preprocessing": to_json(preprocessing),
            "scoring": to_json(scoring),
            "threshold": None if threshold is None else to_json(threshold),
            "provenance": dict(provenance),
            "weights": _described(folder / WEIGHTS),
        }
        return load(_finish(folder, record))


def with_threshold(
    bundle: Bundle,
    threshold: Threshold,
    evidence: Mapping[str, Any] | None = None,
    sample: Sample | None = None,
    *,
    parent: str | None = None,
) -> Bundle:
    """A child of the bundle with this threshold: same weights (hard-linked), new id, parent recorded.

    evidence: more about the calibration, kept in provenance["calibration"]. sample: the scores behind it,
    which drift is measured against. parent: another's id, where this bundle will not be one of the recipe's.
    Raises BundleError.
    """
    record = _read_record(bundle.path)
    provenance = record["provenance"] | {"parent": parent or bundle.id, "calibration": dict(evidence or {})}
    with _staged(bundle.path.parent) as folder:
        try:
            os.link(bundle.path / WEIGHTS, folder / WEIGHTS)
        except OSError:  # a file system without hard links
            shutil.copyfile(bundle.path / WEIGHTS, folder / WEIGHTS)
            _fsync(folder / WEIGHTS)
        kept = None
        if sample is not None:
            (folder / SAMPLE).write_bytes(samples.to_bytes(sample))
            _fsync(folder / SAMPLE)
            kept = _described(folder / SAMPLE)
        changes = {"threshold": to_json(threshold), "provenance": provenance, "calibration": kept}
        return load(_finish(folder, record | changes))


def load(path: Path) -> Bundle:
    """The bundle in this folder, verified to the last byte. Raises BundleError saying what is wrong."""
    bundle, record = describe(path), _read_record(path)
    _verify(path / WEIGHTS, record["weights"])
    if record.get("calibration") is not None:
        _verify(path / SAMPLE, record["calibration"])
    return bundle


def weights(bundle: Bundle) -> dict[str, Tensor]:
    """The network's state dict, on the CPU. Raises BundleError when the file has changed since load()."""
    try:
        data = (bundle.path / WEIGHTS).read_bytes()
    except OSError as error:
        raise _broken(bundle.path, f"{WEIGHTS} cannot be read ({error.strerror})") from error
    if hashlib.sha256(data).hexdigest() != bundle.weights_sha256:
        raise _broken(bundle.path, f"{WEIGHTS} has been altered")
    try:
        return safetensors.torch.load(data)
    except safetensors.SafetensorError as error:
        raise _broken(bundle.path, f"{WEIGHTS} is not a safetensors file ({error})") from error


def sample(bundle: Bundle) -> Sample | None:
    """The scores that the threshold was set on; None where they were not kept.

    Raises BundleError when the file has changed since load().
    """
    expected = _read_record(bundle.path).get("calibration")
    if expected is None:
        return None
    try:
        data = (bundle.path / SAMPLE).read_bytes()
    except OSError as error:
        raise _broken(bundle.path, f"{SAMPLE} cannot be read ({error.strerror})") from error
    if hashlib.sha256(data).hexdigest() != expected["sha256"]:
        raise _broken(bundle.path, f"{SAMPLE} has been altered")
    return samples.from_bytes(data)


def activate(recipe_dir: Path, bundle_id: str) -> None:
    """Make this bundle the recipe's active one, atomically. Raises BundleError when it is not intact."""
    load(recipe_dir / bundle_id)
    fresh = recipe_dir / f".{CURRENT}-{secrets.token_hex(4)}"
    try:
        fresh.write_text(bundle_id + "\n", encoding="ascii")
        _fsync(fresh)
        fresh.replace(recipe_dir / CURRENT)
        _fsync(recipe_dir)
    except OSError as error:
        raise BundleError(f"{recipe_dir / CURRENT} cannot be written ({error.strerror})") from error


def active(recipe_dir: Path) -> Bundle:
    """The recipe's active bundle, verified. Raises BundleError."""
    current = recipe_dir / CURRENT
    try:
        bundle_id = current.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        raise BundleError(
            f"{recipe_dir} has no active model (no file '{CURRENT}'); train one with `inspector train`"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{current} cannot be read ({error})") from error
    if not _is_id(bundle_id):
        raise BundleError(f"{current} holds {bundle_id[:80]!r}: expected a bundle id of 64 hex digits")
    return load(recipe_dir / bundle_id)


def listing(recipe_dir: Path) -> list[Bundle]:
    """The recipe's bundles, oldest first. Weights are not read; bundles that load() refuses for their
    record are left out.
    """
    if not recipe_dir.is_dir():
        return []
    found = []
    for path in recipe_dir.iterdir():
        if path.is_dir() and _is_id(path.name):
            try:
                found.append(describe(path))
            except BundleError:
                continue
    return sorted(found, key=lambda b: (str(b.provenance.get("created", "")), _calibrated(b), b.id))


def _calibrated(bundle: Bundle) -> str:
    return "" if bundle.threshold is None else bundle.threshold.created


def describe(path: Path) -> Bundle:
    """The bundle from its record alone; its other files are not looked at. Raises BundleError."""
    record, where = _read_record(path), str(path / RECORD)
    threshold = record["threshold"]
    return Bundle(
        id=path.name,
        path=path,
        architecture=from_json(Architecture, record["architecture"], f"{where}: architecture"),
        preprocessing=from_json(Preprocessing, record["preprocessing"], f"{where}: preprocessing"),
        scoring=from_json(Scoring, record["scoring"], f"{where}: scoring"),
        threshold=None if threshold is None else from_json(Threshold, threshold, f"{where}: threshold"),
        provenance=record["provenance"],
        weights_sha256=record["weights"]["sha256"],
    )


def _read_record(path: Path) -> dict[str, Any]:
    """bundle.json, verified against the folder's name."""
    if not path.is_dir():
        raise BundleError(
            f"bundle {path} does not exist; activate one that is in {path.parent}, or train one"
        )
    try:
        data = (path / RECORD).read_bytes()
    except FileNotFoundError:
        raise _broken(path, f"{RECORD} is missing") from None
    except OSError as error:
        raise _broken(path, f"{RECORD} cannot be read ({error.strerror})") from error
    found = hashlib.sha256(data).hexdigest()
    if found != path.name:
        raise _broken(path, f"{RECORD} has been altered or cut short: its SHA-256 is {found[:12]}…")
    record: dict[str, Any] = json.loads(data)  # its hash is right, so it is what write() wrote
    if record.get("format") != FORMAT:
        raise BundleError(
            f"bundle {path} has format {record.get('format')!r}, this version reads format {FORMAT}; "
            "use the version of inspector that wrote it, or train anew"
        )
    return record


def _described(file: Path) -> dict[str, Any]:
    return {"sha256": _sha256(file), "bytes": file.stat().st_size}


def _verify(file: Path, expected: Mapping[str, Any]) -> None:
    try:
        size = file.stat().st_size
        if size != expected["bytes"]:
            raise _broken(
                file.parent, f"{file.name} has {size} bytes, expected {expected['bytes']}: cut short?"
            )
        if _sha256(file) != expected["sha256"]:
            raise _broken(file.parent, f"{file.name} has been altered")
    except FileNotFoundError:
        raise _broken(file.parent, f"{file.name} is missing") from None
    except OSError as error:
        raise _broken(file.parent, f"{file.name} cannot be read ({error.strerror})") from error


def _broken(path: Path, what: str) -> BundleError:
    return BundleError(
        f"bundle {path} is not intact: {what}; restore the folder from a copy, activate another bundle, "
        "or train anew"
    )


@contextmanager
def _staged(recipe_dir: Path) -> Iterator[Path]:
    """A folder beside the bundles that disappears unless _finish() moved it into place."""
    folder = recipe_dir / f".new-{secrets.token_hex(8)}"
    try:
        folder.mkdir(parents=True)
        yield folder
    except (OSError, safetensors.SafetensorError) as error:
        raise BundleError(f"no bundle can be written to {recipe_dir} ({error})") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _finish(folder: Path, record: Mapping[str, Any]) -> Path:
    """Write bundle.json and rename the folder to the id that this gives."""
    data = json.dumps(record, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    (folder / RECORD).write_bytes(data)
    _fsync(folder / RECORD)
    _fsync(folder)
    final = folder.parent / hashlib.sha256(data).hexdigest()
    try:
        folder.rename(final)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        # the same bundle is there already; load() will say so if it is not intact
    _fsync(folder.parent)
    return final


def _write_in_pieces(path: Path, data: bytes) -> None:
    """Durable, PIECE after PIECE: a row committed on the same disk meanwhile waits for one of them."""
    with path.open("wb") as file:
        for start in range(0, len(data), PIECE):
            file.write(memoryview(data)[start : start + PIECE])
            file.flush()
            os.fdatasync(file.fileno())


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_id(name: str) -> bool:
    return len(name) == 64 and set(name) <= set("0123456789abcdef")
