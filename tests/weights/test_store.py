import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import senet
from senet import weights
from senet.errors import OptionError, WeightsError


def test_weights_and_header_come_back(tmp_path: Path) -> None:
    model = senet.build("se_resnet20").to(memory_format=torch.channels_last)
    weights.save(model, tmp_path / "w.safetensors", header={"classes": ["a", "b"]})
    header, tensors = weights.read(tmp_path / "w.safetensors")
    assert header["classes"] == ["a", "b"]
    assert header["network"]["name"] == "se_resnet20"
    assert tensors.keys() == model.state_dict().keys()
    assert all(torch.equal(tensors[key], value) for key, value in model.state_dict().items())
    assert os.listdir(tmp_path) == ["w.safetensors"]


def test_any_module_can_be_saved_and_loaded(tmp_path: Path) -> None:
    saved, loaded = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    weights.save(saved, tmp_path / "w.safetensors")
    weights.load(loaded, tmp_path / "w.safetensors")
    assert torch.equal(saved.weight, loaded.weight)


def test_a_misfit_changes_nothing(tmp_path: Path) -> None:
    weights.save(senet.build("se_resnet20", num_classes=10), tmp_path / "w.safetensors")
    model = senet.build("resnet20", num_classes=5)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(WeightsError, match=r"36 unknown to the network .*2 of another shape .*fc"):
        weights.load(model, tmp_path / "w.safetensors")
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    weights.save(senet.build("resnet20"), tmp_path / "plain.safetensors")
    with pytest.raises(WeightsError, match="36 missing in the file"):
        senet.build("se_resnet20", weights=tmp_path / "plain.safetensors")


def test_a_gate_of_the_other_kind_is_refused(tmp_path: Path) -> None:
    weights.save(senet.build("se_resnet20", se=senet.SEConfig(init="identity")), tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match="one_at_zero"):
        weights.load(senet.build("se_resnet20"), tmp_path / "w.safetensors")


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("se_resnet20", {"placement": "post"}, "placement post, not standard"),
        ("se_resnet18", {"layout": "original"}, "layout original, not modern"),
        ("se_resnet20", {"se": senet.SEConfig(gate="tanh")}, "gate tanh, not sigmoid"),
        ("se_resnet20", {"se": senet.SEConfig(squeeze="max")}, "squeeze max, not avg"),
    ],
)
def test_a_network_that_computes_other_things_is_refused(
    tmp_path: Path, name: str, changes: dict[str, Any], words: str
) -> None:
    weights.save(senet.build(name, **changes), tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match=words):
        senet.build(name, weights=tmp_path / "w.safetensors")
    senet.build(name, weights=tmp_path / "w.safetensors", **changes)


def test_a_compiled_model_is_saved_as_itself(tmp_path: Path) -> None:
    model = senet.build("resnet20")
    weights.save(torch.compile(model), tmp_path / "w.safetensors")  # type: ignore[arg-type]
    assert senet.load(tmp_path / "w.safetensors").state_dict().keys() == model.state_dict().keys()


def test_tied_weights_are_saved_apart(tmp_path: Path) -> None:
    tied = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3))
    tied[1].weight = tied[0].weight
    weights.save(tied, tmp_path / "w.safetensors")
    loaded = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3))
    weights.load(loaded, tmp_path / "w.safetensors")
    assert torch.equal(loaded.state_dict()["1.weight"], tied.state_dict()["0.weight"])


def test_the_networks_dtype_stays(tmp_path: Path) -> None:
    weights.save(senet.build("resnet20").half(), tmp_path / "w.safetensors")
    for model in (
        senet.load(tmp_path / "w.safetensors"),
        senet.build("resnet20", weights=tmp_path / "w.safetensors"),
    ):
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    save_file(
        {"weight": torch.zeros(2, 3, dtype=torch.int32), "bias": torch.zeros(2)}, tmp_path / "i.safetensors"
    )
    with pytest.raises(WeightsError, match=r"1 of another kind of number \(weight torch\.int32"):
        weights.load(torch.nn.Linear(3, 2), tmp_path / "i.safetensors")


@pytest.mark.parametrize("damage", ["truncated", "text", "empty", "pickle"])
def test_broken_files(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "w.safetensors"
    weights.save(torch.nn.Linear(30, 20), path)
    whole = path.read_bytes()
    if damage == "pickle":
        torch.save({"a": torch.zeros(1)}, path)
    else:
        path.write_bytes({"truncated": whole[:-10], "text": b"hello", "empty": b""}[damage])
    with pytest.raises(WeightsError, match="no whole safetensors file"):
        weights.load(torch.nn.Linear(30, 20), path)


def test_a_header_that_is_no_json(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "w.safetensors", {"senet": "{"})
    with pytest.raises(WeightsError, match="no whole safetensors file"):
        weights.read(tmp_path / "w.safetensors")


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no file last\.safetensors in the folder"):
        weights.read(tmp_path)
    with pytest.raises(WeightsError, match="cannot be written"):
        weights.save(torch.nn.Linear(1, 1), tmp_path / "no" / "w.safetensors")
    with pytest.raises(OptionError, match="layout='timm'"):
        weights.save(torch.nn.Linear(1, 1), tmp_path / "w.safetensors", layout="timm")


def test_what_was_inserted_into_is_not_what_its_config_builds(tmp_path: Path) -> None:
    model = senet.build("resnet20", num_classes=3)
    senet.insert(model)
    senet.weights.save(model, tmp_path / "w.safetensors")
    assert "network" not in senet.weights.read(tmp_path / "w.safetensors")[0]
    with pytest.raises(WeightsError, match=r"with senet\.insert if it was inserted into"):
        senet.load(tmp_path / "w.safetensors")
    other = senet.build("resnet20", num_classes=3)
    senet.insert(other)
    senet.weights.load(other, tmp_path / "w.safetensors")
    assert torch.equal(
        other.get_parameter("layer1.0.se.fc1.weight"), model.get_parameter("layer1.0.se.fc1.weight")
    )
    senet.remove(model)
    senet.weights.save(model, tmp_path / "plain.safetensors")
    assert "network" in senet.weights.read(tmp_path / "plain.safetensors")[0]
