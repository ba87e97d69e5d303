import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import senet
from senet import weights
from senet.errors import OptionError, WeightsError


def test_layout_and_blocks_follow_the_weights(tmp_path: Path) -> None:
    saved = senet.build("se_resnet18", layout="original", se=senet.SEConfig(4, gate="tanh"), num_classes=3)
    weights.save(saved, tmp_path / "w.safetensors")
    loaded = senet.build("se_resnet18", weights=tmp_path / "w.safetensors", num_classes=3)
    assert loaded.config == saved.config
    assert torch.equal(loaded.conv1.weight, saved.conv1.weight)  # type: ignore[union-attr, arg-type]
    with pytest.raises(WeightsError, match="layout original, not modern"):
        senet.build("se_resnet18", weights=tmp_path / "w.safetensors", num_classes=3, layout="modern")
    config = senet.SEConfig(gate="tanh")
    with pytest.raises(WeightsError, match=r"fc1\.bias \(16,\), not \(4,\)"):
        senet.build("se_resnet18", weights=tmp_path / "w.safetensors", num_classes=3, se=config)


def test_a_state_dict_of_ours_needs_the_callers_word(tmp_path: Path) -> None:
    saved = senet.build("se_resnet18", se=senet.SEConfig(8, bias=False))
    torch.save(saved.state_dict(), tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="nothing in them says where the strides and paddings"):
        senet.build("se_resnet18", weights=tmp_path / "w.pth")
    loaded = senet.build("se_resnet18", weights=tmp_path / "w.pth", layout="modern")
    assert loaded.config.se == saved.config.se  # the widths and biases are seen
    # A network that has no layouts has no question.
    torch.save(senet.build("se_resnet20", num_classes=3).state_dict(), tmp_path / "cifar.pth")
    assert (
        senet.build("se_resnet20", num_classes=3, weights=tmp_path / "cifar.pth").config.se
        == senet.SEConfig()
    )


def test_without_weights_it_is_modern() -> None:
    assert senet.build("se_resnet18").config.layout == "modern"


def test_a_header_that_claims_too_much_costs_nothing(tmp_path: Path) -> None:
    tensors = senet.build("se_resnet20").state_dict()
    for hidden in (3_000_000, 2**61):
        network = senet.build("se_resnet20").config.to_dict()
        network["se"]["hidden"] = hidden
        save_file(tensors, tmp_path / "w.safetensors", {"senet": json.dumps({"network": network})})
        with pytest.raises(WeightsError):
            senet.build("se_resnet20", weights=tmp_path / "w.safetensors")


def test_an_option_of_the_callers_is_the_callers_error(tmp_path: Path) -> None:
    weights.save(senet.build("se_resnet18"), tmp_path / "w.safetensors")
    with pytest.raises(OptionError, match="3x3"):
        senet.build("se_resnet18", weights=tmp_path / "w.safetensors", placement="3x3")
