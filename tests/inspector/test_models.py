"""`inspector models`, `inspector models activate`, `inspector rollback`."""

import pytest

from inspector import models
from inspector.errors import BundleError
from inspector.model import bundle as bundles
from inspector.model import store
from inspector.models import gate_file
from inspector.settings import load
from tests.station import Station, camera, write_bundle


@pytest.fixture
def station(tmp_path):
    one = Station(tmp_path, 5020)
    one.write(camera(), plc="enabled = true")
    return one


@pytest.fixture
def recipe(station):
    return station.data / "models" / "part"


def bundle(recipe, threshold, **changes):
    written = write_bundle(recipe, threshold, **changes)
    store.activate(recipe, written.id, "activate")
    return written.id


def test_models_lists_thresholds_lineage_and_gate_with_the_active_one_marked(station, recipe):
    first = bundle(recipe, 3.5)
    second = bundle(recipe, 4.5)
    gate_file(recipe, second).parent.mkdir(parents=True)
    gate_file(recipe, second).write_text('{"passed": true, "summary": "AUROC 0.99"}')
    said = station.command("models")
    assert said.returncode == 0, said.stderr
    lines = {line.split()[1 if "active" in line else 0]: line for line in said.stdout.splitlines()[1:]}
    assert lines[second[:12]].startswith("active")
    assert "4.5 cpu float32" in lines[second[:12]]
    assert "≤ 0.50% at 95%, 598 parts" in lines[second[:12]]
    assert "AUROC 0.99" in lines[second[:12]]
    assert not lines[first[:12]].startswith("active")
    rows = models.listing(load(station.config), "part")
    assert [(row["id"], row["active"]) for row in rows] == [
        (one, one == second) for one in sorted((first, second))
    ]


def test_activate_takes_a_beginning_and_refuses_what_may_not_judge_unless_forced(station, recipe):
    good = bundle(recipe, 3.5)
    now = bundle(recipe, 4.5)
    done = station.command("models", "activate", good[:8])
    assert done.returncode == 0, done.stderr
    assert bundles.active(recipe).id == good
    for odd, why in (
        (write_bundle(recipe, None), "is not calibrated"),
        (write_bundle(recipe, 5.5, device="cuda:Some GPU"), "was calibrated on 'cuda:Some GPU'"),
        (write_bundle(recipe, 6.5, precision="float16"), "was calibrated in float16"),
    ):
        bundles.activate(recipe, now)
        with pytest.raises(BundleError, match=why):
            list(models.activate(load(station.config), "part", odd.id, force=False))
        assert bundles.active(recipe).id == now
        forced = list(models.activate(load(station.config), "part", odd.id, force=True))
        assert why in forced[1]
        assert bundles.active(recipe).id == odd.id


def test_rollback_goes_back_over_what_may_not_judge_and_says_so(station, recipe):
    first = bundle(recipe, 3.5)
    odd = bundle(recipe, None)
    bundle(recipe, 4.5)
    said = list(models.rollback(load(station.config), "part"))
    assert f"passed over {odd[:12]}" in said[0]
    assert bundles.active(recipe).id == first
    nothing = station.command("rollback")
    assert nothing.returncode == 1
    assert "nothing to go back to" in nothing.stderr
    assert "Traceback" not in nothing.stderr
