"""What happened, one JSON object a line, in the order in which it happened; times are time.monotonic_ns()."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

Event = dict[str, Any]


class History:
    """Append-only; every line is in the file before the next thing happens."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", buffering=1)
        self._lock = threading.Lock()

    def note(self, kind: str, **what: Any) -> int:
        """Write one event, now unless it says its own `t`; returns its time."""
        with self._lock:
            event = {"t": time.monotonic_ns(), "is": kind} | what
            self._file.write(json.dumps(event, separators=(",", ":")) + "\n")
        return int(event["t"])


def read(*paths: Path) -> list[Event]:
    """All events of these files, oldest first."""
    events = [json.loads(line) for path in paths if path.exists() for line in path.open()]
    return sorted(events, key=lambda event: event["t"])
