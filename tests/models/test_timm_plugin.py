import copy
import dataclasses
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import senet
from senet.errors import MissingExtraError, OptionError
from senet.models import timm_plugin
from senet.models.timm_plugin import register_with_timm
from senet.weights.published import PublishedWeights, published_weights

timm = pytest.importorskip("timm")
optimisers = pytest.importorskip("timm.optim")

# One of each family: the first by name.
FAMILIES = {
    senet.info(name).family: name for name in reversed(senet.list_models()) if not name.startswith("se_")
}


@pytest.fixture(autouse=True)
def _registered() -> None:
    register_with_timm()


def _create(name: str, **options: Any) -> Any:
    return timm.create_model(name, **options)


def test_every_network_is_registered_once() -> None:
    names = register_with_timm()
    assert names == register_with_timm() == [f"senet_{name}" for name in senet.list_models()]
    assert set(names) == set(timm.list_models("senet_*"))


@pytest.mark.parametrize("name", [*FAMILIES.values(), "se_resnet18", "senet154"])
def test_a_network_of_timms_is_ours(name: str) -> None:
    with torch.device("meta"):
        theirs = _create(f"senet_{name}", num_classes=7)
        ours = senet.build(name, num_classes=7)
    assert {key: value.shape for key, value in theirs.state_dict().items()} == {
        key: value.shape for key, value in ours.state_dict().items()
    }
    assert theirs.config == ours.config
    assert theirs.num_classes == theirs.get_classifier().out_features == 7
    assert theirs.num_features == ours.pyramid_info[-1].channels
    theirs.reset_classifier(9)
    assert list(theirs.state_dict().values())[-1].shape == (9,)
    assert theirs.config.num_classes == 9


def test_its_keywords_reach_the_network(tmp_path: Path) -> None:
    model = _create("senet_se_resnet20", num_classes=10, in_chans=1, drop_rate=0.5, placement="pre")
    assert model.config.to_dict() == {
        **senet.build("se_resnet20", num_classes=10, in_channels=1, placement="pre").config.to_dict(),
        "options": {"dropout": 0.5},
    }
    x = torch.randn(2, 1, 32, 32)
    model.eval()
    assert model(x).shape == (2, 10)
    assert torch.equal(model.forward_head(model.forward_features(x)), model(x))
    senet.weights.save(model, tmp_path / "w.safetensors")
    assert torch.equal(senet.load(tmp_path / "w.safetensors")(x), model(x))


def test_the_default_classes_are_those_of_the_data() -> None:
    assert _create("senet_resnet20").num_classes == 10
    with torch.device("meta"):
        assert _create("senet_resnet18").num_classes == 1000


def test_a_network_without_dropout_takes_the_scripts_zero() -> None:
    without = next(name for name in senet.list_models() if "dropout" not in senet.info(name).options)
    with torch.device("meta"):
        assert _create(f"senet_{without}", drop_rate=0.0)
        with pytest.raises(OptionError, match="dropout"):
            _create(f"senet_{without}", drop_rate=0.5)


def test_unknown_keywords() -> None:
    with pytest.raises(OptionError, match=r"no option 'drop_path_rate'"):
        _create("senet_resnet20", drop_path_rate=0.1)
    with pytest.raises(OptionError, match="there is one output"):
        _create("senet_resnet20", out_indices=(1,))
    with pytest.raises(OptionError, match="HF_HUB_CACHE"):
        _create("senet_resnet20", cache_dir="here")
    with pytest.raises(OptionError, match=r"global_pool='max'"):
        _create("senet_resnet20").reset_classifier(3, "max")


def test_without_classifier_come_the_features() -> None:
    model = _create("senet_se_resnet20", num_classes=0).eval()
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, model.num_features)
    assert model.num_classes == 0
    assert not hasattr(model, "config")  # none builds this network
    model.reset_classifier(4)
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 4)


@pytest.mark.parametrize("features_only", [False, True])
def test_copies_are_whole(features_only: bool) -> None:
    model = _create("senet_se_resnet20", features_only=features_only).eval()
    x = torch.randn(2, 3, 32, 32)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert type(twin) is type(model)
        torch.testing.assert_close(twin(x), model(x), rtol=0, atol=0)
        with torch.no_grad():
            next(twin.parameters()).zero_()
        assert next(model.parameters()).any()


