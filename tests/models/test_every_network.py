"""What every network must do, whatever it is made of."""

import copy
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.models.settled import settled
from torch import Tensor, nn

import senet
from senet.models import Network

# Of each kind the smallest; the others are larger, or more of the same.
QUICK = {
    "bn_inception",
    "mobilenet_v1",
    "resnet18",
    "resnet20",
    "resnet50",
    "resnext50_32x4d",
    "shakeshake26_2x96d",
    "shufflenet_v1_g3",
    "wrn16_8",
}


def _marked(name: str, quick: bool) -> Any:
    return pytest.param(name, marks=[] if quick else [pytest.mark.slow])


NAMES = [_marked(name, name.removeprefix("se_") in QUICK) for name in senet.list_models()]
SE_NAMES = [
    _marked(name, name.removeprefix("se_") in QUICK) for name in senet.list_models() if senet.info(name).se
]
SE_FIRST = [
    _marked(name, senet.info(name).se and name.removeprefix("se_") in QUICK) for name in senet.list_models()
]
# Where SE changes nothing that is looked at.
PLAIN_FIRST = [_marked(name, not name.startswith("se_")) for name in senet.list_models()]


def _size(name: str) -> int:
    """Of small images, that leave at least one position everywhere."""
    if senet.info(name).input_size[1] == 32:
        return 12
    return 75 if "inception_resnet" in name else 32


def _images(name: str, dtype: torch.dtype = torch.float32, size: int = 0, batch: int = 2) -> Tensor:
    size = size or _size(name)
    x = torch.randn(batch, 3, size, size, dtype=dtype)
    return x.contiguous(memory_format=torch.channels_last)


def _on_meta(name: str, **options: Any) -> Network:
    with torch.device("meta"):
        return senet.build(name, **options)


@pytest.mark.parametrize("name", NAMES)
def test_it_trains_keeps_its_memory_format_and_is_saved(name: str, tmp_path: Path) -> None:
    model = senet.build(name, num_classes=10).to(memory_format=torch.channels_last)
    for size in (_size(name), _size(name) + 9):
        model.zero_grad()
        scores = model(_images(name, size=size))
        assert scores.shape == (2, 10)
        scores.square().mean().backward()
        for key, parameter in model.named_parameters():
            assert parameter.grad is not None, key
            assert torch.isfinite(parameter.grad).all(), key
            # Gates without a slope are what narrow blocks risk: their hidden layer may start dead.
            # What shifts the input of a norm has none either.
            assert parameter.grad.any() or ".se." in key or key.endswith("bias"), key

    settled(model, _images(name, batch=4))
    kept: list[bool] = []
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
            module.register_forward_hook(
                lambda _, __, out: kept.append(out.is_contiguous(memory_format=torch.channels_last))
            )
    with torch.no_grad():
        model(_images(name))
    assert kept
    assert all(kept)

    path = tmp_path / "w.safetensors"
    senet.weights.save(model, path)
    loaded = senet.load(path)
    for key, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], tensor), key
    # In float64: where its weights lie in memory decides which kernels run, and over a hundred layers
    # those of float32 round visibly differently.
    x = _images(name, torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(loaded.double()(x), model.double()(x))


@pytest.mark.parametrize("name", SE_FIRST)
def test_it_exports(name: str) -> None:
    x = _images(name, torch.float64, batch=4)
    model = settled(senet.build(name, num_classes=10).double(), x)
    exported = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim("n")},))
    other = torch.cat([x, x[:1]]).flip(0)
    with torch.no_grad():
        torch.testing.assert_close(exported.module()(other), model(other))


@pytest.mark.parametrize("name", SE_NAMES)
def test_it_is_accelerated(name: str) -> None:
    """Whole, and to the same numbers: outputs, gradients and running statistics of a training step."""
    model = senet.build(name, num_classes=10).double()
    blocks = [each for each in model.modules() if isinstance(each, senet.SqueezeExcitation)]
    fast = copy.deepcopy(model)
    report = senet.accelerate(fast, backend="composite")
    assert len(report) == len(report.rows) == len(blocks)
    senet.accelerate(model, backend="reference")
    # Larger than the smallest: norms of two values have no gradient to speak of.
    x = _images(name, torch.float64, 2 * _size(name))

    def step(network: nn.Module) -> list[Tensor]:
        torch.manual_seed(0)
        out = network(x)
        out.square().mean().backward()
        gradients = [each.grad for each in network.parameters() if each.grad is not None]
        return [out, *gradients, *network.buffers()]

    for found, wanted in zip(step(fast), step(model), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-8)


