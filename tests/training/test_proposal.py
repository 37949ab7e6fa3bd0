import sys
from pathlib import Path

import pytest

from training import proposal
from training.proposal import weights_at_hand


def test_the_configured_file_comes_first(tmp_path: Path) -> None:
    file = tmp_path / "w.pth"
    assert weights_at_hand("resnet18", file) is None
    file.touch()
    assert weights_at_hand("resnet18", file) == file


def test_an_installed_package_is_found_for_its_backbone_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = tmp_path / "some_weights" / "models" / "w.pth"
    weights.parent.mkdir(parents=True)
    weights.touch()
    (tmp_path / "some_weights" / "__init__.py").write_text("raise SystemExit('imported')")
    monkeypatch.setitem(proposal.PACKAGES, "some_net", ("some_weights", "models/*.pth"))
    assert weights_at_hand("some_net") is None
    monkeypatch.syspath_prepend(tmp_path)
    assert weights_at_hand("some_net") == weights
    assert weights_at_hand("other_net") is None
    assert "some_weights" not in sys.modules
