"""Which bundle was active when, and where a rollback leads."""

import pytest

from inspector.errors import BundleError
from inspector.model import bundle as bundles
from inspector.model import store
from tests.station import write_bundle


def made(folder, *thresholds):
    return [write_bundle(folder, threshold).id for threshold in thresholds]


def test_what_was_active_is_remembered_and_going_back_twice_does_not_return(tmp_path):
    a, b, c = made(tmp_path, 1.0, 2.0, 3.0)
    for bundle in (a, b, c):
        store.activate(tmp_path, bundle, "activate")
    assert store.before(tmp_path)[:2] == [b, a]
    store.activate(tmp_path, b, "rollback")
    assert bundles.active(tmp_path).id == b
    assert store.before(tmp_path)[0] == a
    store.activate(tmp_path, c, "activate")
    assert store.before(tmp_path)[:2] == [b, a]


def test_an_active_bundle_from_before_there_was_a_history_can_be_gone_back_to(tmp_path):
    a, b = made(tmp_path, 1.0, 2.0)
    bundles.activate(tmp_path, a)
    store.activate(tmp_path, b, "train")
    assert store.before(tmp_path) == [a]
    assert [entry.by for entry in store.history(tmp_path)] == ["before", "train"]


def test_an_activation_that_never_came_and_a_line_cut_short_do_no_harm(tmp_path):
    a, b, c = made(tmp_path, 1.0, 2.0, 3.0)
    store.activate(tmp_path, a, "activate")
    store.activate(tmp_path, b, "activate")
    with (tmp_path / store.HISTORY).open("a") as file:
        file.write('{"time": "2026-01-01T00:00:00+00:00", "id": "' + c + '", "by": "activate"}\n{"time": "20')
    assert store.before(tmp_path)[0] == a
    store.activate(tmp_path, c, "activate")
    assert store.before(tmp_path)[:2] == [c, b] or store.before(tmp_path)[:2] == [b, a]
    assert bundles.active(tmp_path).id == c


def test_a_bundle_is_found_by_its_beginning_and_an_odd_one_is_told_with_those_there_are(tmp_path):
    a, b = made(tmp_path, 1.0, 2.0)
    assert store.find(tmp_path, a[:10]).id == a
    with pytest.raises(BundleError, match=f"the beginning of one of .*{b[:12]}"):
        store.find(tmp_path, "no-such")
    with pytest.raises(BundleError, match="the beginning of one of"):
        store.find(tmp_path, "")


def test_a_bundle_that_is_not_intact_is_not_activated_and_leaves_no_trace(tmp_path):
    a, b = made(tmp_path, 1.0, 2.0)
    store.activate(tmp_path, a, "activate")
    (tmp_path / b / bundles.WEIGHTS).write_bytes(b"")
    before = store.history(tmp_path)
    with pytest.raises(BundleError, match="cut short"):
        store.activate(tmp_path, b, "activate")
    assert store.history(tmp_path) == before
    assert bundles.active(tmp_path).id == a
