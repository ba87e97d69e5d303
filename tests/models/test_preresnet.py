"""The pre-activation networks: exact sizes, what a unit computes, and where SE stands in it."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import senet
from senet import SEConfig
from senet.errors import OptionError
from senet.models import NetworkConfig, parameter_count
from senet.models.preresnet import CifarNetwork, PreBasicUnit, PreBottleneckUnit, Row

UNITS: dict[str, Any] = {"basic": PreBasicUnit, "bottleneck": PreBottleneckUnit}
PLACES = [
    (kind, placement)
    for kind in UNITS
    for placement in ("standard", "pre", "post", "identity", "3x3")
    if (kind, placement) != ("basic", "3x3")
]


def small(kind: str, se: SEConfig | None = None, placement: str = "standard") -> Any:
    """Two units per stage, of which some project and some do not."""
    row = Row(UNITS[kind], 2, 16)
    return CifarNetwork(row, NetworkConfig("preresnet164", num_classes=3, se=se, placement=placement))


# ------------------------------------------------------------------ sizes


@pytest.mark.parametrize(
    ("name", "plain", "added"),
    [("preresnet110", 1_730_522, 14_238), ("preresnet164", 1_703_258, 202_104)],
)
def test_parameter_counts_of_the_facts(name: str, plain: int, added: int) -> None:
    """The plain sizes are pytorchcv's too.

    Its SE networks have 1,744,664 and 1,904,882 parameters, 96 and 480 fewer than these: they norm the
    stem, which is 32 more, and lack the last norm, 128 and 512. Its plain networks do neither.
    """
    assert parameter_count(name, num_classes=10) == plain
    assert parameter_count(f"se_{name}", num_classes=10) == plain + added


def test_parameter_count_of_the_wide_network() -> None:
    """Counted by hand: the stem, the last norm, the classifier; a stage has two units of two convolutions."""
    count = 3 * 16 * 9 + 2 * 512 + 512 * 10 + 10
    entering = 16
    for width in (128, 256, 512):
        count += 2 * entering + entering * width * 9 + entering * width  # A norm, a 3×3, the projection.
        count += 3 * (2 * width + width * width * 9)
        entering = width
    assert count == 10_961_370
    assert parameter_count("wrn16_8", num_classes=10) == count
    added = sum(2 * (2 * c * (c // 16) + c + c // 16) for c in (128, 256, 512))
    assert parameter_count("se_wrn16_8", num_classes=10) == count + added


# ------------------------------------------------------------------ structure


@pytest.mark.parametrize(
    ("name", "depth", "widths", "projections"),
    [
        ("preresnet110", 110, (16, 32, 64), ["layer2.0", "layer3.0"]),
        ("preresnet164", 164, (64, 128, 256), ["layer1.0", "layer2.0", "layer3.0"]),
        ("wrn16_8", 14, (128, 256, 512), ["layer1.0", "layer2.0", "layer3.0"]),
    ],
)
def test_depth_widths_and_projections(
    name: str, depth: int, widths: tuple[int, ...], projections: list[str]
) -> None:
    with torch.device("meta"):
        model: Any = senet.build(name)
    convs = {path: each for path, each in model.named_modules() if isinstance(each, nn.Conv2d)}
    bare = [path for path in convs if path.endswith("downsample")]
    assert len(convs) - len(bare) + 1 == depth
    assert [path.removesuffix(".downsample") for path in bare] == projections
    assert all(convs[path].kernel_size == (1, 1) and convs[path].bias is None for path in bare)
    found = [(level.stage, level.channels, level.stride) for level in model.pyramid_info]
    assert found == list(zip((2, 3, 4), widths, (1, 2, 4), strict=True))


@pytest.mark.parametrize(
    ("name", "layout", "conv"),
    [
        ("preresnet110", "modern", "conv1"),
        ("preresnet110", "original", "conv1"),
        ("preresnet164", "modern", "conv2"),
        ("preresnet164", "original", "conv1"),
    ],
)
def test_the_convolution_with_the_stride(name: str, layout: str, conv: str) -> None:
    with torch.device("meta"):
        model = senet.build(name, layout=layout)
    convs = {path: each for path, each in model.named_modules() if isinstance(each, nn.Conv2d)}
    strided = {path for path, each in convs.items() if each.stride == (2, 2)}
    assert strided == {f"layer{k}.0.{each}" for k in (2, 3) for each in (conv, "downsample")}


@pytest.mark.parametrize(("kind", "placement"), PLACES)
@pytest.mark.parametrize("projects", [False, True])
def test_each_placement_gates_its_tensor(kind: str, placement: str, projects: bool) -> None:
    """Closing every gate shows what it gates: the output is then computed by hand."""
    model = small(kind, SEConfig(gate="relu"), placement).double().train()
    model(torch.randn(8, 3, 8, 8, dtype=torch.float64) + 1)  # Running statistics that are no round numbers.
    unit: Any = model.eval().layer2[0 if projects else 1]
    nn.init.zeros_(unit.se.fc2.weight)
    nn.init.constant_(unit.se.fc2.bias, -1)
    x = torch.randn(2, unit.channels.entering, 8, 8, dtype=torch.float64)
    kept = x.clone()

    def branch(start: Tensor, closed: bool = False) -> Tensor:
        u = unit.conv2(unit.bn2(unit.conv1(start)).relu())
        if kind == "bottleneck":
            u = unit.conv3(unit.bn3(u).relu() * (0 if closed else 1))
        return u  # type: ignore[no-any-return]

    activated = unit.bn1(x).relu()
    shortcut = unit.downsample(activated) if projects else x
    ungated = activated * 0 if projects else unit.bn1(x * 0).relu()
    wanted = {
        "standard": lambda: shortcut,
        "pre": lambda: branch(ungated) + shortcut,
        "post": lambda: shortcut * 0,
        "identity": lambda: branch(activated),
        "3x3": lambda: branch(activated, closed=True) + shortcut,
    }[placement]()
    torch.testing.assert_close(unit(x), wanted)
    assert torch.equal(x, kept)
    # Open again, the unit is He et al.'s with an activation before each convolution and none at its end.
    unit.se = None
    torch.testing.assert_close(unit(x), branch(activated) + shortcut)


def test_the_classifier_sees_the_last_map_of_the_pyramid() -> None:
    model = small("basic").eval()
    x = torch.randn(2, 3, 16, 16)
    last = model.pyramid(x)[-1]
    assert last.min() == 0
    torch.testing.assert_close(model.fc(last.mean((2, 3))), model(x))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("kind", UNITS)
@pytest.mark.parametrize("se", [None, SEConfig()])
def test_no_level_overwrites_a_map_of_the_pyramid(kind: str, training: bool, se: SEConfig | None) -> None:
    model = small(kind, se).train(training)
    x = torch.randn(2, 3, 16, 16)
    maps = model.pyramid(x)
    assert [each.shape[-1] for each in maps] == [16, 8, 4]
    for level, found in zip(model.pyramid_info, maps, strict=True):
        for name in level.modules:
            x = getattr(model, name)(x.clone())
        torch.testing.assert_close(found, x, rtol=0, atol=0)


# ------------------------------------------------------------------ SE


@pytest.mark.parametrize(("kind", "placement"), PLACES)
def test_se_that_is_inserted_is_se_that_is_built(kind: str, placement: str) -> None:
    built, inserted = small(kind, SEConfig(), placement), small(kind)
    senet.insert(inserted, placement=placement, init="random")
    assert list(inserted.state_dict()) == list(built.state_dict())
    built(torch.randn(8, 3, 8, 8) + 1)
    inserted.load_state_dict(built.state_dict())
    x = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(inserted.eval()(x), built.eval()(x), rtol=0, atol=0)


@pytest.mark.parametrize(
    "name", ["wrn16_8", *(pytest.param(f"preresnet{n}", marks=pytest.mark.slow) for n in (110, 164))]
)
def test_every_unit_gets_se(name: str) -> None:
    with torch.device("meta"):
        plain, se = senet.build(name), senet.build(f"se_{name}")
    senet.insert(plain, init="random", example=torch.empty(1, 3, 32, 32, device="meta"))
    assert list(plain.state_dict()) == list(se.state_dict())


@pytest.mark.parametrize(("kind", "placement"), PLACES)
def test_a_step_is_the_same_layer_by_layer(kind: str, placement: str) -> None:
    """The fused tails, in training: outputs, gradients and running statistics."""
    steps = []
    for backend in ("composite", "reference"):
        torch.manual_seed(1)
        model = small(kind, SEConfig(), placement).double()
        for module in model.modules():
            if isinstance(module, senet.SqueezeExcitation):
                module.backend = backend
        out = model(torch.randn(4, 3, 8, 8, dtype=torch.float64))
        gradients = torch.autograd.grad(out.square().sum(), list(model.parameters()))
        steps.append([out, *gradients, *model.buffers()])
    for one, other in zip(*steps, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)


# ------------------------------------------------------------------ options


def test_stages_dropout_and_layout_are_options() -> None:
    model: Any = senet.build("se_wrn16_8", num_classes=4, stages=[3], dropout=0.3, layout="original")
    assert [unit.se is not None for k in (1, 2, 3) for unit in getattr(model, f"layer{k}")] == [
        *[False] * 2,
        *[True] * 2,
        *[False] * 2,
    ]
    assert model.dropout.p == 0.3
    assert str(model.layer2) == str(senet.build("se_wrn16_8").layer2)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("se_preresnet110", {"placement": "3x3"}, "units are basic"),
        ("se_preresnet164", {"stages": [5]}, "there is no stage 5"),
        ("wrn16_8", {"dropout": 1}, "dropout"),
        ("wrn16_8", {"shortcut": "pad"}, "shortcut"),
    ],
)
def test_options_that_do_not_fit(name: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        senet.build(name, **options)