def _widths(name: str, layout: str, n: int) -> list[int]:
    """The sizes of the pyramid's maps for an image of n, worked out by hand."""
    name = name.removeprefix("se_")

    def up(size: int) -> int:
        return -(-size // 2)

    if senet.info(name).input_size[1] == 32:
        return [n, up(n), up(up(n))]
    if name == "vgg16_bn":
        return [n // 2**k for k in range(5)]
    if name == "inception_resnet_v2":
        # Unpadded 3×3, with stride 2 or 1.
        half = [n]
        for _ in range(5):
            half.append((half[-1] - 3) // 2 + 1 - (2 if len(half) in (1, 2) else 0))
        return half[1:]
    sizes = [up(n)]
    for k in range(4):
        # Unpadded in ceil mode, a pooling of 3 with stride 2 leaves half, rounded down.
        unpadded = layout == "original" and name not in ("mobilenet_v1", "shufflenet_v1_g3")
        pooled = unpadded and (k == 0 or (k == 1 and name == "bn_inception"))
        sizes.append(sizes[-1] // 2 if pooled else up(sizes[-1]))
    return sizes


@pytest.mark.parametrize("layout", ["modern", "original"])
@pytest.mark.parametrize("name", PLAIN_FIRST)
def test_its_pyramid_is_what_it_says(name: str, layout: str) -> None:
    model = _on_meta(name, layout=layout)
    small = senet.info(name).input_size[1] == 32
    n, other = (47, 33) if small else (225, 267)
    found = [tuple(each.shape) for each in model.pyramid(torch.empty(2, 3, n, other, device="meta"))]
    heights, widths = _widths(name, layout, n), _widths(name, layout, other)
    channels = [level.channels for level in model.pyramid_info]
    assert found == [(2, c, h, w) for c, h, w in zip(channels, heights, widths, strict=True)]
    stages = [level.stage for level in model.pyramid_info]
    assert stages == ([2, 3, 4] if small else [1, 2, 3, 4, 5])
    for finer, coarser in pairwise(model.pyramid_info):
        assert coarser.stride == 2 * finer.stride


@pytest.mark.parametrize("name", ["resnet20", "se_resnet18", "se_bn_inception", "se_mobilenet_v1"])
def test_its_pyramid_ends_with_what_the_classifier_sees(name: str) -> None:
    x = _images(name, batch=4)
    model = settled(senet.build(name, num_classes=10), x)
    with torch.no_grad():
        maps = model.pyramid(x)
        kept = [each.clone() for each in maps]
        torch.testing.assert_close(model.head(maps[-1]), model(x))
    assert all(torch.equal(one, other) for one, other in zip(maps, kept, strict=True))


@pytest.mark.parametrize("name", PLAIN_FIRST)
def test_classes_and_channels_change_only_the_ends(name: str) -> None:
    usual, other = _on_meta(name), _on_meta(name, num_classes=7, in_channels=1)
    differing = [
        key
        for (key, one), two in zip(usual.state_dict().items(), other.state_dict().values(), strict=True)
        if one.shape != two.shape
    ]
    first, *last = differing
    assert first == next(key for key in usual.state_dict() if key.endswith("weight"))
    weight, bias = last
    assert usual.state_dict()[bias].shape == (1000,)
    assert other.state_dict()[weight].shape == (7, *usual.state_dict()[weight].shape[1:])


@pytest.mark.parametrize(
    "name",
    [
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in (
                "se_resnet20",
                "se_resnet18",
                "se_resnext50_32x4d",
                "senet154",
                "se_bn_inception",
                "se_mobilenet_v1",
                "se_shufflenet_v1_g3",
                "se_wrn16_8",
                "se_shakeshake26_2x96d",
            )
        ),
    ],
)
def test_it_compiles(name: str) -> None:
    # One process may compile a function, here the forward of all networks, only for so many of them.
    torch.compiler.reset()
    # In float64: few numbers a channel have small deviations, which make much of rounding.
    x = _images(name, torch.float64, batch=4)
    model = settled(senet.build(name, num_classes=10).double(), x)
    compiled = torch.compile(model, fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), model(x))
