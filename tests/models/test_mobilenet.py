"""MobileNet: the sizes of its paper and of Table 3, and where SE stands."""

from typing import Any

import pytest
import torch
from tests.models.settled import settled
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import senet
from senet import SEConfig, SqueezeExcitation
from senet.errors import OptionError
from senet.models import parameter_count


def test_parameter_counts_of_the_facts() -> None:
    counts = [parameter_count("mobilenet_v1", se=se) for se in (None, SEConfig(bias=False), SEConfig())]
    assert counts == [4_231_976, 4_711_720, 4_718_044]


@pytest.mark.parametrize(("width", "published"), [(0.25, 0.5), (0.5, 1.3), (0.75, 2.6), (1, 4.2)])
def test_the_width_multipliers_of_its_paper(width: float, published: float) -> None:
    """Howard et al. 2017, Table 6, in millions."""
    assert round(parameter_count("mobilenet_v1", width=width) / 1e6, 1) == published


def test_multiply_adds_of_the_facts() -> None:
    with torch.device("meta"):
        model = senet.build("mobilenet_v1").eval()
        with FlopCounterMode(display=False) as counter:
            model(torch.empty(1, 3, 224, 224))
    assert round(counter.get_total_flops() / 2e6, 1) == 568.7


def test_the_pyramid() -> None:
    model: Any = senet.build("mobilenet_v1", num_classes=5, width=0.25).eval()
    maps = model.pyramid(torch.randn(1, 3, 64, 64))
    assert [tuple(each.shape[1:]) for each in maps] == [
        (16, 32, 32),
        (32, 16, 16),
        (64, 8, 8),
        (128, 4, 4),
        (256, 2, 2),
    ]
    assert [(level.stage, level.channels, level.stride) for level in model.pyramid_info] == [
        (1, 16, 2),
        (2, 32, 4),
        (3, 64, 8),
        (4, 128, 16),
        (5, 256, 32),
    ]


def test_convolutions_are_depthwise_and_pointwise_in_turn() -> None:
    with torch.device("meta"):
        model = senet.build("mobilenet_v1")
    first, *convs = [each for each in model.modules() if isinstance(each, nn.Conv2d)]
    assert (first.kernel_size, first.stride, first.out_channels) == ((3, 3), (2, 2), 32)
    assert len(convs) == 2 * 13
    for depthwise, pointwise in zip(convs[::2], convs[1::2], strict=True):
        assert depthwise.groups == depthwise.in_channels == depthwise.out_channels == pointwise.in_channels
        assert (depthwise.kernel_size, pointwise.kernel_size) == ((3, 3), (1, 1))
        assert (pointwise.groups, pointwise.stride) == (1, (1, 1))


def test_se_gates_what_the_pointwise_convolution_gives_after_its_relu() -> None:
    unit: Any = senet.build("se_mobilenet_v1", width=0.25).eval().get_submodule("layer2.0")
    x = torch.randn(2, 16, 8, 8)
    last = unit.pointwise
    u = last.bn(last.conv(unit.depthwise(x))).relu()
    torch.testing.assert_close(unit(x), u * unit.se.gate(u)[:, :, None, None])


def test_stages_get_se_where_asked() -> None:
    with torch.device("meta"):
        model = senet.build("se_mobilenet_v1", stages=[1, 5])
    blocks = [name for name, each in model.named_modules() if isinstance(each, SqueezeExcitation)]
    assert blocks == ["layer1.0.se", "layer5.0.se", "layer5.1.se"]


def test_inserting_is_building() -> None:
    x = torch.randn(4, 3, 64, 64, dtype=torch.float64)
    built = settled(senet.build("se_mobilenet_v1", num_classes=5, width=0.25).double(), x)
    plain = senet.build("mobilenet_v1", num_classes=5, width=0.25).double().eval()
    senet.insert(plain, init="random")
    assert list(plain.state_dict()) == list(built.state_dict())
    plain.load_state_dict(built.state_dict())
    with torch.no_grad():
        wanted = built(x)
        torch.testing.assert_close(plain(x), wanted)
        senet.accelerate(plain)
        torch.testing.assert_close(plain(x), wanted)


@pytest.mark.parametrize(
    "options",
    [
        {"width": 0.24},
        {"width": -1},
        {"width": float("nan")},
        {"width": float("inf")},
        {"width": "1"},
        {"placement": "pre"},
        {"stages": [6]},
        {"se": SEConfig(reduction=128)},
    ],
)
def test_what_is_not_possible(options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(OptionError, match=name if name != "se" else "hidden width"), torch.device("meta"):
        senet.build("se_mobilenet_v1", **options)
