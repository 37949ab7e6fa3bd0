"""The backbone "drawn": surfaces drawn, lessons made of them, weights learned and shipped."""

import argparse
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch

from inspector.errors import ModelError
from inspector.model.backbone import DRAWN, WEIGHTS, Backbone, create
from training import pretrain
from training.episodes import DAMAGED, EACH, EPISODES, MEAN, PLAIN, SHOWN, SOUND, STD, batch, episode_loss
from training.fields import FAMILIES, SIDE
from training.patterns import Pattern


@pytest.fixture(scope="module")
def drawn() -> np.ndarray:
    return np.stack([[Pattern(n).draw(k) for k in range(EACH)] for n in range(6)])


@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_draws_another_instance_of_the_same_kind(family) -> None:
    draw = family(np.random.default_rng(3))
    one, other = (draw(np.random.default_rng(seed)) for seed in (1, 2))
    assert one.shape == (2, SIDE, SIDE)
    assert np.isfinite(one).all()
    assert one[0].std() > 0
    assert not np.array_equal(one, other)
    np.testing.assert_array_equal(one, draw(np.random.default_rng(1)))


def test_patterns_are_pictures_that_differ_and_repeat(drawn: np.ndarray) -> None:
    assert drawn.dtype == np.uint8
    assert drawn.shape == (6, EACH, SIDE, SIDE, 3)
    np.testing.assert_array_equal(drawn[4, 1], Pattern(4).draw(1))
    spread = drawn.astype(float).std(axis=(2, 3, 4))
    assert (spread > 2).mean() > 0.9  # hardly any is plain
    assert len({picture.tobytes() for pattern in drawn for picture in pattern}) > 0.9 * drawn.shape[0] * EACH


def test_a_lesson_has_patterns_to_tell_and_damage_to_find(drawn: np.ndarray) -> None:
    lesson = batch(drawn, np.random.default_rng(0))
    assert lesson.pictures.shape == (PLAIN + EPISODES * EACH, 3, SHOWN, SHOWN)
    assert lesson.pictures.dtype == torch.float32
    assert lesson.patterns.shape == (PLAIN,)
    assert lesson.patterns.max() < 6
    assert lesson.masks.shape == (EPISODES, DAMAGED, SHOWN, SHOWN)
    assert (lesson.masks.flatten(2).sum(dim=2) > 0).all()
    assert (lesson.masks.flatten(2).mean(dim=2) < 1).all()
    again = batch(drawn, np.random.default_rng(0))
    torch.testing.assert_close(again.pictures, lesson.pictures, rtol=0, atol=0)


def test_the_episode_s_loss_is_low_where_damage_is_far_from_the_bank() -> None:
    masks = torch.zeros(EPISODES, DAMAGED, SHOWN, SHOWN)
    masks[..., :16, :16] = 1  # the first of 4 x 4 places
    torch.manual_seed(0)
    features = 0.1 * torch.randn(EPISODES * EACH, 8, 4, 4)
    blind = episode_loss(features, masks)
    for episode in range(EPISODES):
        for k in range(EACH - DAMAGED, EACH):
            features[episode * EACH + k, :, :2, :2] += 5
    seeing = episode_loss(features, masks)
    assert seeing < 0.1 < blind
    sound = features.clone()
    for episode in range(EPISODES):
        for k in range(EACH - DAMAGED - SOUND, EACH - DAMAGED):
            sound[episode * EACH + k] += 5  # a false alarm costs
    assert episode_loss(sound, masks) > 5 * seeing


