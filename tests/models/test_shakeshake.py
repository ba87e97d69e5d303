"""Shake-Shake: how branches are mixed and their gradients are, exact sizes, and where SE stands."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import senet
from senet import SEConfig
from senet.errors import OptionError
from senet.models import NetworkConfig, parameter_count
from senet.models.preresnet import CifarNetwork, Row
from senet.models.shakeshake import Mix, ShakeBasicUnit, ShakeBottleneckUnit, ShiftedProjection

ROWS = {
    "26": Row(partial(ShakeBasicUnit, even=False), 2, 16, before=("conv1", "bn1"), after=("relu",)),
    "29": Row(partial(ShakeBottleneckUnit, even=True), 2, 4, before=("conv1", "bn1", "relu"), after=()),
}


def small(kind: str, se: SEConfig | None = None, placement: str = "standard") -> Any:
    """Two units per stage, of which some project and some do not."""
    config = NetworkConfig("shakeshake26_2x96d", num_classes=3, se=se, placement=placement)
    return CifarNetwork(ROWS[kind], config)


def two_maps(device: str = "cpu") -> tuple[Tensor, Tensor, Tensor]:
    a, b, g = torch.randn(3, 4, 5, 6, 6, dtype=torch.float64, device=device)
    return a.requires_grad_(), b.requires_grad_(), g


def draws(device: str = "cpu") -> tuple[Tensor, Tensor]:
    """The alpha and beta that follow the seed 7, which is set again."""
    torch.manual_seed(7)
    alpha, beta = torch.rand(2, 4, 1, 1, 1, dtype=torch.float64, device=device)
    torch.manual_seed(7)
    return alpha, beta


# ------------------------------------------------------------------ the mix


@pytest.mark.parametrize(("even", "compiled"), [(False, False), (False, True), (True, False)])
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_training_mixes_with_alpha_and_learns_with_beta(even: bool, compiled: bool, device: str) -> None:
    mix: Any = Mix(even=even)
    if compiled:
        mix.compile(fullgraph=True, backend="aot_eager")
    a, b, g = two_maps(device)
    alpha, beta = draws(device)
    out = mix(a, b)
    assert alpha.unique().numel() == 4
    torch.testing.assert_close(out, alpha * a + (1 - alpha) * b)
    of_a, of_b = torch.autograd.grad(out, (a, b), g)
    share = torch.full_like(beta, 0.5) if even else beta
    assert torch.equal(of_a, g * share)
    assert torch.equal(of_b, g * (1 - share))
    assert not torch.equal(mix(a, b), out)


def test_evaluation_takes_the_mean() -> None:
    a, b, g = two_maps()
    out = Mix(even=False).eval()(a, b)
    torch.testing.assert_close(out, (a + b) / 2)
    for gradient in torch.autograd.grad(out, (a, b), g):
        assert torch.equal(gradient, g / 2)


def test_a_random_gradient_has_no_gradient() -> None:
    a, b, g = two_maps()
    (of_a,) = torch.autograd.grad(Mix(even=False)(a, b), a, g.requires_grad_(), create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        of_a.sum().backward()


@pytest.mark.parametrize(("kind", "even"), [("26", False), ("29", True)])
def test_the_networks_shake_as_they_are_called(kind: str, even: bool) -> None:
    mixes = [module for module in small(kind).modules() if isinstance(module, Mix)]
    assert [mix.even for mix in mixes] == [even] * 6
    name = {"26": "shakeshake26_2x96d", "29": "shakeeven29_2x4x64d"}[kind]
    with torch.device("meta"):
        model = senet.build(name)
    assert {module.even for module in model.modules() if isinstance(module, Mix)} == {even}
    assert senet.info(name).classes == {"26": 10, "29": 100}[kind]


# ------------------------------------------------------------------ sizes


def test_parameter_count_of_26_2x96d() -> None:
    """Counted by hand; 26.2M in the table of Gastaldi's paper."""
    count = 3 * 16 * 9 + 2 * 16 + 384 * 10 + 10
    entering = 16
    for width in (96, 192, 384):
        convolutions = entering * width * 9 + 7 * width * width * 9  # Of one branch of each of 4 units.
        count += 2 * (convolutions + 8 * 2 * width)
        count += entering * width + 2 * width  # Both halves of the projection, and its norm.
        entering = width
    assert count == 26_192_922
    assert parameter_count("shakeshake26_2x96d", num_classes=10) == count
    added = sum(4 * (2 * c * (c // 16) + c + c // 16) for c in (96, 192, 384))
    assert parameter_count("se_shakeshake26_2x96d", num_classes=10) == count + added


def test_parameter_count_of_29_2x4x64d() -> None:
    """Counted by hand. Gastaldi's paper has 34.4M, which is this network without its 100 classes."""
    count = 3 * 64 * 9 + 2 * 64
    entering = 64
    for width in (256, 512, 1024):
        # Of one branch of 3 units: a 1×1, a 3×3 in 4 groups, a 1×1.
        convolutions = (entering + 2 * width) * width + 3 * width * width * 9 // 4 + 3 * width * width
        count += 2 * (convolutions + 9 * 2 * width)
        count += entering * width + 2 * width
        entering = width
    assert round(count / 1e6, 1) == 34.4
    count += 1024 * 100 + 100
    assert count == 34_529_700
    assert parameter_count("shakeeven29_2x4x64d", num_classes=100) == count
    added = sum(3 * (2 * c * (c // 16) + c + c // 16) for c in (256, 512, 1024))
    assert parameter_count("se_shakeeven29_2x4x64d", num_classes=100) == count + added


# ------------------------------------------------------------------ structure


@pytest.mark.parametrize(("stride", "size"), [(1, (4, 6)), (2, (4, 6)), (2, (5, 7))])
def test_the_shifted_projection(stride: int, size: tuple[int, int]) -> None:
    shortcut = ShiftedProjection(3, 8, stride)
    x = torch.randn(2, 3, *size)
    shifted = torch.zeros_like(x)
    shifted[:, :, 1:, 1:] = x[:, :, :-1, :-1]
    halves = [
        torch.einsum("nchw,kc->nkhw", each[:, :, ::stride, ::stride], conv.weight[:, :, 0, 0])
        for each, conv in ((x, shortcut.conv1), (shifted, shortcut.conv2))
    ]
    torch.testing.assert_close(shortcut(x), torch.cat(halves, 1))


@pytest.mark.parametrize("projects", [False, True])
@pytest.mark.parametrize("kind", ROWS)
@pytest.mark.parametrize("placement", ["standard", "pre", "post", "identity"])
def test_each_placement_gates_its_tensor(kind: str, placement: str, projects: bool) -> None:
    """Closing every gate shows what it gates: the output is then computed by hand."""
    model = small(kind, SEConfig(gate="relu"), placement).double()
    model(torch.randn(8, 3, 8, 8, dtype=torch.float64) + 1)  # Running statistics that are no round numbers.
    unit: Any = model.eval().layer2[0 if projects else 1]
    nn.init.zeros_(unit.se.fc2.weight)
    nn.init.constant_(unit.se.fc2.bias, -1)
    x = torch.randn(2, unit.channels.entering, 8, 8, dtype=torch.float64)
    kept = x.clone()

    def branch(start: Tensor) -> Tensor:
        return (unit.branch1(start) + unit.branch2(start)) / 2  # type: ignore[no-any-return]

    start = x.relu() if kind == "26" else x
    end = torch.relu if kind == "29" else torch.clone
    shortcut = unit.downsample(start) if projects else x
    wanted = {
        "standard": shortcut,
        "pre": branch(start * 0) + shortcut,
        "post": shortcut * 0,
        "identity": branch(start),
    }[placement]
    torch.testing.assert_close(unit(x), end(wanted))
    assert torch.equal(x, kept)
    unit.se = None
    torch.testing.assert_close(unit(x), end(branch(start) + shortcut))


@pytest.mark.parametrize(
    ("name", "kernels", "groups", "widths", "units"),
    [
        ("shakeshake26_2x96d", [3, 3], [1, 1], (96, 192, 384), 4),
        ("shakeeven29_2x4x64d", [1, 3, 1], [1, 4, 1], (256, 512, 1024), 3),
    ],
)
def test_branches_and_widths(
    name: str, kernels: list[int], groups: list[int], widths: tuple[int, ...], units: int
) -> None:
    with torch.device("meta"):
        model: Any = senet.build(name)
    found = [(level.stage, level.channels, level.stride) for level in model.pyramid_info]
    assert found == list(zip((2, 3, 4), widths, (1, 2, 4), strict=True))
    for stage, width in enumerate(widths):
        layer = getattr(model, f"layer{stage + 1}")
        assert len(layer) == units
        for index, unit in enumerate(layer):
            assert (unit.downsample is None) == (index > 0)
            for branch in (unit.branch1, unit.branch2):
                convs = [each for each in branch if isinstance(each, nn.Conv2d)]
                assert [each.kernel_size[0] for each in convs] == kernels
                assert [each.groups for each in convs] == groups
                assert [each.out_channels for each in convs] == [width] * len(kernels)
                strided = [each.kernel_size[0] for each in convs if each.stride[0] == 2]
                assert strided == ([3] if stage and index == 0 else [])


@pytest.mark.parametrize(("kind", "rectified"), [("26", False), ("29", True)])
def test_stem_and_end(kind: str, rectified: bool) -> None:
    """The stem of 26 2x96d has no ReLU, as its units start with one; the last map has one in both."""
    model = small(kind)
    x = torch.randn(2, 3, 16, 16)
    seen: list[Tensor] = []
    model.layer1.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    maps = model.pyramid(x)
    assert bool((seen[0] >= 0).all()) is rectified
    assert bool((maps[0] >= 0).all()) is rectified
    assert (maps[-1] >= 0).all()


@pytest.mark.parametrize("se", [None, SEConfig()])
@pytest.mark.parametrize("kind", ROWS)
def test_no_level_overwrites_a_map_of_the_pyramid(kind: str, se: SEConfig | None) -> None:
    model = small(kind, se).eval()
    x = torch.randn(2, 3, 16, 16)
    maps = model.pyramid(x)
    assert [each.shape[-1] for each in maps] == [16, 8, 4]
    for level, found in zip(model.pyramid_info, maps, strict=True):
        for name in level.modules:
            x = getattr(model, name)(x.clone())
        torch.testing.assert_close(found, x, rtol=0, atol=0)


# ------------------------------------------------------------------ SE


@pytest.mark.parametrize("placement", ["standard", "post", "identity"])
@pytest.mark.parametrize("kind", ["26", "29"])
def test_se_that_is_inserted_is_se_that_is_built(kind: str, placement: str) -> None:
    built, inserted = small(kind, SEConfig(), placement), small(kind)
    senet.insert(inserted, placement=placement, init="random")
    assert list(inserted.state_dict()) == list(built.state_dict())
    built(torch.randn(8, 3, 8, 8) + 1)
    inserted.load_state_dict(built.state_dict())
    x = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(inserted.eval()(x), built.eval()(x), rtol=0, atol=0)


@pytest.mark.parametrize("kind", ROWS)
def test_a_compiled_unit_computes_the_same(kind: str) -> None:
    steps = []
    for compiled in (False, True):
        torch.manual_seed(1)
        unit: Any = small(kind, SEConfig()).double().layer2[0]
        if compiled:
            unit.compile(fullgraph=True, backend="aot_eager")
        out = unit(torch.randn(4, 16, 8, 8, dtype=torch.float64))
        steps.append([out, *torch.autograd.grad(out.square().sum(), list(unit.parameters()))])
    for one, other in zip(*steps, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", ["se_shakeshake26_2x96d", "se_shakeeven29_2x4x64d"])
def test_two_3x3_side_by_side_have_no_place_after_the_3x3(name: str) -> None:
    with torch.device("meta"), pytest.raises(OptionError, match="3x3"):
        senet.build(name, placement="3x3")
