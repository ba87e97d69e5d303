import copy
import json
import os
import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import senet
from senet import weights
from senet.errors import WeightsError
from senet.weights.store import fingerprint


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


def test_the_same_weights_are_the_same_bytes(tmp_path: Path) -> None:
    model = senet.build("se_resnet20")
    for name in ("a", "b"):
        weights.save(model, tmp_path / name, header={"classes": ["x"], "data": "digits"})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert weights.read(tmp_path / "a")[0].keys() == {"network", "classes", "data"}


def test_every_bit_that_turns_over_is_noticed(tmp_path: Path) -> None:
    """Bar R6: a thousand bits, most of them in the header of a small file."""
    path = tmp_path / "w.safetensors"
    weights.save(torch.nn.Conv2d(3, 2, 1), path, header={"classes": ['"senet.sha256": "', "é"]})
    small = path.read_bytes()
    weights.save(senet.build("se_resnet20"), path)
    large = path.read_bytes()
    weights.save(senet.build("resnet18", num_classes=1), path, layout="timm")
    theirs = path.read_bytes()
    random.seed(0)
    bits = [(small, bit) for bit in random.sample(range(8 * len(small)), 700)]
    bits += [(large, bit) for bit in random.sample(range(8 * len(large)), 250)]
    # A file for another library too, when senet reads it back: in what is before the tensors, and in them.
    bits += [(theirs, bit) for bit in (*random.sample(range(64_000), 40), 8 * len(theirs) - 1)]
    for content, bit in bits:
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with pytest.raises(WeightsError, match="no whole safetensors file"):
            weights.read(path)


def test_a_file_from_before_there_were_checksums(tmp_path: Path) -> None:
    tensors = senet.build("resnet20").state_dict()
    header = {"network": senet.build("resnet20").config.to_dict()}
    save_file(tensors, tmp_path / "w.safetensors", {"senet": json.dumps(header)})
    assert senet.load(tmp_path / "w.safetensors").config.name == "resnet20"  # type: ignore[union-attr]


@pytest.mark.parametrize("damage", ["truncated", "text", "empty"])
def test_broken_files(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "w.safetensors"
    weights.save(torch.nn.Linear(30, 20), path)
    whole = path.read_bytes()
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


def test_what_was_inserted_into_is_not_what_its_config_builds(tmp_path: Path) -> None:
    model = senet.build("resnet20", num_classes=3)
    senet.insert(model)
    senet.weights.save(model, tmp_path / "w.safetensors")
    assert "network" not in senet.weights.read(tmp_path / "w.safetensors")[0]
    with pytest.raises(WeightsError, match=r"with senet\.insert if SE was inserted"):
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


def test_equal_weights_have_one_fingerprint_and_others_another() -> None:
    model = senet.build("se_resnet20", num_classes=3)
    before = fingerprint(model)
    assert fingerprint(copy.deepcopy(model).to(memory_format=torch.channels_last)) == before
    with torch.no_grad():
        model.get_parameter("layer1.0.se.fc1.bias").add_(1e-6)
    assert fingerprint(model) != before
