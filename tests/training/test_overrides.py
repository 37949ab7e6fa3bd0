"""Settings changed by name on the command line."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from inspector.errors import TrainingError
from training.overrides import override


@dataclass(frozen=True)
class Inner:
    memory: bool = True
    temperature: float = 0.05
    slots: int = 500


@dataclass(frozen=True)
class Other:
    slots: int = 3


@dataclass(frozen=True)
class Outer:
    epochs: int = 10
    name: str = "paper"
    roi: tuple[int, ...] | None = None
    size: tuple[int, ...] = (1, 2)
    words: tuple[str, ...] = ()
    inner: Inner = Inner()
    other: Other = Other()


@pytest.mark.parametrize(
    ("key", "text", "expected"),
    [
        ("epochs", "3", Outer(epochs=3)),
        ("name", "3", Outer(name="3")),
        ("roi", "[1, 2]", Outer(roi=[1, 2])),
        ("size", "[3, 4]", Outer(size=(3, 4))),
        ("size", "3,4", Outer(size=(3, 4))),
        ("words", "a", Outer(words=("a",))),
        ("words", "a,b", Outer(words=("a", "b"))),
        ("words", "", Outer()),
        ("memory", "false", Outer(inner=Inner(memory=False))),
        ("inner.memory", "false", Outer(inner=Inner(memory=False))),
        ("temperature", "1", Outer(inner=Inner(temperature=1.0))),
        ("other.slots", "7", Outer(other=Other(7))),
    ],
)
def test_a_setting_takes_a_value_of_its_own_type(key, text, expected):
    changed = override(Outer(), {key: text})
    assert changed == expected
    assert type(changed.inner.temperature) is float


@pytest.mark.parametrize(
    ("key", "text", "message"),
    [
        ("epoch", "3", r"epoch is not a setting; expected one of epochs, .*inner\.memory"),
        ("slots", "3", r"slots means inner\.slots or other\.slots"),
        ("memory", "no", r"memory=no: expected bool, such as true"),
        ("epochs", "2.5", r"epochs=2\.5: expected int, such as 10"),
        ("epochs", "true", r"epochs=true: expected int"),
    ],
)
def test_a_wrong_setting_says_what_was_expected(key, text, message):
    with pytest.raises(TrainingError, match=message):
        override(Outer(), {key: text})
