import hashlib
from collections import Counter

import numpy as np
import pytest

from training.selection import SCORES, TIMES, Distinct, Passed, kept_apart, ranks, spread, well_under


def part(key: int, score: float = 0.0, time: float = 0.0, bundle: str = "a") -> Passed:
    return Passed(key, time, score, bundle, hashlib.sha256(str(key).encode()).hexdigest())


def test_the_highest_scores_of_each_bundle_are_left_out_whatever_its_scale() -> None:
    parts = [part(k, score=k - 100.0) for k in range(50)]
    parts += [part(k, score=1000.0 * k, bundle="b") for k in range(50, 100)]
    kept = {p.key for p in well_under(parts, 0.1)}
    assert kept == {*range(45), *range(50, 95)}
    assert max(ranks(parts).values()) == 1


def test_any_beginning_of_the_order_is_spread_over_time_and_score() -> None:
    """900 easy parts in one hour, 20 hard ones in each of the others: the few are not drowned."""
    rng = np.random.default_rng(0)
    parts = [part(k, score=float(rng.normal()), time=float(rng.uniform(0, 3600))) for k in range(900)]
    for hour in range(1, 8):
        parts += [part(1000 + 20 * hour + k, score=5.0 + k, time=3600.0 * hour) for k in range(20)]
    some = spread(parts, 0)[:80]
    hours = Counter(int(p.time // 3600) for p in some)
    assert len(hours) >= TIMES - 1
    assert hours[0] < 60
    assert len({p.key for p in spread(parts, 0)}) == len(parts), "all of them, once"
    assert sum(p.score > 4 for p in some) > 80 / (2 * SCORES)


def test_the_order_follows_from_the_seed() -> None:
    parts = [part(k, score=k, time=k) for k in range(100)]
    assert spread(parts, 1) == spread(list(reversed(parts)), 1)
    assert spread(parts, 1) != spread(parts, 2)


def test_what_is_kept_apart_stays_so_and_is_about_its_share() -> None:
    names = [hashlib.sha256(str(k).encode()).hexdigest() for k in range(2000)]
    assert 0.36 < np.mean([kept_apart(name) for name in names]) < 0.44


@pytest.mark.parametrize("kind", ["grey", "rgb", "sixteen"])
def test_the_same_part_twice_is_told_from_two_parts(kind: str) -> None:
    rng = np.random.default_rng(0)

    def seen(shift: int) -> np.ndarray:
        image = np.full((256, 256), 60.0)
        image[40:200, 80 + shift : 120 + shift] = 200
        noisy = np.clip(image + rng.normal(0, 3, image.shape), 0, 255)
        if kind == "sixteen":
            return (noisy * 257).astype(np.uint16)
        return noisy.astype(np.uint8) if kind == "grey" else np.dstack([noisy] * 3).astype(np.uint8)

    distinct = Distinct()
    assert distinct.add(seen(0))
    assert not distinct.add(seen(0)), "the same with other noise"
    assert distinct.add(seen(2)), "another part, a little aside"