def test_it_learns_resumes_and_writes_what_the_backbone_loads(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(pretrain, "KEPT", 2)
    asked = ["--work", str(tmp_path / "work"), "--patterns", "12", "--instances", "8", "--workers", "1"]
    torch.manual_seed(5)
    assert pretrain.main([*asked, "--steps", "4", "--out", str(tmp_path / "whole.safetensors")]) == 0

    stopped = pretrain.checkpoint.save

    def stop(folder, network, optimizer, progress):
        stopped(folder, network, optimizer, progress)
        if progress.step == 2:
            raise KeyboardInterrupt

    checkpoint = next((tmp_path / "work").glob("seed0-*"))
    pretrain.checkpoint.remove(checkpoint)
    monkeypatch.setattr(pretrain.checkpoint, "save", stop)
    with pytest.raises(KeyboardInterrupt):
        pretrain.main([*asked, "--steps", "4", "--out", str(tmp_path / "never")])
    monkeypatch.setattr(pretrain.checkpoint, "save", stopped)
    begun, load = [], pretrain.checkpoint.load

    def loaded(*given):
        progress = load(*given)
        begun.append(progress.step)
        return progress

    monkeypatch.setattr(pretrain.checkpoint, "load", loaded)
    assert pretrain.main([*asked, "--steps", "4", "--out", str(tmp_path / "pieces.safetensors")]) == 0

    assert begun == [2]
    whole, pieces = (safetensors.torch.load_file(tmp_path / f"{n}.safetensors") for n in ("whole", "pieces"))
    for name, tensor in whole.items():
        torch.testing.assert_close(pieces[name], tensor, rtol=0, atol=0)
    untaught = create(DRAWN, SHOWN).state_dict()
    assert whole.keys() <= untaught.keys()
    backbone = Backbone(DRAWN, (2, 3, 4), SHOWN)
    backbone.load(DRAWN, str(tmp_path / "whole.safetensors"), SHOWN)
    torch.testing.assert_close(backbone.model.state_dict()["conv1.0.weight"], whole["conv1.0.weight"].float())
    with safetensors.safe_open(tmp_path / "whole.safetensors", framework="pt") as file:
        assert file.metadata()["steps"] == "4"
        assert float(file.metadata()["last_patterns"]) > 0


def test_weights_are_taught_further_on_other_surfaces(tmp_path: Path) -> None:
    asked = ["--work", str(tmp_path / "work"), "--patterns", "12", "--instances", "8"]
    begun, further = tmp_path / "begun.safetensors", tmp_path / "further.safetensors"
    assert pretrain.main([*asked, "--steps", "1", "--out", str(begun)]) == 0
    other = ["--start", str(begun), "--first", "12", "--steps", "2", "--rate", "1e-9"]
    assert pretrain.main([*asked, *other, "--out", str(further)]) == 0

    before, after = (safetensors.torch.load_file(path) for path in (begun, further))
    learned = [name for name in before if name.endswith("weight")]
    assert all(torch.allclose(after[name], before[name], atol=1e-3) for name in learned)  # at that rate
    drawn = [np.load(path) for path in sorted((tmp_path / "work").glob("surfaces-*.npy"))]
    assert len(drawn) == 2
    assert not (drawn[0] == drawn[1]).all(axis=(1, 2, 3, 4)).any()
    with safetensors.safe_open(further, framework="pt") as file:
        about = file.metadata()
    assert (about["first"], about["start_first"], about["start_steps"]) == ("12", "0", "1")


def test_each_way_to_learn_has_a_checkpoint_of_its_own(tmp_path: Path) -> None:
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(b"some")
    usual = {"seed": 0, "first": 0, "patterns": 9, "instances": 8, "steps": 5, "rate": 1e-3, "start": None}
    others = {
        "seed": 1,
        "first": 9,
        "patterns": 8,
        "instances": 9,
        "steps": 6,
        "rate": 2e-3,
        "start": weights,
    }
    asked = [usual, *({**usual, name: value} for name, value in others.items())]
    assert len({pretrain.run_name(argparse.Namespace(**one)) for one in asked}) == len(asked)


def test_weights_that_are_not_there_to_go_on_from_are_named(tmp_path: Path, capsys) -> None:
    given = ["--out", str(tmp_path / "out"), "--work", str(tmp_path / "work"), "--start", "none.safetensors"]
    assert pretrain.main(given) == 2
    assert "none.safetensors do not exist" in capsys.readouterr().err
    assert not (tmp_path / "work").exists()


def test_the_package_s_weights_tell_surfaces_apart_that_taught_them_nothing() -> None:
    """In grey and in other light: to which other instance is each nearest?"""
    chance = np.random.default_rng(0)
    unseen = np.stack([[Pattern(90_000 + n).draw(k)[:64, :64] for k in range(4)] for n in range(24)])
    grey = unseen.mean(axis=-1, keepdims=True) / 255 - 0.5
    lit = grey * chance.uniform(0.5, 1.5, (24, 4, 1, 1, 1)) + chance.uniform(0.35, 0.65, (24, 4, 1, 1, 1))
    pictures = np.repeat(lit.clip(0, 1), 3, axis=-1).astype(np.float32)
    x = (torch.from_numpy(pictures) - torch.from_numpy(MEAN)) / torch.from_numpy(STD)
    torch.manual_seed(0)
    untaught, taught = Backbone(DRAWN, (3,), 64), Backbone(DRAWN, (3,), 64)
    taught.load(DRAWN, "", 64)
    right = []
    for backbone in (untaught, taught):
        features = backbone(x.flatten(0, 1).permute(0, 3, 1, 2))[0].mean(dim=(2, 3))
        distance = torch.cdist(features, features).fill_diagonal_(torch.inf)
        right.append((distance.argmin(dim=1) // 4 == torch.arange(96) // 4).float().mean())
    assert right[0] < 0.5
    assert right[1] > 0.8


def test_the_package_s_weights_fit_and_are_small() -> None:
    assert WEIGHTS.stat().st_size < 5e6
    backbone = Backbone(DRAWN, (), 128)
    backbone.load(DRAWN, "", 128)
    assert backbone.levels == [2, 3, 4]
    assert backbone.sides == [16, 8, 4]
    assert not any(p.requires_grad for p in backbone.parameters())


def test_missing_weights_are_named(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("inspector.model.backbone.WEIGHTS", tmp_path / "none.safetensors")
    with pytest.raises(ModelError, match=r"none\.safetensors do not exist"):
        Backbone(DRAWN, (), 64).load(DRAWN, "", 64)


@pytest.mark.parametrize(
    ("option", "value", "least"),
    [
        ("patterns", 1, 2),
        ("instances", 7, 8),
        ("steps", 0, 1),
        ("workers", 0, 1),
        ("threads", 0, 1),
        ("seed", -1, 0),
        ("first", -1, 0),
    ],
)
def test_numbers_that_teach_nothing_are_refused_before_anything_is_drawn(
    tmp_path: Path, capsys, option: str, value: int, least: int
) -> None:
    out = tmp_path / "weights.safetensors"
    given = ["--out", str(out), "--work", str(tmp_path / "work"), f"--{option}", str(value)]
    assert pretrain.main(given) == 2
    assert f"--{option} is {value}: expected {least} or more" in capsys.readouterr().err
    assert not out.exists()
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize("rate", ["0", "-1", "2", "nan"])
def test_a_rate_that_teaches_nothing_is_refused(tmp_path: Path, capsys, rate: str) -> None:
    assert pretrain.main(["--out", str(tmp_path / "out"), "--rate", rate]) == 2
    assert f"--rate is {float(rate)}: expected more than 0, at most 1" in capsys.readouterr().err


def test_a_folder_is_no_file_to_write(tmp_path: Path, capsys) -> None:
    assert pretrain.main(["--out", str(tmp_path), "--work", str(tmp_path / "work")]) == 2
    assert "is a folder" in capsys.readouterr().err
