"""Inception-ResNet-v2: its exact size, timm's outputs, and SE at the end of each unit's branch."""

import copy
from functools import cache
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import senet
from senet import SEConfig, SqueezeExcitation
from senet.errors import OptionError
from senet.models.inception_resnet import BLOCK17, Unit

# Name, number and channels of the units of each stage, and their names in timm's network.
STAGES = {3: ("block35", 10, 320), 4: ("block17", 20, 1088), 5: ("block8", 10, 2080)}
UNITS = [f"{name}.{k}" for name, depth, _ in STAGES.values() for k in range(depth)]
CHANNELS = [channels for _, depth, channels in STAGES.values() for _ in range(depth)]
TIMMS_UNITS = [
    *(f"repeat.{k}" for k in range(10)),
    *(f"repeat_1.{k}" for k in range(20)),
    *(f"repeat_2.{k}" for k in range(9)),
    "block8",
]


@cache
def on_meta(name: str, **options: Any) -> Any:
    """Made once: to follow so deep a network takes a second or two."""
    with torch.device("meta"):
        return senet.build(name, **options).eval()


def image(size: int) -> Tensor:
    return torch.empty(2, 3, size, size, device="meta")


def blocks(model: nn.Module) -> list[str]:
    return [name for name, m in model.named_modules() if isinstance(m, SqueezeExcitation)]


def size(model: nn.Module) -> int:
    return sum(each.numel() for each in model.parameters())


def test_sizes_of_the_facts() -> None:
    plain, se = on_meta("inception_resnet_v2"), on_meta("se_inception_resnet_v2")
    assert size(plain) == 55_843_464
    assert size(se) - size(plain) == sum(map(SEConfig().parameters, CHANNELS)) == 8_543_980
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        plain(image(299))
    assert round(counter.get_total_flops() / 4e9, 2) == 13.16


def test_timms_weights_in_their_order_give_its_outputs() -> None:
    theirs: Any = timm.create_model("inception_resnet_v2", num_classes=5).double().eval()
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.2, 1)
    with torch.device("meta"):
        ours = senet.build("inception_resnet_v2", num_classes=5).eval()
    state = dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True))
    ours.load_state_dict(state, assign=True)
    x = torch.randn(2, 3, 139, 120, dtype=torch.float64)
    with torch.no_grad():
        found, wanted = ours(x), theirs(x)
    assert found.std(0).min() > 1e-6
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)


def test_se_stands_before_the_scaling_as_in_timms_network() -> None:
    with torch.device("meta"):
        plans = [
            senet.plan(network, example=image(299))
            for network in (on_meta("inception_resnet_v2"), timm.create_model("inception_resnet_v2"))
        ]
    for plan, units, last in zip(plans, (UNITS, TIMMS_UNITS), ("up", "conv2d"), strict=True):
        assert [str(site.attachment) for site in plan] == [f"output of {unit}.{last}" for unit in units]
        assert [site.channels for site in plan] == CHANNELS
    assert blocks(on_meta("se_inception_resnet_v2")) == [f"{unit}.se" for unit in UNITS]


def test_stages_get_se_where_asked() -> None:
    assert blocks(on_meta("se_inception_resnet_v2", stages=(5,))) == [f"block8.{k}.se" for k in range(10)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stages": (2,)}, "Allowed: 3, 4, 5"),
        # The branch is several from its start on.
        ({"placement": "pre"}, "no unit of InceptionResNetV2 has that place"),
        pytest.param({"placement": "3x3"}, "has that place", marks=pytest.mark.slow),
    ],
)
def test_what_does_not_exist_is_an_error(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        on_meta("se_inception_resnet_v2", **options)


@pytest.mark.slow
@pytest.mark.parametrize("placement", ["standard", "post", "identity"])
def test_each_placement_gates_its_tensor(placement: str) -> None:
    """Closing a gate shows what it gates."""
    config = SEConfig(gate="relu")
    model = senet.build("se_inception_resnet_v2", placement=placement, se=config, num_classes=3).eval()
    unit: Any = model.get_submodule("block17.3")
    nn.init.zeros_(unit.se.fc2.weight)
    nn.init.constant_(unit.se.fc2.bias, -1)
    plain = Unit(1088, BLOCK17, 0.10).eval()
    plain.load_state_dict(unit.state_dict(), strict=False)
    x = torch.randn(2, 1088, 7, 7)
    branch = 0.10 * plain.up(plain.branches(x))
    wanted = {"standard": x, "post": torch.zeros_like(x), "identity": branch}[placement].relu()
    torch.testing.assert_close(unit(x), wanted)


def test_insertion_gives_the_same_network_and_no_map_is_overwritten() -> None:
    built = copy.deepcopy(on_meta("se_inception_resnet_v2"))
    inserted = copy.deepcopy(on_meta("inception_resnet_v2"))
    senet.insert(inserted, example=image(139), init="random")
    state = {key: torch.randn(value.shape) / 10 for key, value in built.state_dict().items()}
    state |= senet.build("inception_resnet_v2").state_dict()
    for model in (built, inserted):
        assert list(model.state_dict()) == list(state)
        model.load_state_dict(state, assign=True)

    seen: list[Tensor] = []
    for level in built.pyramid_info:
        last = built.get_submodule(level.modules[-1])
        last.register_forward_hook(lambda module, args, out: seen.append(out.clone()))
    x = torch.randn(2, 3, 97, 107)
    with torch.no_grad():
        assert torch.equal(inserted(x), built(x))
        seen.clear()
        maps = built.pyramid(x)
    assert all(torch.equal(map_, then) for map_, then in zip(maps, seen, strict=True))


@pytest.mark.parametrize(
    ("side", "sides"),
    [
        (75, [35, 15, 7, 3, 1]),
        (97, [46, 20, 9, 4, 1]),
        (225, [110, 52, 25, 12, 5]),
        (299, [147, 71, 35, 17, 8]),
    ],
)
def test_maps_are_a_little_smaller_than_their_stride_says(side: int, sides: list[int]) -> None:
    model = on_meta("inception_resnet_v2")
    maps = model.pyramid(image(side))
    assert [each.shape[-1] for each in maps] == sides
    assert [each.shape[1] for each in maps] == [level.channels for level in model.pyramid_info]
    assert [(level.stage, level.stride) for level in model.pyramid_info] == [
        (k, 2**k) for k in (1, 2, 3, 4, 5)
    ]


def test_the_unit_at_the_end_is_neither_scaled_nor_activated() -> None:
    *units, last = on_meta("inception_resnet_v2").block8
    assert {unit.scale for unit in units} == {0.2}
    assert last.scale == 1
    assert [type(unit.relu) for unit in (*units, last)] == [*[nn.ReLU] * 9, nn.Identity]


def test_the_options() -> None:
    with torch.device("meta"):
        model: Any = senet.build("inception_resnet_v2", in_channels=1, num_classes=7, dropout=0.3)
    assert on_meta("inception_resnet_v2").dropout.p == 0.2
    assert model.dropout.p == 0.3
    assert model(torch.empty(2, 1, 75, 75, device="meta")).shape == (2, 7)
