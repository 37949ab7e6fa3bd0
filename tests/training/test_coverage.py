import json
from pathlib import Path

import numpy as np
import pytest

from training.coverage import main, measure
from training.distributions import DISTRIBUTIONS


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_the_true_share_above_a_score_is_that_of_the_draws(name: str) -> None:
    one = DISTRIBUTIONS[name]
    scores = one.draw(np.random.default_rng(0), (200_000,))
    for quantile in (0.5, 0.95, 0.995):
        assert one.exceeded(np.quantile(scores, quantile)) == pytest.approx(1 - quantile, rel=0.1)


def test_the_promise_is_kept_where_it_is_made_and_missed_where_it_is_not() -> None:
    """A small version of results/coverage.md."""
    for rate, confidence, repetitions in ((0.02, 0.9, 300), (0.005, 0.95, 60)):
        for row in measure((100, 598), repetitions, rate, confidence, progress=False):
            noise = (row.exact * (1 - row.exact) / repetitions) ** 0.5
            assert row.order_statistic == pytest.approx(row.exact, abs=3.5 * noise)
            assert row.proven == (row.n == 598) == (row.exact >= confidence)
            if rate == 0.005 and not row.proven:
                assert row.tail is not None
                assert row.tail > 0.8 > 0.5 > row.exact  # the highest of 100 scores keeps the rate in 39 %


def test_the_command_writes_its_table(tmp_path: Path) -> None:
    main(["--out", str(tmp_path), "--repetitions", "4", "--sizes", "100", "598"])
    record = json.loads((tmp_path / "coverage.json").read_text())
    assert (record["repetitions"], len(record["rows"])) == (4, 10)
    page = (tmp_path / "coverage.md").read_text()
    assert "`python -m training.coverage`" in page
    assert page.count("extrapolated: 95.0% aimed at") == 1


def test_the_table_in_the_readme_is_the_one_that_was_measured() -> None:
    root = Path(__file__).parents[2]
    record = json.loads((root / "results" / "coverage.json").read_text())
    assert record["repetitions"] >= 2000
    assert {row["n"] for row in record["rows"]} >= {100, 598, 5000}
    readme = (root / "README.md").read_text()
    rows = (root / "results" / "coverage.md").read_text().split("\n\n")[1].strip()
    assert rows in readme
