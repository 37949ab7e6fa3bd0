"""The table of simulated weeks says what contamination cost, and when the light was told."""

from __future__ import annotations

import pytest

from tests import week


def days(first: float, last: float, told: int | None, made: float = 0.9) -> list[dict]:
    rows = [
        {
            "day": day,
            "auroc": first,
            "drift": ["highlight"] if told is not None and day >= told else [],
            "night": "bundle 1 is active in place of 0" if day == 3 else "refused",
            "test_escapes": 0.1,
            "test_false_rejects": 0.0,
            "candidate": made if 1 < day < 7 else None,
        }
        for day in range(1, 8)
    ]
    rows[-1]["after"] = {"auroc": last, "test_escapes": 0.1, "test_false_rejects": 0.0}
    return rows


def test_the_cost_is_the_clean_weeks_lead_on_average_and_after_the_last_night() -> None:
    found = week.cost(days(0.95, 0.97, None, 0.96), days(0.94, 0.90, None, 0.92))
    assert found == pytest.approx((0.04, (5 * 0.01 + 0.07) / 6, 0.07))


def test_the_table_has_a_row_for_each_pair_and_one_for_each_set() -> None:
    weeks = [
        {"set": "tile", "seed": seed, "pool": pool, "days": days(0.9, last, told)}
        for seed, told in ((0, 4), (1, None))
        for pool, last in (("contaminated", 0.88), ("clean", 0.90 + 0.02 * seed))
    ]
    table = week.summary(weeks)
    assert "| tile | 0 | +0.000 | +0.003 | +0.020 | 4, 4 | 1, 1 |" in table
    assert "| tile | 1 | +0.000 | +0.007 | +0.040 | never, never | 1, 1 |" in table
    assert any("**+0.005** ± 0.002 | **+0.030** ± 0.010" in line for line in table)
    assert "## tile, seed 1, clean pool" in week.markdown(weeks)
