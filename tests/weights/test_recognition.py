import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import senet
from senet import weights
from senet.errors import OptionError, WeightsError
from senet.weights import containers
from senet.weights.recognition import function_of, recognise

PRETRAINED = {
    "input_size": [3, 224, 224],
    "test_input_size": [3, 288, 288],
    "crop_pct": 0.875,
    "test_crop_pct": 0.95,
    "mean": [0.5, 0.5, 0.5],
    "std": [0.25, 0.25, 0.25],
    "interpolation": "bicubic",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder as a repository of timm's: weights and a config."""
    weights.save(senet.build("se_resnet50"), tmp_path / "model.safetensors", layout="timm")
    config = {"architecture": "seresnet50", "num_classes": 1000, "pretrained_cfg": PRETRAINED}
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


def test_the_config_of_a_repository_says_how_images_are_prepared(folder: Path) -> None:
    found = recognise(folder / "model.safetensors")
    assert found.header["preprocessing"] == {
        "channels": 3,
        "size": 288,
        "resize": 303,
        "mean": [0.5, 0.5, 0.5],
        "std": [0.25, 0.25, 0.25],
        "interpolation": "bicubic",
    }
    assert (found.layout, found.networks, found.certain) == ("timm", ("se_resnet50",), True)
    assert found.function["layout"] == "modern"
    assert recognise(found) is found


@pytest.mark.parametrize(
    "said",
    [
        {},
        {**PRETRAINED, "crop_pct": 0, "test_crop_pct": 0},
        {**PRETRAINED, "test_crop_pct": 1e-320},
        {**PRETRAINED, "crop_mode": "squash"},
        "x",
        {"mean": 1},
    ],
)
def test_a_config_that_says_nothing_of_images(folder: Path, said: object) -> None:
    (folder / "config.json").write_text(json.dumps({"architecture": "seresnet50", "pretrained_cfg": said}))
    assert "preprocessing" not in recognise(folder / "model.safetensors").header


def test_a_config_of_another_network_is_an_error(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"architecture": "seresnet152d"}))
    with pytest.raises(WeightsError, match="they are of 'seresnet152d', which is no network of senet"):
        recognise(folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"architecture": "vgg16_bn"}))
    with pytest.raises(WeightsError, match="names are none of"):
        recognise(folder / "model.safetensors")
    # The caller's word: a state dict of a network here.
    assert recognise(folder / "model.safetensors", origin="senet").layout == "senet"


def test_the_caller_can_say_whose_names_they_are(folder: Path) -> None:
    path = folder / "model.safetensors"
    assert recognise(path, origin="timm").layout == "timm"
    (folder / "config.json").unlink()
    with pytest.raises(WeightsError, match="names are none of cadene"):
        recognise(path, origin="cadene")
    with pytest.raises(OptionError, match="Did you mean 'timm'"):
        recognise(path, origin="tim")
    with pytest.raises(OptionError, match="only the original release has it"):
        recognise(path, classes="devkit")
    weights.save(senet.build("resnet20"), folder / "ours.safetensors")
    with pytest.raises(OptionError, match="it is a file of senet"):
        recognise(folder / "ours.safetensors", origin="timm")


def test_names_that_nobody_has_are_left_as_they_are(tmp_path: Path) -> None:
    save_file({"a": torch.ones(1)}, tmp_path / "w.safetensors")
    found = recognise(tmp_path / "w.safetensors")
    assert (found.layout, found.certain, found.function) == ("senet", False, {})
    assert found.tensors.keys() == {"a"}


@pytest.mark.parametrize(
    ("network", "function"),
    [
        (senet.build("se_resnet20").config.to_dict(), "modern standard avg sigmoid"),
        (senet.build("resnet20").config.to_dict(), "modern"),
        ({"name": "resnet20", "se": None}, "modern"),
        (None, ""),
        ([], ""),
    ],
)
def test_what_no_tensor_shows(network: Any, function: str) -> None:
    assert list(function_of(network).values()) == function.split()


def test_a_config_without_a_name_may_be_of_anything(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"pretrained_cfg": PRETRAINED}))
    assert "preprocessing" not in recognise(folder / "model.safetensors").header


def test_a_network_that_was_made_otherwise_is_refused(folder: Path) -> None:
    config = {"architecture": "seresnet50", "model_args": {"num_classes": 1000}}
    (folder / "config.json").write_text(json.dumps(config))
    assert recognise(folder / "model.safetensors").certain
    config["model_args"] = {"act_layer": "silu"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match=r"made with model_args=.*silu"):
        recognise(folder / "model.safetensors")


def test_words_that_do_not_apply_are_no_words(folder: Path) -> None:
    found = recognise(folder / "model.safetensors")
    weights.save(senet.build("resnet20"), folder / "ours.safetensors")
    for source, words in (
        (found, {"origin": "timm"}),
        (found, {"classes": "devkit"}),
        (folder / "ours.safetensors", {"classes": "devkit"}),
        (5, {}),
        (None, {}),
    ):
        with pytest.raises(OptionError):
            recognise(source, **words)  # type: ignore[arg-type]
    with pytest.raises(WeightsError, match="there is no file"):
        recognise("a" * 5000)


@pytest.mark.parametrize("header", [{"classes": 5}, {"data": 5}, {"class_order": []}, {"function": "x"}])
def test_a_header_of_other_kinds_is_refused(tmp_path: Path, header: dict[str, Any]) -> None:
    weights.save(torch.nn.Linear(2, 2), tmp_path / "w", header=header)
    with pytest.raises(WeightsError, match="in the header is"):
        recognise(tmp_path / "w")


def test_a_caffemodel_that_is_nearly_one(tmp_path: Path) -> None:
    from tests.weights.caffe_schema import write_caffemodel

    path = tmp_path / "w.caffemodel"
    for name, kind, shape in (
        ("classifier", "InnerProduct", (4, 3)),
        ("classifier", "InnerProduct", ()),
        ("conv1/7x7_s2", "Convolution", (64,)),
        ("conv1/7x7_s2", "Convolution", (0,)),
    ):
        write_caffemodel(path, [(name, kind, [np.ones(shape, np.float32)])])
        with pytest.raises(WeightsError, match=r"w\.caffemodel"):
            senet.load(path)


def test_many_names_take_no_longer_than_their_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """4,000 blocks of SE and as many others; quadratic time would be minutes."""
    tensors = {f"x{i}.se.fc1.weight": torch.ones(1, 1) for i in range(4_000)}
    save_file(tensors | {f"y{i}": torch.ones(1) for i in range(4_000)}, tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match="do not say which network"):
        senet.load(tmp_path / "w.safetensors")
    monkeypatch.setattr(containers, "_MOST_TENSORS", 7_999)
    with pytest.raises(WeightsError, match="it holds 8,000 tensors"):
        senet.load(tmp_path / "w.safetensors")
