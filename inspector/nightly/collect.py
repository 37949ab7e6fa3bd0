"""Tonight's pictures: from the log, its labels and the commissioning set, with the reason for each."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import chain
from pathlib import Path
from typing import Any

from tqdm import tqdm

from inspector.audit.frames import FrameStore
from inspector.audit.log import AuditLog
from inspector.audit.records import Part
from inspector.errors import LogError, TooFewPartsError
from inspector.nightly import commissioning
from inspector.settings import Settings
from inspector.verdict import Verdict
from training.calibrate import parts_needed
from training.data import list_images, read_hashed
from training.selection import Distinct, Passed, kept_apart, spread, well_under

CALIBRATION = "calibration"  # one of those that `inspector calibrate` was given
GOLDEN_SET = "of the golden set"  # why a picture is left out
GONE = "missing or altered"  # … or this
PASSED = "passed"  # by the model's word alone
COMMISSIONING = "commissioning"  # of the first training


@dataclass(frozen=True)
class Picture:
    """One picture and why it was taken: PASSED, "labelled normal", "labelled defect", COMMISSIONING, or
    CALIBRATION.
    """

    path: str
    sha256: str
    why: str
    inspection: int | None = None

    @property
    def file(self) -> Path:
        """Where it is."""
        return Path(self.path)


@dataclass
class Selection:
    """What is learned from, what is kept apart for calibration and gate, and the defects that are known."""

    learn: list[Picture] = field(default_factory=list)
    apart: list[Picture] = field(default_factory=list)
    defects: list[Picture] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)

    def manifest(self, **about: object) -> bytes:
        """All of it as JSON."""
        lists = {name: [asdict(one) for one in getattr(self, name)] for name in ("learn", "apart", "defects")}
        content: dict[str, Any] = {**about, "left_out": dict(self.left_out), **lists}
        return json.dumps(content, indent=1, ensure_ascii=False).encode() + b"\n"


def select(settings: Settings, recipe: str, log: AuditLog, seed: int, *, progress: bool = True) -> Selection:
    """Choose tonight's pictures. Raises LogError, and TooFewPartsError when they are too few."""
    wanted = settings.retrain
    since = datetime.now(UTC) - timedelta(days=wanted.days)
    parts = log.parts(recipe=recipe, since=since, framed=True)
    chosen = _Chooser(settings, recipe, progress)
    by_label = {said: [p for p in parts if p.inspection.label == said] for said in ("normal", "defect")}
    chosen.defects(log.parts(recipe=recipe, label="defect"))
    passes = [p for p in parts if p.inspection.label is None and p.inspection.verdict == Verdict.PASS]
    told = {p.inspection.id: p for p in passes}
    records = [_passed(part) for part in passes]
    apart = [record for record in records if kept_apart(record.sha256)]
    learn = [record for record in records if not kept_apart(record.sha256)]
    under = well_under(learn)
    chosen.selection.left_out["near the threshold"] += len(learn) - len(under)

    asked = settings.recipe[recipe]
    most = max(parts_needed(asked.false_reject_rate, asked.confidence), wanted.parts // 2)
    first = commissioning.pictures(commissioning.folder(settings, recipe))
    given = commissioning.pictures(commissioning.Calibration(settings, recipe).folder)
    spare = [] if given else [p for p in first if kept_apart(p[1])]  # else they set the threshold
    taught = [p for p in first if p not in spare]
    floor = round(wanted.floor * wanted.parts)
    chosen.kept(given, chosen.selection.apart, len(given), CALIBRATION)
    chosen.never({sha256 for _, sha256 in given}, "of the calibration")
    chosen.kept(taught[:floor], chosen.selection.learn, wanted.parts, COMMISSIONING)
    chosen.labelled(by_label["normal"], wanted.parts, most)
    chosen.take((told[r.key] for r in spread(under, seed)), chosen.selection.learn, wanted.parts, "learning")
    chosen.kept(taught[floor:], chosen.selection.learn, wanted.parts, COMMISSIONING)
    chosen.kept(spare, chosen.selection.apart, most, COMMISSIONING)
    chosen.take((told[r.key] for r in spread(apart, seed)), chosen.selection.apart, most, "kept apart")
    refuse_too_few(chosen.selection, wanted.min_parts)
    return chosen.selection


def refuse_too_few(selection: Selection, fewest: int) -> None:
    """Raise TooFewPartsError where no night can be made of these."""
    learn, apart = len(selection.learn), len(selection.apart)
    if learn + apart < fewest or learn < 2 or apart < 2:
        left = ", ".join(f"{count} {why}" for why, count in selection.left_out.items() if count) or "none"
        raise TooFewPartsError(
            f"{learn + apart} normal parts with a picture are too few to train anew ({learn} to learn from, "
            f"{apart} kept apart): expected retrain.min_parts = {fewest} within retrain.days; left out: "
            f"{left}"
        )


def _passed(part: Part) -> Passed:
    row = part.inspection
    assert part.frame is not None and row.score is not None  # noqa: S101 - of a pass, by its query
    return Passed(row.id, row.time.timestamp(), row.score, row.bundle or "", part.frame.sha256)


class _Chooser:
    """Reads pictures in the order given, and takes those that can be read and are unlike the others."""

    def __init__(self, settings: Settings, recipe: str, progress: bool) -> None:
        self.selection = Selection()
        self._frames = FrameStore(settings.frames)
        self._distinct = Distinct()
        golden = (place for place in commissioning.golden(settings, recipe) if place.is_dir())
        self._never: dict[str, str] = {}
        self._progress = progress
        self.never((read_hashed(file)[1] for place in golden for file in list_images(place)), GOLDEN_SET)

    def never(self, pictures: Iterable[str], why: str) -> None:
        """From here on no picture with one of these SHA-256 is taken."""
        self._never |= dict.fromkeys(pictures, why)

    def defects(self, parts: Iterable[Part]) -> None:
        """Every one that somebody has called a defect, whatever it is like."""
        for part in parts:
            if self._read(part) is not None:
                picture = self._picture(part, "labelled defect")
                self.never([picture.sha256], GOLDEN_SET)
                self.selection.defects.append(picture)

    def labelled(self, parts: Iterable[Part], learn: int, apart: int) -> None:
        """What somebody has called normal, the newest first: learned, but for a pass that is kept apart."""
        for part in reversed(list(parts)):
            assert part.frame is not None  # noqa: S101 - the caller has seen to it
            here = kept_apart(part.frame.sha256) and part.inspection.verdict == Verdict.PASS
            place, most = (self.selection.apart, apart) if here else (self.selection.learn, learn)
            self._take(part, place, most, "labelled normal")

    def kept(self, files: Iterable[tuple[Path, str]], place: list[Picture], most: int, why: str) -> None:
        """Pictures that people have chosen; altered ones are left out."""
        for file, sha256 in files:
            if len(place) >= most:
                return
            image, found = read_hashed(file)
            if found != sha256:
                self.selection.left_out["altered"] += 1
            elif self._allowed(sha256) and (self._new(image) or why == CALIBRATION):  # no sample is thinned
                place.append(Picture(str(file), sha256, why))

    def take(self, parts: Iterator[Part], place: list[Picture], most: int, title: str) -> None:
        """Passes, until there are enough."""
        total = max(0, most - len(place))
        with tqdm(total=total, desc=title, unit="part", leave=False, disable=not self._progress) as bar:
            for part in chain(parts):
                if len(place) >= most:
                    return
                bar.update(self._take(part, place, most, PASSED))

    def _take(self, part: Part, place: list[Picture], most: int, why: str) -> bool:
        if len(place) >= most:
            return False
        image = self._read(part)
        if image is None or not self._allowed(part.frame.sha256 if part.frame else ""):
            return False
        if not self._new(image) and why == PASSED:  # what a person has pointed at counts, however small it is
            return False
        place.append(self._picture(part, why))
        return True

    def _allowed(self, sha256: str) -> bool:
        if sha256 not in self._never:
            return True
        self.selection.left_out[self._never[sha256]] += 1
        return False

    def _new(self, image: Any) -> bool:
        if self._distinct.add(image):
            return True
        self.selection.left_out["near-duplicates"] += 1
        return False

    def _read(self, part: Part) -> Any:
        try:
            return None if part.frame is None else self._frames.read(part.frame)
        except LogError:  # gone or altered: it cannot be learned from
            self.selection.left_out[GONE] += 1
            return None

    def _picture(self, part: Part, why: str) -> Picture:
        assert part.frame is not None  # noqa: S101 - it has been read
        path = self._frames.root / part.frame.path
        return Picture(str(path), part.frame.sha256, why, part.inspection.id)


def sha256_of(manifest: bytes) -> str:
    """What the bundle's provenance names."""
    return hashlib.sha256(manifest).hexdigest()
