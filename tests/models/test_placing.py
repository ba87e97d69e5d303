"""SE by the rules of insertion, as a part of the network."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.models.settled import settled

import senet
from senet import SEConfig
from senet.errors import InsertionError, UndefinedError

CONFIG = SEConfig(reduction=8, gate="tanh", squeeze="max", bias=False)


def test_blocks_are_of_the_config_and_the_networks_own(tmp_path: Path) -> None:
    model = senet.build("mobilenet_v1", se=CONFIG, num_classes=3, width=0.25)
    blocks = [module for module in model.modules() if isinstance(module, senet.SqueezeExcitation)]
    assert len(blocks) == 13
    assert {block.config for block in blocks} == {CONFIG}
    assert blocks[0].fc2.weight.any(), "freshly initialised, not as the identity"
    with pytest.raises(InsertionError, match="no block in it was put there by senet"):
        senet.remove(model)
    x = torch.randn(4, 3, 64, 64)
    senet.weights.save(settled(model, x), tmp_path / "w.safetensors")
    torch.testing.assert_close(senet.load(tmp_path / "w.safetensors")(x), model(x))


def test_the_identity_start_is_an_option_here_too() -> None:
    x = torch.randn(4, 3, 64, 64)
    plain = settled(senet.build("mobilenet_v1", num_classes=3, width=0.25), x)
    model = senet.build(
        "mobilenet_v1", num_classes=3, width=0.25, se=dataclasses.replace(CONFIG, init="identity")
    ).eval()
    model.load_state_dict(plain.state_dict(), strict=False)
    assert torch.equal(model(x), plain(x))


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"stages": [6]}, UndefinedError, "there is no stage 6. Allowed: 1, 2, 3, 4, 5"),
        ({"placement": "pre"}, UndefinedError, "no unit of VGG has that place"),
        ({"se": SEConfig(reduction=128)}, UndefinedError, "64 // 128 is 0"),
    ],
)
def test_what_cannot_be_placed(options: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words) as caught, torch.device("meta"):
        senet.build("se_vgg16_bn", **options)
    assert type(caught.value) is error
