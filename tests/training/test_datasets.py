"""The three layouts, as they lie on disk, and what is said when something is missing."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from inspector.errors import DataError
from training import datasets


def picture(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((8, 8), value, np.uint8))
    return path


@pytest.fixture
def mvtec(tmp_path):
    root = tmp_path / "parts" / "bolt"
    for k in range(3):
        picture(root / "train" / "good" / f"{k:03}.png")
    picture(root / "test" / "good" / "000.png")
    for defect in ("crack", "dent"):
        for k in range(2):
            picture(root / "test" / defect / f"{k:03}.JPG")
            picture(root / "ground_truth" / defect / f"{k:03}_mask.png", 255)
    (root / "readme.txt").write_text("not an image")
    return root


def test_an_mvtec_category_is_read(mvtec):
    (category,) = datasets.find(mvtec.parent)
    assert (category.dataset, category.name) == ("parts", "bolt")
    assert [p.name for p in category.normals] == ["000.png", "001.png", "002.png"]
    assert [s.defect for s in category.test] == ["crack", "crack", "dent", "dent", None]
    assert category.test[1].mask == mvtec / "ground_truth" / "crack" / "001_mask.png"
    assert category.test[1].path.name == "001.JPG"
    assert not category.test[4].defective
    assert category.test[4].mask is None


def test_a_category_is_the_same_whether_named_alone_or_within_its_set(mvtec):
    assert datasets.find(mvtec) == datasets.find(mvtec.parent)
    assert datasets.find(mvtec, dataset="mine")[0].dataset == "mine"


def test_validation_parts_are_normals_too(mvtec):
    extra = picture(mvtec / "validation" / "good" / "100.png")
    (category,) = datasets.find(mvtec)
    assert extra in category.normals
    assert len(category.normals) == 4
    assert extra not in [s.path for s in category.test]


def test_without_ground_truth_there_are_no_masks(mvtec):
    (mvtec / "ground_truth").rename(mvtec / "elsewhere")
    (category,) = datasets.find(mvtec)
    assert [s.mask for s in category.test] == [None] * 5
    assert sum(s.defective for s in category.test) == 4


def test_btad_is_read(tmp_path):
    root = tmp_path / "BTech" / "01"
    picture(root / "train" / "ok" / "0000.bmp")
    picture(root / "test" / "ok" / "0001.bmp")
    picture(root / "test" / "ko" / "0002.bmp")
    mask = picture(root / "ground_truth" / "ko" / "0002.png", 255)
    (category,) = datasets.find(tmp_path / "BTech")
    assert [(s.defect, s.mask) for s in category.test] == [("ko", mask), (None, None)]
    assert len(category.normals) == 1


@pytest.fixture
def visa(tmp_path):
    root = tmp_path / "VisA"
    lines = ["object,split,label,image,mask"]
    for name in ("candle", "pcb1"):
        for split, label, stem in (
            ("train", "normal", "0"),
            ("test", "normal", "1"),
            ("test", "anomaly", "2"),
        ):
            image = Path(name) / "Data" / "Images" / label / f"{stem}.JPG"
            picture(root / image)
            mask = Path(name) / "Data" / "Masks" / f"{stem}.png" if label == "anomaly" else ""
            if mask:
                picture(root / mask, 3)
            lines.append(f"{name},{split},{label},{image},{mask}")
    (root / "split_csv").mkdir()
    (root / "split_csv" / "1cls.csv").write_text("\n".join(lines) + "\n")
    return root


def test_visa_is_read(visa):
    candle, pcb = datasets.find(visa)
    assert (candle.dataset, candle.name, pcb.name) == ("VisA", "candle", "pcb1")
    assert [p.name for p in candle.normals] == ["0.JPG"]
    assert [(s.path.name, s.defect) for s in candle.test] == [("1.JPG", None), ("2.JPG", "anomaly")]
    assert datasets.read_mask(candle.test[1].mask).all()  # VisA's masks hold small numbers, not 255


def test_categories_are_chosen_by_name(visa):
    assert [c.name for c in datasets.find(visa, ["pcb1"])] == ["pcb1"]
    with pytest.raises(DataError, match=r"no category bottle; it has candle, pcb1"):
        datasets.find(visa, ["bottle"])


def break_mask(root):
    (root / "ground_truth" / "crack" / "001_mask.png").unlink()


def break_train(root):
    (root / "train" / "good").rename(root / "train" / "fine")


def break_test(root):
    (root / "test").rename(root / "tests")


def break_good(root):
    (root / "test" / "good" / "000.png").unlink()


def break_normals(root):
    for path in (root / "train" / "good").iterdir():
        path.rename(path.with_suffix(".raw"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (break_mask, r"test/crack/001\.JPG has no mask: expected .*ground_truth/crack/001_mask\.png"),
        (break_train, r"train/good is missing"),
        (break_test, r"bolt/test is missing"),
        (break_good, r"test/good holds no images: expected files named \.bmp"),
        (break_normals, r"train/good holds no images"),
    ],
)
def test_what_is_missing_is_named(mvtec, damage, message):
    damage(mvtec)
    with pytest.raises(DataError, match=message):
        datasets.find(mvtec.parent)


def test_a_set_needs_both_labels(mvtec):
    (mvtec / "test" / "good").rename(mvtec / "good")
    with pytest.raises(DataError, match="both good and defective"):
        datasets.find(mvtec)


def test_a_folder_without_categories_says_what_was_looked_for(tmp_path):
    with pytest.raises(DataError, match=r"holds no category; expected <category>/train/good"):
        datasets.find(tmp_path)
    with pytest.raises(DataError, match="is not a folder"):
        datasets.find(tmp_path / "none")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("object,split", "product,split", "lacks the columns object"),
        ("1.JPG", "9.JPG", r"line 3: .*9\.JPG does not exist"),
        ("candle,train,normal", "candle,train,anomaly", r"line 2: split 'train' with label 'anomaly'"),
    ],
)
def test_a_wrong_visa_split_names_its_line(visa, old, new, message):
    table = visa / "split_csv" / "1cls.csv"
    table.write_text(table.read_text().replace(old, new, 1))
    with pytest.raises(DataError, match=message):
        datasets.find(visa)


def test_a_mask_that_is_no_image_is_named(tmp_path):
    path = tmp_path / "000_mask.png"
    path.write_text("text")
    with pytest.raises(DataError, match=r"000_mask\.png cannot be read as a mask"):
        datasets.read_mask(path)


@pytest.mark.real_data
def test_real_sets_are_read_whole():
    if "INSPECTOR_TEST_DATA" not in os.environ:
        pytest.skip("INSPECTOR_TEST_DATA is not set")
    for category in datasets.find(Path(os.environ["INSPECTOR_TEST_DATA"])):
        assert all(datasets.read_mask(s.mask).ndim == 2 for s in category.test if s.mask)
