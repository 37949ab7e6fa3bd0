"""Labelled sets for measuring: normal parts to train on, a test set with labels and masks.

Three layouts are read: MVTec AD (train/good, test/<defect>, ground_truth/<defect>/<name>_mask.png; where
there is a validation/good, its parts are normals too), BTAD (`ok` and `ko`, masks named like their image) and
VisA (split_csv/1cls.csv beside the images).
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from inspector.errors import DataError
from training.data import list_images

GOOD = ("good", "ok")
VISA_SPLIT = Path("split_csv") / "1cls.csv"
VISA_COLUMNS = ("object", "split", "label", "image", "mask")
LAYOUTS = "expected <category>/train/good (MVTec AD), <category>/train/ok (BTAD) or split_csv/1cls.csv (VisA)"


@dataclass(frozen=True)
class Sample:
    """One image of the test set; no defect: a good part; no mask: unknown where the defect is."""

    path: Path
    defect: str | None
    mask: Path | None = None

    @property
    def defective(self) -> bool:
        """The label."""
        return self.defect is not None


@dataclass(frozen=True)
class Category:
    """One product of a set. normals: everything that may be learned from or calibrated on."""

    dataset: str
    name: str
    normals: tuple[Path, ...]
    test: tuple[Sample, ...]


def find(root: Path, names: Sequence[str] = (), dataset: str | None = None) -> list[Category]:
    """The categories under root (or root itself, if it is one), in order of name; all, or the named ones.

    dataset: what the set is called in results; by default the folder that holds the categories.
    Raises DataError where a folder, an image or a mask that the layout asks for is missing.
    """
    if not root.is_dir():
        raise DataError(f"{root} is not a folder; {LAYOUTS}.")
    if (root / VISA_SPLIT).is_file():
        visa = _visa(root, dataset or root.resolve().name)
        return [visa[name] for name in _chosen(names, visa, root)]
    if (root / "train").is_dir():
        folders = {root.resolve().name: root}
    else:
        folders = {child.name: child for child in sorted(root.iterdir()) if (child / "train").is_dir()}
    if not folders:
        raise DataError(f"{root} holds no category; {LAYOUTS}.")
    return [
        _mvtec(folders[name], name, dataset or folders[name].resolve().parent.name)
        for name in _chosen(names, folders, root)
    ]


def read_mask(path: Path) -> NDArray[np.bool_]:
    """(H, W), True where defective: every value but 0 counts (VisA numbers its defects). Raises DataError."""
    mask = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if mask is None:
        raise DataError(f"{path} cannot be read as a mask: expected an image with 0 where the part is good.")
    return np.asarray(mask != 0)


def _chosen(names: Sequence[str], available: Iterable[str], root: Path) -> list[str]:
    known = sorted(available)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise DataError(f"{root} has no category {', '.join(unknown)}; it has {', '.join(known)}.")
    return list(names) or known


def _mvtec(root: Path, name: str, dataset: str) -> Category:
    normals = list_images(_good_folder(root / "train"))
    extra = root / "validation"
    if extra.is_dir():
        normals += list_images(_good_folder(extra))
    test = root / "test"
    if not test.is_dir():
        raise DataError(
            f"{test} is missing: expected one folder for each defect, and good (or ok) beside them."
        )
    samples: list[Sample] = []
    for folder in sorted(child for child in test.iterdir() if child.is_dir()):
        if folder.name in GOOD:
            samples += [Sample(path, None) for path in list_images(folder)]
        else:
            samples += _defective(folder, root / "ground_truth")
    return _complete(Category(dataset, name, tuple(normals), tuple(samples)), test)


def _defective(folder: Path, ground_truth: Path) -> list[Sample]:
    images = list_images(folder)
    if not ground_truth.is_dir():  # a set without masks: image metrics only
        return [Sample(path, folder.name) for path in images]
    masks = {path.stem.removesuffix("_mask"): path for path in list_images(ground_truth / folder.name)}
    lacking = [path for path in images if path.stem not in masks]
    if lacking:
        wanted = ground_truth / folder.name / f"{lacking[0].stem}_mask.png"
        raise DataError(
            f"{lacking[0]} has no mask: expected {wanted} ({len(lacking)} such in {folder.name})."
        )
    return [Sample(path, folder.name, masks[path.stem]) for path in images]


def _visa(root: Path, dataset: str) -> dict[str, Category]:
    table = root / VISA_SPLIT
    with table.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        missing = [column for column in VISA_COLUMNS if column not in (reader.fieldnames or ())]
        if missing:
            raise DataError(
                f"{table} lacks the columns {', '.join(missing)}; expected {', '.join(VISA_COLUMNS)}."
            )
        rows = list(reader)
    normals: dict[str, list[Path]] = {}
    tests: dict[str, list[Sample]] = {}
    for line, row in enumerate(rows, start=2):
        where = f"{table}, line {line}"
        name, image = row["object"], _existing(root, row["image"], where)
        normal = row["label"] == "normal"
        if row["split"] == "train" and normal:
            normals.setdefault(name, []).append(image)
        elif row["split"] == "test":
            mask = None if normal or not row["mask"] else _existing(root, row["mask"], where)
            tests.setdefault(name, []).append(Sample(image, None if normal else row["label"], mask))
        else:
            found = f"split {row['split']!r} with label {row['label']!r}"
            raise DataError(f"{where}: {found}; expected train with normal, or test with either label.")
    names = sorted({*normals, *tests})
    return {
        name: _complete(
            Category(dataset, name, tuple(normals.get(name, ())), tuple(tests.get(name, ()))), table
        )
        for name in names
    }


def _existing(root: Path, relative: str, where: str) -> Path:
    path = root / relative
    if not path.is_file():
        raise DataError(f"{where}: {path} does not exist; expected a path relative to {root}.")
    return path


def _good_folder(folder: Path) -> Path:
    for name in GOOD:
        if (folder / name).is_dir():
            return folder / name
    raise DataError(f"{folder / GOOD[0]} is missing: expected a folder of normal parts (good or ok).")


def _complete(category: Category, where: Path) -> Category:
    if not category.normals:
        raise DataError(f"{where}: category {category.name} has no normal parts to train on.")
    if {sample.defective for sample in category.test} != {True, False}:
        raise DataError(f"{where}: category {category.name} needs both good and defective test images.")
    return category
