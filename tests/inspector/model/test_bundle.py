import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from inspector.errors import BundleError
from inspector.model import bundle as bundles
from inspector.model.bundle import Bundle, Sample, Threshold
from inspector.model.network import build


def test_round_trip(stored: Bundle, recipe: Path) -> None:
    assert bundles.load(recipe / stored.id) == stored
    assert stored.preprocessing.roi == (1, 2, 60, 50)
    assert stored.threshold is None
    network = build(stored.architecture)
    network.load_state_dict(bundles.weights(stored))
    torch.manual_seed(0)
    for name, tensor in build(stored.architecture).state_dict().items():
        assert torch.equal(network.state_dict()[name], tensor), name


def test_the_id_can_be_verified_with_sha256sum(stored: Bundle) -> None:
    record = (stored.path / "bundle.json").read_bytes()
    assert hashlib.sha256(record).hexdigest() == stored.id == stored.path.name
    weights = (stored.path / "weights.safetensors").read_bytes()
    assert json.loads(record)["weights"]["sha256"] == hashlib.sha256(weights).hexdigest()


def test_the_same_contents_have_the_same_id(stored: Bundle, recipe: Path) -> None:
    again = bundles.write(
        recipe,
        bundles.weights(stored),
        stored.architecture,
        stored.preprocessing,
        stored.scoring,
        provenance=stored.provenance,
    )
    assert again == stored
    assert [p.name for p in recipe.iterdir()] == [stored.id]


def test_a_threshold_makes_a_child(stored: Bundle, threshold: Threshold, recipe: Path) -> None:
    child = bundles.with_threshold(stored, threshold, {"images": ["x.png"]})
    assert child.id != stored.id
    assert child.threshold == threshold
    assert child.provenance["parent"] == stored.id
    assert child.provenance["images"] == ["a", "b"]
    assert child.provenance["calibration"] == {"images": ["x.png"]}
    assert (child.path / "weights.safetensors").samefile(stored.path / "weights.safetensors")
    assert bundles.load(stored.path) == stored
    assert [b.id for b in bundles.listing(recipe)] == [stored.id, child.id]


def test_the_scores_behind_a_threshold_are_kept_and_verified(stored: Bundle, threshold: Threshold) -> None:
    assert bundles.sample(stored) is None
    kept = Sample(np.array([0.3, 0.1, 0.2]), np.array([0.5, 0.5, 0.4]), np.array([]))
    child = bundles.with_threshold(stored, threshold, sample=kept)
    back = bundles.sample(bundles.load(child.path))
    assert back is not None
    assert [array.tolist() for array in (back.scores, back.brightness, back.sharpness)] == [
        [0.3, 0.1, 0.2],
        [0.5, 0.5, 0.4],
        [],
    ]
    assert back.highlight.size == 0
    assert bundles.sample(bundles.with_threshold(child, replace(threshold, n=3))) is None
    file = child.path / "calibration.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    for ask in (bundles.load, lambda path: bundles.sample(child)):
        with pytest.raises(BundleError, match=r"calibration\.safetensors has been altered"):
            ask(child.path)
    file.unlink()
    with pytest.raises(BundleError, match=r"calibration\.safetensors is missing"):
        bundles.load(child.path)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-10] ^= 1
    path.write_bytes(data)


def _edit(path: Path) -> None:
    path.write_text(path.read_text().replace('"sigma": 2.0', '"sigma": 2.5'))


@pytest.mark.parametrize(
    ("file", "damage", "word"),
    [
        ("weights.safetensors", Path.unlink, "weights.safetensors is missing"),
        ("weights.safetensors", _cut, "bytes, expected"),
        ("weights.safetensors", _flip, "weights.safetensors has been altered"),
        ("bundle.json", Path.unlink, "bundle.json is missing"),
        ("bundle.json", _cut, "bundle.json has been altered or cut short"),
        ("bundle.json", _edit, "bundle.json has been altered or cut short"),
    ],
)
def test_a_damaged_bundle_is_refused(
    stored: Bundle, recipe: Path, file: str, damage: Callable[[Path], None], word: str
) -> None:
    bundles.activate(recipe, stored.id)
    damage(stored.path / file)
    for attempt in (
        lambda: bundles.load(stored.path),
        lambda: bundles.active(recipe),
        lambda: bundles.activate(recipe, stored.id),
    ):
        with pytest.raises(BundleError, match=word):
            attempt()


def test_weights_altered_after_loading_are_refused(stored: Bundle) -> None:
    _flip(stored.path / "weights.safetensors")
    with pytest.raises(BundleError, match="has been altered"):
        bundles.weights(stored)


def test_a_renamed_bundle_is_refused(stored: Bundle, recipe: Path) -> None:
    shutil.copytree(stored.path, recipe / ("0" * 64))
    with pytest.raises(BundleError, match="altered"):
        bundles.load(recipe / ("0" * 64))


def rewritten(stored: Bundle, change: Callable[[dict[str, object]], object]) -> Path:
    """A bundle whose hashes are right and whose record is not what this version writes."""
    record = json.loads((stored.path / "bundle.json").read_text())
    change(record)
    data = json.dumps(record).encode()
    path = stored.path.parent / hashlib.sha256(data).hexdigest()
    shutil.copytree(stored.path, path)
    (path / "bundle.json").write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda r: r.update(format=2), "format 2, this version reads format 1"),
        (lambda r: r["architecture"].update(wings=2), r"architecture\.wings: unknown key"),
        (lambda r: r.update(threshold={"value": 1.0}), r"threshold\.target_rate: missing key"),
        (lambda r: r["architecture"].update(dim="wide"), "architecture: a value has the wrong type"),
    ],
)
def test_another_versions_bundle_is_refused(
    stored: Bundle, change: Callable[[dict[str, object]], object], word: str
) -> None:
    with pytest.raises(BundleError, match=word):
        bundles.load(rewritten(stored, change))


def test_activation(stored: Bundle, threshold: Threshold, recipe: Path) -> None:
    with pytest.raises(BundleError, match="has no active model"):
        bundles.active(recipe)
    bundles.activate(recipe, stored.id)
    assert bundles.active(recipe) == stored
    child = bundles.with_threshold(stored, threshold)
    bundles.activate(recipe, child.id)
    assert bundles.active(recipe) == child
    with pytest.raises(BundleError, match="does not exist"):
        bundles.activate(recipe, "f" * 64)
    assert bundles.active(recipe) == child
    (recipe / "current").write_text("latest")
    with pytest.raises(BundleError, match=r"holds 'latest'.*64 hex digits"):
        bundles.active(recipe)


def test_listing_passes_over_what_is_no_bundle(stored: Bundle, recipe: Path) -> None:
    (recipe / ("e" * 64)).mkdir()
    (recipe / "training").mkdir()
    (recipe / ".new-1234").mkdir()
    assert bundles.listing(recipe) == [stored]
    assert bundles.listing(recipe / "nowhere") == []


def test_an_unwritable_place_leaves_nothing(stored: Bundle, threshold: Threshold, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BundleError, match="no bundle can be written"):
        bundles.write(
            tmp_path / "file" / "recipe",
            bundles.weights(stored),
            stored.architecture,
            stored.preprocessing,
            stored.scoring,
            provenance={},
        )
    before = sorted(stored.path.parent.iterdir())
    (stored.path / "weights.safetensors").unlink()
    with pytest.raises(BundleError):
        bundles.with_threshold(stored, replace(threshold, value=1.0))
    assert sorted(stored.path.parent.iterdir()) == before
