"""ShuffleNet: its size, its two kinds of unit, and SE before the sum or the concatenation."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

import senet
from senet import SEConfig, SqueezeExcitation
from senet.errors import OptionError
from senet.models import parameter_count
from senet.models.shufflenet import ShuffleUnit, shuffle

# What SE gates: the branch of a unit with a stride gives what its shortcut lacks.
GATED = [216, *[240] * 3, 240, *[480] * 7, 480, *[960] * 3]
PLAIN = 1_865_728


def _build(name: str = "se_shufflenet_v1_g3", **options: Any) -> Any:
    """In evaluation, with running statistics that are no round numbers."""
    model = senet.build(name, num_classes=5, **options).double().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.get_buffer("running_mean"))
            nn.init.uniform_(module.get_buffer("running_var"), 0.5, 2)
    return model


def test_parameter_counts() -> None:
    """The facts have equation 5, 2 / r · Σ C² = 610,632 weights more; 216 // 16 is 13, not 13.5."""
    assert PLAIN + 2 * sum(channels**2 for channels in GATED) // 16 == 2_476_360
    counts = [parameter_count("shufflenet_v1_g3", se=se) for se in (None, SEConfig(bias=False), SEConfig())]
    assert counts == [PLAIN, 2_476_360 - 216, 2_484_533]


def test_multiply_adds_of_the_facts() -> None:
    with torch.device("meta"):
        model = senet.build("shufflenet_v1_g3").eval()
        with FlopCounterMode(display=False) as counter:
            model(torch.empty(1, 3, 224, 224))
    assert round(counter.get_total_flops() / 2e6, 1) == 137.5


@pytest.mark.parametrize("layout", ["modern", "original"])
def test_the_pyramid(layout: str) -> None:
    model: Any = _build("shufflenet_v1_g3", layout=layout)
    maps = model.pyramid(torch.randn(1, 3, 64, 64, dtype=torch.float64))
    wanted = [(24, 32, 32), (24, 16, 16), (240, 8, 8), (480, 4, 4), (960, 2, 2)]
    assert [tuple(each.shape[1:]) for each in maps] == wanted
    found = [(level.stage, level.channels, level.stride) for level in model.pyramid_info]
    assert found == [(1, 24, 2), (2, 24, 4), (3, 240, 8), (4, 480, 16), (5, 960, 32)]


def test_the_first_convolution_of_the_first_unit_alone_is_not_grouped() -> None:
    with torch.device("meta"):
        model: Any = senet.build("shufflenet_v1_g3")
    units = [unit for stage in (3, 4, 5) for unit in getattr(model, f"layer{stage}")]
    assert [unit.conv1.groups for unit in units] == [1, *[3] * 15]
    assert {unit.conv3.groups for unit in units} == {3}
    assert [unit.conv3.out_channels for unit in units] == GATED
    assert [unit.conv2.stride[0] for unit in units] == [2, 1, 1, 1, 2, *[1] * 7, 2, 1, 1, 1]
    assert all(unit.conv2.groups == unit.conv2.in_channels == unit.bn1.num_features for unit in units)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_shuffle(memory_format: torch.memory_format) -> None:
    x = torch.arange(6.0).view(1, 6, 1, 1).expand(2, 6, 3, 3).contiguous(memory_format=memory_format)
    shuffled = shuffle(x, 3)
    assert shuffled[0, :, 0, 0].tolist() == [0, 2, 4, 1, 3, 5]
    assert shuffled.is_contiguous(memory_format=memory_format)


def _branch(unit: Any, x: torch.Tensor) -> torch.Tensor:
    u = unit.bn1(unit.conv1(x)).relu()
    u = unit.bn2(unit.conv2(F.channel_shuffle(u, 3)))
    out: torch.Tensor = unit.bn3(unit.conv3(u))
    return out


@pytest.mark.parametrize("path", ["layer3.0", "layer4.0", "layer5.1"])
@pytest.mark.parametrize("name", ["shufflenet_v1_g3", "se_shufflenet_v1_g3"])
def test_a_unit_is_that_of_the_paper(name: str, path: str) -> None:
    unit = _build(name).get_submodule(path)
    x = torch.rand(2, unit.conv1.in_channels, 6, 6, dtype=torch.float64)
    with torch.no_grad():
        u = _branch(unit, x)
        u = u if unit.se is None else u * unit.se.gate(u)[:, :, None, None]
        wanted = u + x if unit.downsample is None else torch.cat([F.avg_pool2d(x, 3, 2, padding=1), u], 1)
        torch.testing.assert_close(unit(x), wanted.relu())


def test_stages_get_se_where_asked() -> None:
    with torch.device("meta"):
        model = senet.build("se_shufflenet_v1_g3", stages=[3, 5])
    blocks = [name for name, each in model.named_modules() if isinstance(each, SqueezeExcitation)]
    assert blocks == [f"layer{stage}.{unit}.se" for stage in (3, 5) for unit in range(4)]


def test_inserting_is_building() -> None:
    built, plain = _build(), _build("shufflenet_v1_g3")
    before = plain.state_dict()
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    senet.insert(plain, init="random")
    assert list(plain.state_dict()) == list(built.state_dict())
    plain.load_state_dict(built.state_dict())
    with torch.no_grad():
        wanted = built(x)
        torch.testing.assert_close(plain(x), wanted)
        assert len(senet.accelerate(plain).rows) == len(GATED)
        torch.testing.assert_close(plain(x), wanted)
    senet.accelerate(plain, backend="reference")
    senet.remove(plain)
    assert list(plain.state_dict()) == list(before)


@pytest.mark.parametrize("placement", ["pre", "post", "identity", "3x3"])
def test_units_with_a_sum_take_the_other_placements_by_insertion_alone(placement: str) -> None:
    """Closing every gate shows what it gates, as in ``test_units.py``."""
    with pytest.raises(OptionError, match="no sum"), torch.device("meta"):
        senet.build("se_shufflenet_v1_g3", placement=placement)
    model = _build("shufflenet_v1_g3")
    report = senet.insert(model, placement=placement, gate="relu", init="random")
    assert len(report) == len(GATED) - 3
    unit = model.layer4[1]
    nn.init.zeros_(unit.se.fc2.weight)
    nn.init.constant_(unit.se.fc2.bias, -1)
    x = torch.rand(2, 480, 5, 5, dtype=torch.float64)
    with torch.no_grad():
        wanted = {
            "pre": _branch(unit, x * 0) + x,
            "post": x * 0,
            "identity": _branch(unit, x),
            "3x3": unit.bn3(unit.conv3(x[:, :120] * 0)) + x,
        }[placement].relu()
        torch.testing.assert_close(unit(x), wanted)


def test_stages_without_units_have_no_se() -> None:
    with pytest.raises(OptionError, match="3, 4, 5"), torch.device("meta"):
        senet.build("se_shufflenet_v1_g3", stages=[2])


def test_a_strided_unit_activates_all_of_its_output() -> None:
    """Its input may be negative, as after a block with a tanh gate: SE at the identity changes nothing."""
    plain = ShuffleUnit(24, 240, 2, groups=1, se=None).eval()
    gated = ShuffleUnit(24, 240, 2, groups=1, se=SEConfig(init="identity")).eval()
    gated.load_state_dict(plain.state_dict(), strict=False)
    x = torch.randn(2, 24, 9, 8)
    assert plain(x).min() == 0
    torch.testing.assert_close(gated(x), plain(x), rtol=0, atol=0)
