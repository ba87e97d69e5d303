import re
from typing import Any

import pytest
import torch
from tests.acceleration.held import blocks_of
from torch import Tensor, nn

import senet
from senet.acceleration.constants import constant_gates
from senet.errors import OptionError


def _block(channels: int = 8, **options: Any) -> Any:
    block = senet.SqueezeExcitation(channels, hidden=2, **options)
    nn.init.normal_(block.fc1.bias)
    nn.init.normal_(block.fc2.bias)
    return block


def _gates(block: nn.Module, *, positive: bool = False) -> Tensor:
    return constant_gates("asked", block, 8, 4, positive=positive)


def test_the_identity_start_gives_exactly_one() -> None:
    for gate in ("sigmoid", "tanh", "relu", "hardsigmoid"):
        assert torch.equal(
            _gates(senet.SqueezeExcitation(8, 4, gate=gate, init="identity")), torch.ones(8).double()
        )


@pytest.mark.parametrize("squeeze", ["avg", "max", "none"])
def test_a_last_layer_of_zeros_leaves_its_bias(squeeze: str) -> None:
    block = _block(squeeze=squeeze)
    nn.init.zeros_(block.fc2.weight)
    torch.testing.assert_close(_gates(block), block.fc2.bias.double().sigmoid())


def test_hidden_units_without_weights_are_constants_of_the_gate() -> None:
    block = _block()
    nn.init.zeros_(block.fc1.weight)
    u = torch.randn(3, 8, 5, 5)
    torch.testing.assert_close(_gates(block).float().expand(3, 8), block.gate(u))
    # One that varies is enough, if it reaches a gate.
    block.fc1.weight.data[1, 2] = 1.0
    with pytest.raises(OptionError, match="8 of its 8 channels depend on the image"):
        _gates(block)
    block.fc2.weight.data[:, 1] = 0.0
    torch.testing.assert_close(_gates(block).float().expand(3, 8), block.gate(u))


def _dead(channels: int) -> Any:
    """A block whose hidden units no map without negative numbers opens."""
    block = _block(channels)
    for tensor in (block.fc1.weight, block.fc1.bias):
        tensor.data.abs_().neg_()
    return block


def test_hidden_units_that_no_map_opens_are_dead() -> None:
    block = _dead(8)
    with pytest.raises(OptionError, match="not constant"):
        _gates(block)
    u = torch.rand(3, 8, 5, 5)
    torch.testing.assert_close(_gates(block, positive=True).float().expand(3, 8), block.gate(u))


def test_a_map_after_a_relu_is_known_to_be_positive() -> None:
    model: Any = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), _dead(8), nn.Conv2d(8, 2, 3))
    assert len(senet.fold_gates(model, "2").state_dict()) == 4
    model[1] = nn.SiLU()
    with pytest.raises(OptionError, match="not constant"):
        senet.fold_gates(model, "2")
    # Nothing is known of what a network is given.
    with pytest.raises(OptionError, match="not constant"):
        senet.fold_gates(nn.Sequential(_dead(3), nn.Conv2d(3, 2, 1)), "0")


def test_modules_of_others_are_read_too() -> None:
    import torchvision

    model = torchvision.models.mobilenet_v3_small()
    name, channels = list(blocks_of(model).items())[1]
    block: Any = model.get_submodule(name)
    nn.init.zeros_(block.fc2.weight)
    wanted = nn.functional.hardsigmoid(block.fc2.bias.double())
    torch.testing.assert_close(constant_gates("asked", block, channels, 4), wanted)


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (senet.SqueezeExcitation(8, 4, bias=False), "8 of its 8 channels depend on the image"),
        (senet.SqueezeExcitation(8, 4).to("meta"), "it is on meta"),
        (nn.Sequential(nn.Conv2d(8, 8, 1)), "it has 1 layers, and SE has two"),
    ],
)
def test_what_is_not_known_to_be_constant_is_refused(block: nn.Module, message: str) -> None:
    with pytest.raises(OptionError, match=re.escape(message)) as caught:
        _gates(block)
    assert "senet.record_gates" in str(caught.value)
