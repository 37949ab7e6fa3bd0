"""When the heartbeat of each camera's block was last written, which is due, and how long it stood still."""

from __future__ import annotations

from collections.abc import Collection, Iterable

WINDOW_S = 60.0  # the longest pause is that of the last one to two windows
LIMIT_S = 1.0  # still for longer means to the PLC: treat every part as reject


class Beats:
    """Times are time.monotonic(), given by the caller. No I/O."""

    def __init__(self, cameras: Iterable[str]) -> None:
        self._last: dict[str, float] = dict.fromkeys(cameras, float("-inf"))
        self._longest: dict[str, tuple[float, float]] = dict.fromkeys(self._last, (0.0, 0.0))
        self._window = float("-inf")

    def due(self, now: float, older_than_s: float, among: Collection[str]) -> str | None:
        """Of these cameras the one whose beat is the oldest, if it is that old."""
        camera = min(among, key=lambda name: self._last[name], default=None)
        return camera if camera is not None and now - self._last[camera] >= older_than_s else None

    def beaten(self, camera: str, now: float) -> float:
        """A beat has arrived. Returns how long it had been still, 0 at the first."""
        pause = now - self._last[camera]
        self._last[camera] = now
        if pause == float("inf"):
            return 0.0
        if now - self._window >= WINDOW_S:
            self._window = now
            self._longest = {name: (0.0, newer) for name, (newer, _) in self._longest.items()}
        newer, older = self._longest[camera]
        self._longest[camera] = (max(newer, pause), older)
        return pause

    def forget(self) -> None:
        """A new connection: how long the old one was dead says nothing of the pace of this one."""
        self._last = dict.fromkeys(self._last, float("-inf"))

    def longest_s(self, camera: str) -> float:
        """The longest pause of late."""
        return max(self._longest[camera])
