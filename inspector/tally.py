"""What the PLC has been given since the daemon started: counts and latencies, for people and alarms."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import isfinite
from typing import TYPE_CHECKING, Final

from inspector.verdict import Decision, Reason, Verdict

if TYPE_CHECKING:
    from inspector.audit.records import Inspection

LATENCIES: Final = 1000  # inspections that p50 and p99 are taken from
LATE_IN_A_ROW: Final = 3  # raise an alarm
BUCKETS_MS: Final = (5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
_NOT_IN_TIME: Final = (Reason.LATE, Reason.NO_FRAME)


@dataclass(slots=True)
class Counts:
    """One camera's. Latencies (ms, trigger or frame to written) are of finished inspections alone."""

    verdicts: Counter[str] = field(default_factory=Counter)  # by name
    faults: Counter[str] = field(default_factory=Counter)  # by reason
    latencies: deque[float] = field(default_factory=lambda: deque(maxlen=LATENCIES))
    buckets: Counter[int] = field(default_factory=Counter)  # latencies up to this many ms; not cumulative
    latency_sum_ms: float = 0.0
    late_in_a_row: int = 0
    last: dict[str, object] = field(default_factory=dict)

    def copy(self) -> Counts:
        """As it is now."""
        return Counts(
            self.verdicts.copy(),
            self.faults.copy(),
            self.latencies.copy(),
            self.buckets.copy(),
            self.latency_sum_ms,
            self.late_in_a_row,
            self.last,
        )


class Tally:
    """Counts verdicts. Both threads of the daemon add, others look; nobody holds the lock for long."""

    def __init__(self, cameras: Iterable[str], alarm: Callable[[str, str], None]) -> None:
        """Alarm is called with camera and message when verdict after verdict is late."""
        self._counts = {camera: Counts() for camera in cameras}
        self._alarm = alarm
        self._lock = threading.Lock()

    def add(self, part: Inspection, decision: Decision, latency_ms: float) -> None:
        """One more verdict, as the PLC was given it; latency from trigger or frame to written."""
        verdict, reason, score = decision.verdict, decision.reason, part.score
        with self._lock:
            counts = self._counts[part.camera]
            counts.verdicts[verdict.name] += 1
            if reason is not None:
                counts.faults[reason] += 1
            if verdict is not Verdict.FAULT:
                _add_latency(counts, latency_ms)
                counts.late_in_a_row = 0
            counts.late_in_a_row += reason in _NOT_IN_TIME
            alarming = counts.late_in_a_row == LATE_IN_A_ROW and reason in _NOT_IN_TIME
            counts.last = {
                "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
                "sequence": part.sequence,
                "part_id": part.part_id,
                "verdict": verdict.name,
                "reason": reason,
                "score": score if score is not None and isfinite(score) else None,
            }
        if alarming:
            self._alarm(part.camera, f"{LATE_IN_A_ROW} verdicts in a row were not ready in time ({reason})")

    def of(self, camera: str) -> Counts:
        """A copy of one camera's counts."""
        with self._lock:
            return self._counts[camera].copy()


def _add_latency(counts: Counts, latency_ms: float) -> None:
    counts.latencies.append(latency_ms)
    counts.latency_sum_ms += latency_ms
    bucket = next((limit for limit in BUCKETS_MS if latency_ms <= limit), None)
    if bucket is not None:
        counts.buckets[bucket] += 1
