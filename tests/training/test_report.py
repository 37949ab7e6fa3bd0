import base64
import json
import logging
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from inspector.model import bundle as bundles
from tests.training.test_fit import OPTIONS, TINY
from training import fit
from training.data import list_images
from training.report import path_of

ROOT = Path(__file__).parents[2]


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    """Twelve pictures; one has a name that is markup."""
    rng, folder = np.random.default_rng(0), tmp_path / "good"
    folder.mkdir()
    for i in range(12):
        image = rng.integers(40, 60, (48, 48)).astype(np.uint8)
        image[10 + i % 3 : 30, 20:30] = 200
        cv2.imwrite(str(folder / f"{i:02}<b>.png"), image)
    return list_images(folder)


def pictures(page: str) -> list[np.ndarray]:
    """Every picture of the page, decoded."""
    found = re.findall(r'<img alt="[^"]*" src="data:image/(?:png|jpeg);base64,([^"]+)">', page)
    assert len(found) == page.count("<img")
    return [cv2.imdecode(np.frombuffer(base64.b64decode(one), np.uint8), cv2.IMREAD_COLOR) for one in found]


@pytest.mark.parametrize("memory", [True, False])
@pytest.mark.parametrize("held_out", [0.25, 0.0])
def test_a_training_leaves_its_report_beside_the_bundle(
    images: list[Path], tmp_path: Path, memory: bool, held_out: float
) -> None:
    options = replace(OPTIONS, architecture=replace(TINY, memory=memory), held_out=held_out)
    bundle = fit.train(images, tmp_path / "models" / "<nut>", options, progress=False)
    assert path_of(bundle) == tmp_path / "models" / "<nut>" / "reports" / bundle.id / "report.html"
    assert [b.id for b in bundles.listing(tmp_path / "models" / "<nut>")] == [bundle.id]
    page = path_of(bundle).read_text()
    assert "&lt;nut&gt;" in page
    assert "<nut>" not in page
    assert "<b>" not in page
    assert all(picture.std() > 1 for picture in pictures(page))
    parts = 3 if held_out else 8
    assert len(pictures(page)) == 2 + 3 * (parts + 8)  # two charts; part, reconstruction and map of each
    numbers = json.loads(path_of(bundle).with_name("report.json").read_text())
    assert numbers["bundle"] == bundle.id
    assert len(numbers["curve"]) == OPTIONS.epochs
    assert (numbers["memory"] is not None) == memory == ("slots_first" in numbers["curve"][0])
    assert numbers["synthetic"] == bundle.provenance["synthetic"]
    if held_out:
        assert numbers["scores"]["normal"] == bundle.provenance["held_out_scores"]
        assert f"{numbers['synthetic']['image_auroc']:.3f}" in page
    else:
        assert numbers["synthetic"] is None
        assert "No parts were held out" in page


def test_no_report_where_none_is_wanted(images: list[Path], tmp_path: Path) -> None:
    bundle = fit.train(images, tmp_path / "m", OPTIONS, progress=False, reports=False)
    assert not path_of(bundle).parent.parent.exists()
    assert 0 <= bundle.provenance["synthetic"]["image_auroc"] <= 1


def test_a_report_that_cannot_be_written_costs_no_training(
    images: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "reports").touch()
    bundle = fit.train(images, tmp_path / "m", OPTIONS, progress=False)
    assert bundles.load(bundle.path).id == bundle.id
    (warning,) = (r for r in caplog.records if r.levelno >= logging.WARNING)
    assert "the training report cannot be written to" in warning.getMessage()


def test_without_matplotlib_training_goes_on_and_says_so_once(images: list[Path], tmp_path: Path) -> None:
    """In a process of its own: matplotlib cannot be imported, and nothing else of a station is."""
    script = f"""
import sys
from pathlib import Path
sys.modules["matplotlib"] = None
from training import fit
from training.report import path_of
from tests.training.test_fit import OPTIONS
images = sorted(Path({str(images[0].parent)!r}).iterdir())
print(path_of(fit.train(images, Path({str(tmp_path / "m")!r}), OPTIONS, progress=False)))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("matplotlib is not installed") == 1
    page = Path(done.stdout.strip()).read_text()
    assert len(pictures(page)) == 3 * (2 + 8)
