from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch

from inspector.errors import ModelError
from inspector.model.backbone import Backbone, normalisation, read

X = torch.linspace(-1, 1, 3 * 64 * 64).reshape(1, 3, 64, 64)


def pretrained(name: str) -> torch.nn.Module:
    torch.manual_seed(7)
    model: torch.nn.Module = timm.create_model(name)
    return model.eval()


@pytest.mark.parametrize("name", ["test_efficientnet", "test_resnet"])
def test_a_cnn_gives_strides_8_16_and_32(name: str) -> None:
    backbone = Backbone(name, (), 64)
    assert backbone.sides == [8, 4, 2]
    assert [tuple(f.shape) for f in backbone(X)] == [
        (1, c, s, s) for c, s in zip(backbone.channels, backbone.sides, strict=True)
    ]


def test_a_vit_gives_blocks_at_the_size_asked_for() -> None:
    backbone = Backbone("test_vit", (1, 3), 64)
    assert [tuple(f.shape[2:]) for f in backbone(X)] == [(4, 4), (4, 4)]
    assert len(Backbone("test_vit", (), 64).levels) == 3


def test_it_is_frozen_even_while_training() -> None:
    backbone = Backbone("test_efficientnet", (), 64).train()
    before = {k: v.clone() for k, v in backbone.state_dict().items()}
    first, again = backbone(X), backbone(X)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert all(torch.equal(v, before[k]) for k, v in backbone.state_dict().items())
    assert not any(p.requires_grad for p in backbone.parameters())
    assert not any(f.requires_grad for f in first)


def stored(model: torch.nn.Module, path: Path, prefix: str = "") -> str:
    state = {prefix + k: v for k, v in model.state_dict().items()}
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save({"state_dict": state} if prefix else state, path)
    return str(path)


@pytest.mark.parametrize("name", ["test_efficientnet", "test_vit"])
@pytest.mark.parametrize(("file", "prefix"), [("w.safetensors", ""), ("w.pth", ""), ("w.pth", "module.")])
def test_weights_come_from_a_file(name: str, file: str, prefix: str, tmp_path: Path) -> None:
    model = pretrained(name)
    if name == "test_vit":  # another input size than the pretrained one's needs its positions resampled
        model = timm.create_model(name, img_size=64).eval()
    backbone = Backbone(name, (), 64)
    backbone.load(name, stored(model, tmp_path / file, prefix), 64)
    expected = model.forward_intermediates(X, indices=backbone.levels, intermediates_only=True)  # type: ignore[operator]
    assert all(torch.equal(a, b) for a, b in zip(backbone(X), expected, strict=True))


def test_a_vits_positions_are_resampled_to_the_size_in_use(tmp_path: Path) -> None:
    backbone = Backbone("test_vit", (), 64)
    backbone.load("test_vit", stored(pretrained("test_vit"), tmp_path / "w.safetensors"), 64)
    assert all(f.isfinite().all() for f in backbone(X))


def test_another_implementations_names_are_matched_by_order(tmp_path: Path) -> None:
    model = pretrained("test_efficientnet")
    renamed = {f"_layer{i}": t for i, t in enumerate(model.state_dict().values())}
    torch.save(renamed, tmp_path / "w.pth")
    backbone = Backbone("test_efficientnet", (), 64)
    backbone.load("test_efficientnet", str(tmp_path / "w.pth"), 64)
    expected = model.forward_intermediates(X, indices=backbone.levels, intermediates_only=True)  # type: ignore[operator]
    assert all(torch.equal(a, b) for a, b in zip(backbone(X), expected, strict=True))


def test_a_file_without_the_classifier_will_do(tmp_path: Path) -> None:
    model = pretrained("test_efficientnet")
    state = {k: v for k, v in model.state_dict().items() if not k.startswith("classifier")}
    safetensors.torch.save_file(state, tmp_path / "w.safetensors")
    Backbone("test_efficientnet", (), 64).load("test_efficientnet", str(tmp_path / "w.safetensors"), 64)


@pytest.mark.parametrize("name", ["test_efficientnet", "test_vit", "test_resnet"])
def test_what_travels_in_a_bundle_will_do(name: str, tmp_path: Path) -> None:
    """A night has no other file: levels that nobody reads, and what follows them, are not in it."""
    first, again = Backbone(name, (), 64), Backbone(name, (), 64)
    safetensors.torch.save_file(first.model.state_dict(), tmp_path / "own.safetensors")
    again.load(name, str(tmp_path / "own.safetensors"), 64)
    x = torch.randn(1, 3, 64, 64)
    for one, other in zip(first(x), again(x), strict=True):
        assert torch.equal(one, other)


def test_weights_that_do_not_fit_are_refused_by_name(tmp_path: Path) -> None:
    backbone = Backbone("test_efficientnet", (), 64)

    def refused(match: str, path: Path) -> None:
        with pytest.raises(ModelError, match=match):
            backbone.load("test_efficientnet", str(path), 64)

    stored(pretrained("test_resnet"), tmp_path / "other.safetensors")
    refused("does not fit backbone test_efficientnet: .* tensors are missing", tmp_path / "other.safetensors")
    state = pretrained("test_efficientnet").state_dict()
    safetensors.torch.save_file(
        state | {"conv_stem.weight": torch.zeros(1, 3, 3, 3)}, tmp_path / "s.safetensors"
    )
    refused(r"conv_stem.weight has shape \(1, 3, 3, 3\)", tmp_path / "s.safetensors")
    refused("do not exist", tmp_path / "none.pth")
    (tmp_path / "text.pth").write_text("no weights")
    refused("text.pth", tmp_path / "text.pth")
    (tmp_path / "text.safetensors").write_text("no weights")
    refused("cannot be read", tmp_path / "text.safetensors")
    torch.save([1, 2], tmp_path / "list.pth")
    refused("not a state dict", tmp_path / "list.pth")


class Evil:
    """A pickle that would run code."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("code ran",))


def test_a_pickle_that_holds_more_than_tensors_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"a": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(ModelError, match="not a plain state dict"):
        read(tmp_path / "evil.pth")
    assert "code ran" not in capsys.readouterr().out


def test_unknown_names_and_levels_are_refused() -> None:
    with pytest.raises(ModelError, match=r"'resnet_99x'.*similar: "):
        Backbone("resnet_99x", (), 64)
    for levels in ((9,), (2, 1), (1, 1)):
        with pytest.raises(ModelError, match="has levels 0 to"):
            Backbone("test_efficientnet", levels, 64)


def test_normalisation_is_the_backbones() -> None:
    assert normalisation("tf_efficientnet_lite0") == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert normalisation("resnet18")[0] == (0.485, 0.456, 0.406)
