"""The residual units: where SE stands, and the shortcut without parameters."""

from typing import Any

import pytest
import torch
from torch import nn

import senet
from senet import SEConfig
from senet.models.units import PadShortcut


@pytest.mark.parametrize("placement", ["standard", "pre", "post", "identity", "3x3"])
def test_each_placement_gates_its_tensor(placement: str) -> None:
    """Closing every gate shows what it gates: the output is then computed by hand."""
    model = senet.build("se_resnet50", placement=placement, se=SEConfig(gate="relu")).eval()
    unit: Any = model.get_submodule("layer1.0")
    for block in (unit.se,):
        nn.init.zeros_(block.fc2.weight)
        nn.init.constant_(block.fc2.bias, -1)
    x = torch.randn(2, 64, 8, 8)
    shortcut = unit.downsample(x)

    def branch(u: torch.Tensor, closed_after_3x3: bool = False) -> torch.Tensor:
        u = unit.bn1(unit.conv1(u)).relu()
        u = unit.bn2(unit.conv2(u)).relu()
        out: torch.Tensor = unit.bn3(unit.conv3(u * 0 if closed_after_3x3 else u))
        return out

    wanted = {
        "standard": shortcut,
        "pre": branch(x * 0) + shortcut,
        "post": torch.zeros_like(shortcut),
        "identity": branch(x),
        "3x3": branch(x, closed_after_3x3=True) + shortcut,
    }[placement].relu()
    torch.testing.assert_close(unit(x), wanted)


def test_the_pad_shortcut() -> None:
    x = torch.randn(2, 3, 5, 6)
    out = PadShortcut(3, 8, 2)(x)
    assert out.shape == (2, 8, 3, 3)
    assert torch.equal(out[:, 2:5], x[:, :, ::2, ::2])
    assert not out[:, :2].any()
    assert not out[:, 5:].any()
