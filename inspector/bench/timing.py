"""Several ways to do something, timed in turns: what disturbs the machine disturbs all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from tqdm import tqdm

BLOCK = 4  # runs in a row; the first, with the caches of another, does not count


@dataclass
class Times:
    """Milliseconds of each run: on the clock, and of this process on the processors."""

    clock: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)

    def add(self, run: Callable[[], object]) -> None:
        """Time one more run."""
        began, used = time.perf_counter(), time.process_time()
        run()
        self.clock.append(1e3 * (time.perf_counter() - began))
        self.processor.append(1e3 * (time.process_time() - used))

    def figures(self) -> dict[str, float]:
        """Percentiles of the clock, ms, and the median on the processors."""
        return spread(self.clock) | {"cpu_p50": float(np.median(self.processor))}


def spread(values: Sequence[float]) -> dict[str, float]:
    """p50, p99 and maximum."""
    p50, p99 = np.percentile(values, (50, 99))
    return {"p50": float(p50), "p99": float(p99), "max": float(np.max(values))}


def in_turns(runs: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, Times]:
    """Each of these in blocks, one after the other, over and over, in an order that changes."""
    times = {name: Times() for name in runs}
    rng = np.random.default_rng(0)
    for _ in tqdm(range(rounds), desc="in turns", unit="round", leave=False, disable=None):
        for name in rng.permutation(list(runs)).tolist():
            runs[name]()
            for _ in range(BLOCK - 1):
                times[name].add(runs[name])
    return times


def at(fps: float, run: Callable[[], object], count: int) -> Times:
    """One run each 1/fps s, as on a line; the processor rests in between."""
    times, began = Times(), time.perf_counter()
    for number in tqdm(range(count), desc=f"at {fps:g}/s", unit="part", leave=False, disable=None):
        time.sleep(max(0.0, began + number / fps - time.perf_counter()))
        times.add(run)
    return times


def after_idling(
    seconds: float, run: Callable[[], object], count: int, meanwhile: Callable[[], object]
) -> Times:
    """The first run after this long; meanwhile is called ten times a second."""
    times = Times()
    for _ in tqdm(range(count), desc=f"after {seconds:g} s", unit="part", leave=False, disable=None):
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            time.sleep(0.1)
            meanwhile()
        times.add(run)
    return times