@pytest.mark.parametrize("name", ["se_resnet20", "se_resnet50", "vgg16_bn", "bn_inception"])
def test_features_only(name: str) -> None:
    with torch.device("meta"):
        model = _create(f"senet_{name}", features_only=True)
        ours = senet.build(name)
        images = torch.empty(2, 3, 64, 64)
        maps = model(images)
        assert [tuple(each.shape) for each in maps] == [tuple(each.shape) for each in ours.pyramid(images)]
    assert model.feature_info.channels() == [each.shape[1] for each in maps]
    assert model.feature_info.reduction() == [level.stride for level in ours.pyramid_info]
    head = ours.state_dict().keys() - model.state_dict().keys()
    assert head
    assert all(key.startswith(("fc.", "classifier.")) for key in head)


def test_some_of_the_features() -> None:
    model = _create("senet_resnet20", features_only=True, out_indices=(0, -1)).train()
    maps = model(torch.randn(2, 3, 32, 32))
    assert [each.shape[1] for each in maps] == model.feature_info.channels() == [16, 64]
    sum(each.sum() for each in maps).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    with pytest.raises(OptionError, match=r"there are 3 maps\. Allowed: 0 to 2"):
        _create("senet_resnet20", features_only=True, out_indices=(3,))


def test_timm_prepares_the_images_as_senet_does() -> None:
    resolve = timm.data.resolve_data_config
    small = resolve({}, model=_create("senet_resnet20", in_chans=1))
    assert small["input_size"] == (1, 32, 32)
    assert (small["crop_pct"], len(small["mean"]), small["interpolation"]) == (1.0, 1, "bilinear")
    with torch.device("meta"):
        known = resolve({}, model=_create("senet_se_resnet50"))
    weights = next(each for each in published_weights("se_resnet50") if each.where)
    images = weights.preprocessing
    assert known["crop_pct"] == images["size"] / images["resize"]
    assert list(known["mean"]) == images["mean"]
    assert known["interpolation"] == images["interpolation"]
    with torch.device("meta"):
        told = _create("senet_se_resnet50", pretrained_cfg_overlay={"crop_pct": 1.0})
    assert resolve({}, model=told)["crop_pct"] == 1.0


def _published(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    """Makes the catalogue one of se_resnet20 alone, and timm's registry know it."""
    template = published_weights("se_resnet50")[0]
    found = dataclasses.replace(template, network="se_resnet20", **changes)

    def weights_of(network: str) -> tuple[PublishedWeights, ...]:
        return (found,) if network == "se_resnet20" else ()

    monkeypatch.setattr(timm_plugin, "published_weights", weights_of)


def test_pretrained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    saved: Any = senet.build("se_resnet20")  # as published weights, of 1000 classes
    senet.weights.save(saved, tmp_path / "w.safetensors")
    _published(monkeypatch, name=str(tmp_path / "w.safetensors"), where="ORG/NAME")
    model = _create("senet_se_resnet20", pretrained=True, num_classes=1000)
    assert torch.equal(model.fc.weight, saved.fc.weight)
    fresh = _create("senet_se_resnet20", pretrained=True, num_classes=5)
    assert torch.equal(fresh.conv1.weight, saved.conv1.weight)
    assert fresh.num_classes == fresh.config.num_classes == 5
    maps = _create("senet_se_resnet20", pretrained=True, features_only=True)
    assert torch.equal(maps.conv1.weight, saved.conv1.weight)
    with pytest.raises(OptionError, match="names weights of its own"):
        _create("senet_se_resnet20", pretrained=True, pretrained_cfg_overlay={"file": "mine.pth"})


def test_weights_that_nobody_can_fetch(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OptionError, match=r"no weights of resnet20 .*Allowed: .*senet_se_resnet50"):
        _create("senet_resnet20", pretrained=True)
    _published(monkeypatch, where=None)
    with pytest.raises(OptionError, match="no weights of se_resnet20"):
        _create("senet_se_resnet20", pretrained=True)


def test_a_network_trains_with_timms_optimisers() -> None:
    model = _create("senet_se_resnet20").train()
    optimiser = optimisers.create_optimizer_v2(model, opt="sgd", lr=0.1, weight_decay=1e-4)
    average = timm.utils.ModelEmaV2(model, decay=0.5)
    before = model.fc.weight.detach().clone()
    model(torch.randn(2, 3, 32, 32)).sum().backward()
    optimiser.step()
    average.update(model)
    assert not torch.equal(model.fc.weight, before)
    assert torch.allclose(average.module.fc.weight, (before + model.fc.weight) / 2)


def test_without_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm.models", None)
    with pytest.raises(MissingExtraError, match=r"senet\[timm\]"):
        register_with_timm()
