"""Recorded from pytorchcv 0.0.74."""

from pathlib import Path
from typing import Any

import pytest
from tests.weights.reimplementations import deep_ones_slow, fingerprint, layouts, recognised, theirs

import senet
from senet import weights
from senet.errors import WeightsError
from senet.models.identify import layout_of

NETWORKS = {
    "resnet18": (122, "5417252f13ee"),
    "se_resnet18": (154, "a5ef419fd077"),
    "resnet34": (218, "85017647dea8"),
    "se_resnet34": (282, "87a6f8970b79"),
    "resnet50": (320, "df1fe838333f"),
    "se_resnet50": (384, "5adb08f830d6"),
    "resnet101": (626, "f8205efaf6b1"),
    "se_resnet101": (758, "1b1c3ef39110"),
    "resnet152": (932, "1ba6c0ba9c5b"),
    "se_resnet152": (1132, "021e77692890"),
    "resnext50_32x4d": (320, "4ddc90e3ee94"),
    "se_resnext50_32x4d": (384, "6efe481a54a7"),
    "resnext101_32x4d": (626, "95f2ad5b0b1d"),
    "se_resnext101_32x4d": (758, "34a9114ee4aa"),
    "senet154": (1144, "8b241c08c585"),
    "mobilenet_v1": (164, "8eb574f40307"),
    "vgg16_bn": (97, "2c7e11025466"),
    "resnet20": (128, "2ccfdef48a83"),
    "se_resnet20": (164, "23fe6184453f"),
    "resnet56": (344, "0b40e7af2fe5"),
    "se_resnet56": (452, "bad1d0a7dbaf"),
    "resnet110": (668, "53cff6b94c97"),
    "se_resnet110": (884, "e461cb6d7b33"),
    "preresnet110": (658, "bdfdae241e6a"),
    "preresnet164": (983, "6d3df6aad0bd"),
}


@pytest.mark.parametrize("name", deep_ones_slow(NETWORKS))
def test_names_and_shapes_are_theirs(tmp_path: Path, name: str) -> None:
    (layout,) = layouts("pytorchcv", name)
    assert fingerprint(theirs(layout, name)) == NETWORKS[name]
    found = recognised(layout, name, tmp_path)
    assert (found.layout, found.networks) == ("pytorchcv", tuple(layout.networks))
    assert found.function["layout"] == "modern"
    on_cifar = senet.info(name).input_size[1] == 32
    assert found.header["preprocessing"]["size"] == (32 if on_cifar else 224)


def test_units_are_counted_from_one() -> None:
    tensors = theirs(layouts("pytorchcv", "se_resnet50")[0], "se_resnet50")
    said = {key: tuple(tensor.shape) for key, tensor in tensors.items() if key.endswith(".weight")}
    assert said["features.init_block.conv.conv.weight"] == (64, 3, 7, 7)
    assert said["features.stage2.unit1.identity_conv.bn.weight"] == (512,)
    assert said["features.stage4.unit3.se.conv1.weight"] == (128, 2048, 1, 1)
    assert said["output.weight"] == (1000, 2048)


def test_only_the_caller_knows_where_strides_of_bottlenecks_sit(tmp_path: Path) -> None:
    for name in ("se_resnet18", "se_resnet50", "se_resnext50_32x4d"):
        found = recognised(layouts("pytorchcv", name)[0], name, tmp_path)
        assert layout_of(name, found, "modern") == "modern"
        if name != "se_resnet50":
            assert layout_of(name, found, None) == "modern"
            continue
        with pytest.raises(WeightsError, match="and for seresnet50, which is not ours"):
            layout_of(name, found, None)
        with pytest.raises(WeightsError, match="give origin='pytorchcv'"):
            weights.load(senet.build(name), found)
    with pytest.raises(WeightsError, match="has the layout modern, this one original"):
        weights.save(senet.build("resnet50", layout="original"), tmp_path / "w", layout="pytorchcv")


@pytest.mark.parametrize(
    "model",
    [senet.build("se_resnet20", num_classes=100, shortcut="project"), senet.build("preresnet110")],
    ids=["se_resnet20", "preresnet110"],
)
def test_networks_are_identified(tmp_path: Path, model: Any) -> None:
    weights.save(model, tmp_path / "w.safetensors", layout="pytorchcv")
    loaded = senet.load(tmp_path / "w.safetensors")
    assert loaded.config == model.config
