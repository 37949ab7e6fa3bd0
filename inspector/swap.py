"""Another bundle in a running daemon: made ready beside the line, taken between two parts.

Each engine that comes this way lives in a thread of its own, in which it is loaded, warmed up and tested and
in which it scores: CUDA graphs and compiled code want the thread that made them. The decision loop hands it
a frame and waits, as it would for its own. Until the new one has given its known answer, the old one judges;
one that cannot be loaded, may not judge here or fails its self-test never does.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from inspector.audit.log import AuditLog
from inspector.channel import Channel, Judge, Picture, Scored, Scorer
from inspector.errors import InspectorError, LogError, ModelError
from inspector.journal import Journal
from inspector.judges import judge_of
from inspector.model.bundle import CURRENT
from inspector.model.converted import give_up
from inspector.settings import Settings

Stamp = tuple[int, int]


class Owned:
    """A scorer and the thread that it lives in."""

    def __init__(self, scorer: Scorer, thread: ThreadPoolExecutor) -> None:
        self._scorer = scorer
        self._thread = thread

    @property
    def together(self) -> int:
        """See Scorer."""
        return self._scorer.together

    def warm_up(self) -> None:
        """See Scorer."""
        self._thread.submit(self._scorer.warm_up).result()

    def keep_warm(self) -> None:
        """See Scorer."""
        self._thread.submit(self._scorer.keep_warm).result()

    def self_test(self) -> None:
        """See Scorer."""
        self._thread.submit(self._scorer.self_test).result()

    def score_first(self, images: Sequence[Picture], left_ms: float) -> Sequence[Scored]:
        """See Scorer."""
        return self._thread.submit(self._scorer.score_first, images, left_ms).result()

    def close(self) -> None:
        """Let the thread end."""
        self._thread.shutdown(wait=False)


@dataclass(frozen=True)
class _Coming:
    """A bundle that is being made ready."""

    bundle: str
    thread: ThreadPoolExecutor
    judge: Future[Judge]


class Swapper:
    """Watches what `current` of each recipe names; runs in the decision loop, but for the making ready."""

    def __init__(self, settings: Settings, channels: list[Channel], log: AuditLog, journal: Journal) -> None:
        """The channels have their judges."""
        self._settings = settings
        self._log = log
        self._journal = journal
        self._channels: dict[str, list[Channel]] = {}
        for channel in channels:
            self._channels.setdefault(channel.settings.recipe, []).append(channel)
        # what `current` names is tried once each time that it is written, even if it names the same as
        # before: whoever activates a bundle anew has removed what spoke against it
        self._stamps: dict[str, Stamp | None] = {}
        for name, them in self._channels.items():
            stamp = _stamp(self._file(name))  # before it is read: what is written in between is noticed
            if them[0].judge.bundle in (None, self._named(name)):  # the start has tried that
                self._stamps[name] = stamp
        self._coming: dict[str, _Coming] = {}

    def look(self) -> None:
        """Take what is ready; begin with what is new, one bundle at a time."""
        for recipe in list(self._coming):
            if self._coming[recipe].judge.done():
                self._take(recipe, self._coming.pop(recipe))
        for recipe in self._channels:
            if not self._coming:
                self._notice(recipe)

    def close(self) -> None:
        """Wait for nothing."""
        give_up()
        for coming in self._coming.values():
            coming.thread.shutdown(wait=False, cancel_futures=True)

    def _notice(self, recipe: str) -> None:
        stamp = _stamp(self._file(recipe))
        if stamp is None or stamp == self._stamps.get(recipe):
            return
        self._stamps[recipe] = stamp
        named = self._named(recipe)
        if named is None:
            return
        if named == self._channels[recipe][0].judge.bundle:
            self._refuse(recipe, "")
            return
        thread = ThreadPoolExecutor(1, thread_name_prefix=f"model {recipe}")
        self._coming[recipe] = _Coming(
            named, thread, thread.submit(judge_of, self._settings, self._log, recipe)
        )

    def _take(self, recipe: str, coming: _Coming) -> None:
        try:
            judge = coming.judge.result()
            if against := judge.problem or judge.uncalibrated:
                raise ModelError(against)
        except LogError as error:  # it could not be registered: again when the log can be written
            self._stamps[recipe] = None
            self._give_up(recipe, coming, error)
        except InspectorError as error:
            self._give_up(recipe, coming, error)
        else:
            self._swap(recipe, replace(judge, scorer=Owned(judge.scorer, coming.thread)))

    def _swap(self, recipe: str, judge: Judge) -> None:
        old = self._channels[recipe][0].judge
        for channel in self._channels[recipe]:
            with channel.lock:  # an answer names one bundle and its threshold
                channel.judge = judge
            channel.model_works()
        self._refuse(recipe, "")
        if isinstance(old.scorer, Owned):
            old.scorer.close()
        self._journal.note(
            "model_swapped",
            "info",
            f"recipe '{recipe}': bundle {judge.bundle} judges from now on, in place of {old.bundle}",
        )

    def _give_up(self, recipe: str, coming: _Coming, error: InspectorError) -> None:
        coming.thread.shutdown(wait=False)
        now = self._channels[recipe][0].judge.bundle
        message = (
            f"recipe '{recipe}': bundle {coming.bundle[:12]} is active and is not taken, "
            f"{now[:12] if now else 'no bundle'} goes on: {error}"
        )
        self._journal.note("model_refused", "error", message)
        self._refuse(recipe, message)

    def _refuse(self, recipe: str, message: str) -> None:
        for channel in self._channels[recipe]:
            channel.model_refused = message

    def _file(self, recipe: str) -> Path:
        return self._settings.models / recipe / CURRENT

    def _named(self, recipe: str) -> str | None:
        try:
            return self._file(recipe).read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            return None


def _stamp(file: Path) -> Stamp | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino
