"""BN-Inception: the released sizes, the modules of the prototxt, and SE after each of them."""

import copy
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

import senet
from senet import SEConfig, SqueezeExcitation
from senet.errors import OptionError

# Of the prototxt: channels of each convolution of a branch, in the order of concatenation, and the sum.
MODULES = {
    "3a": ([[64], [64, 64], [64, 96, 96], [32]], 256),
    "3b": ([[64], [64, 96], [64, 96, 96], [64]], 320),
    "3c": ([[128, 160], [64, 96, 96], []], 576),
    "4a": ([[224], [64, 96], [96, 128, 128], [128]], 576),
    "4b": ([[192], [96, 128], [96, 128, 128], [128]], 576),
    "4c": ([[160], [128, 160], [128, 160, 160], [128]], 608),
    "4d": ([[96], [128, 192], [160, 192, 192], [128]], 608),
    "4e": ([[128, 192], [192, 256, 256], []], 1056),
    "5a": ([[352], [192, 320], [160, 224, 224], [128]], 1024),
    "5b": ([[352], [192, 320], [192, 224, 224], [128]], 1024),
}
STAGES = {3: ["3a", "3b"], 4: ["3c", "4a", "4b", "4c", "4d"], 5: ["4e", "5a", "5b"]}


@cache
def on_meta(name: str, **options: Any) -> Any:
    """Made once: to follow a network takes a second."""
    with torch.device("meta"):
        return senet.build(name, **options).eval()


def blocks(model: nn.Module) -> list[str]:
    return [name for name, m in model.named_modules() if isinstance(m, SqueezeExcitation)]


def size(name: str, **options: Any) -> int:
    return sum(each.numel() for each in on_meta(name, **options).parameters())


def test_sizes_of_the_facts() -> None:
    assert size("bn_inception") == 11_285_224
    assert size("se_bn_inception", se=SEConfig(bias=False)) == 11_924_584
    assert size("se_bn_inception") == 11_931_622
    for layout in ("modern", "original"):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            on_meta("bn_inception", layout=layout)(torch.empty(1, 3, 224, 224, device="meta"))
        assert counter.get_total_flops() == 2 * 2_032_600_064


def test_the_modules_are_those_of_the_prototxt() -> None:
    model = on_meta("bn_inception")
    for name, (widths, total) in MODULES.items():
        module = model.get_submodule(f"inception_{name}")
        convs = [
            [m for m in branch.modules() if isinstance(m, nn.Conv2d)] for _, branch in module.named_children()
        ]
        assert [[conv.out_channels for conv in branch] for branch in convs] == widths
        stride = 2 if name in ("3c", "4e") else 1
        last_strides = [branch[-1].stride[0] for branch in convs if branch and branch[-1].kernel_size[0] == 3]
        assert last_strides == [stride, stride]
        out = module(torch.empty(1, convs[0][0].in_channels, 8, 8, device="meta"))
        assert out.shape[1:] == (total, 8 // stride, 8 // stride)


@pytest.mark.parametrize(("name", "pooled"), [("4a", "average"), ("5b", "maximum")])
def test_a_module_by_hand(name: str, pooled: str) -> None:
    module: Any = senet.build("bn_inception").get_submodule(f"inception_{name}").eval()
    x = torch.randn(2, 576 if name == "4a" else 1024, 7, 5)

    def convolved(x: Tensor, branch: nn.Module) -> Tensor:
        for each in branch.modules():
            if isinstance(each, nn.Conv2d):
                x = F.conv2d(x, each.weight, padding=each.kernel_size[0] // 2)
                x = (x / (1 + 1e-5) ** 0.5).relu()  # The norm, fresh.
        return x

    around = F.pad(x, (1, 1, 1, 1), value=0 if pooled == "average" else -100).unfold(2, 3, 1).unfold(3, 3, 1)
    pool = around.mean((4, 5)) if pooled == "average" else around.amax((4, 5))
    parts = [convolved(x, each) for each in (module.conv1x1, module.conv3x3, module.double3x3)]
    wanted = torch.cat([*parts, convolved(pool, module.pool)], 1)
    torch.testing.assert_close(module(x), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("layout", "size", "sizes"),
    [
        ("modern", 224, [112, 56, 28, 14, 7]),
        ("original", 224, [112, 56, 28, 14, 7]),
        ("modern", 65, [33, 17, 9, 5, 3]),
        ("original", 65, [33, 16, 8, 4, 2]),
        ("modern", 97, [49, 25, 13, 7, 4]),
        ("original", 97, [49, 24, 12, 6, 3]),
        ("modern", 225, [113, 57, 29, 15, 8]),
        ("original", 225, [113, 56, 28, 14, 7]),
        # Odd maps before 3c (37) and before 4e (19).
        ("original", 299, [150, 75, 37, 19, 10]),
    ],
)
def test_maps_of_both_layouts(layout: str, size: int, sizes: list[int]) -> None:
    model = on_meta("bn_inception", layout=layout)
    maps = model.pyramid(torch.empty(2, 3, size, size, device="meta"))
    assert [tuple(each.shape[1:]) for each in maps] == [
        (channels, side, side) for channels, side in zip((64, 192, 320, 608, 1024), sizes, strict=True)
    ]
    assert [(level.stage, level.stride) for level in model.pyramid_info] == [
        (k, 2**k) for k in (1, 2, 3, 4, 5)
    ]


def test_the_original_pooling_is_the_released_one_and_works_at_odd_sizes() -> None:
    pool = senet.build("bn_inception", layout="original").get_submodule("inception_3c.pool")
    even = torch.randn(2, 3, 8, 6) - 5
    assert torch.equal(pool(even), F.max_pool2d(even, 3, 2, ceil_mode=True))
    odd = torch.randn(2, 3, 7, 5) - 5
    whole = pool(odd)
    assert whole.shape[2:] == (4, 3)
    assert torch.equal(whole[:, :, :3, :2], F.max_pool2d(odd, 3, 2, ceil_mode=True))
    assert torch.equal(whole[:, :, 3, 2], odd[:, :, 6, 4])


def test_se_stands_after_each_module() -> None:
    plan = senet.plan(on_meta("bn_inception"), example=torch.empty(2, 3, 64, 64, device="meta"))
    assert [str(site.attachment) for site in plan] == [f"output of inception_{name}" for name in MODULES]
    model = on_meta("se_bn_inception")
    assert blocks(model) == [site.block for site in plan] == [f"inception_{name}.se" for name in MODULES]
    hidden = [model.get_submodule(name).fc1.weight.shape[0] for name in blocks(model)]
    assert hidden == [16, 20, 36, 36, 36, 38, 38, 66, 64, 64]


@pytest.mark.parametrize("stages", [(5,), (3, 4)])
def test_stages_get_se_where_asked(stages: tuple[int, ...]) -> None:
    wanted = [f"inception_{name}.se" for stage in stages for name in STAGES[stage]]
    assert blocks(on_meta("se_bn_inception", stages=stages)) == wanted


def test_what_does_not_exist_is_an_error() -> None:
    with pytest.raises(OptionError, match="Allowed: 3, 4, 5"):
        on_meta("se_bn_inception", stages=(2,))
    with pytest.raises(OptionError, match="no unit of BNInception has that place"):
        on_meta("se_bn_inception", placement="pre")


def test_insertion_gives_the_same_network_and_no_map_is_overwritten() -> None:
    built: Any = senet.build("se_bn_inception", num_classes=3, layout="original").eval()
    inserted = copy.deepcopy(on_meta("bn_inception", num_classes=3, layout="original"))
    senet.insert(inserted, example=torch.empty(2, 3, 64, 64, device="meta"), init="random")
    inserted.load_state_dict(built.state_dict(), assign=True)
    assert list(inserted.state_dict()) == list(built.state_dict())

    seen: list[Tensor] = []
    for level in built.pyramid_info:
        last = built.get_submodule(level.modules[-1])
        last.register_forward_hook(lambda module, args, out: seen.append(out.clone()))
    x = torch.randn(2, 3, 65, 65)
    with torch.no_grad():
        assert torch.equal(inserted(x), built(x))
        seen.clear()
        maps = built.pyramid(x)
    assert all(torch.equal(map_, then) for map_, then in zip(maps, seen, strict=True))
