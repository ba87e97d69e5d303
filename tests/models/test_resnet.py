"""The residual networks: exact sizes, torchvision's keys and outputs, and all that a network must do."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import nn

import senet
from senet import SEConfig, SqueezeExcitation
from senet.insertion.placement import PLACEMENTS
from senet.models import parameter_count
from senet.models.resnet import CIFAR_ROWS

# The facts: computed from the released prototxts and equal to what other libraries print.
RELEASED = {  # plain, SE without FC biases, SE with (as released)
    "resnet50": (25_557_032, 28_071_976, 28_088_024),
    "resnet101": (44_549_160, 49_292_328, 49_326_872),
    "resnet152": (60_192_808, 66_770_984, 66_821_848),
    "resnext50_32x4d": (25_028_904, 27_543_848, 27_559_896),
    "resnext101_32x4d": (44_177_704, 48_920_872, 48_955_416),
    "senet154": (108_459_944, 115_038_120, 115_088_984),
}


def blocks(model: nn.Module) -> dict[str, SqueezeExcitation]:
    return {name: m for name, m in model.named_modules() if isinstance(m, SqueezeExcitation)}


# ------------------------------------------------------------------ sizes


@pytest.mark.parametrize("layout", ["modern", "original"])
@pytest.mark.parametrize("name", RELEASED)
def test_parameter_counts_of_the_facts(name: str, layout: str) -> None:
    counts = tuple(
        parameter_count(name, se=se, layout=layout) for se in (None, SEConfig(bias=False), SEConfig())
    )
    assert counts == RELEASED[name]


def test_parameter_counts_of_resnet18_and_34() -> None:
    assert parameter_count("resnet18") == 11_689_512
    assert parameter_count("resnet34") == 21_797_672
    assert parameter_count("se_resnet18") == 11_778_592
    assert parameter_count("se_resnet34") == 21_958_868


@pytest.mark.parametrize("n", [3, 5, 7, 9, 18])
def test_parameter_counts_on_cifar(n: int) -> None:
    """Counted by hand from section 4.2 of He et al.: 6n + 2 layers, shortcuts without parameters."""
    plain = 3 * 16 * 9 + 2 * 16 + 64 * 10 + 10
    se = 0
    entering = 16
    for width in (16, 32, 64):
        plain += entering * width * 9 + (2 * n - 1) * width * width * 9 + 2 * n * 2 * width
        hidden = width // 16
        se += n * (2 * width * hidden + hidden + width)
        entering = width
    name = f"resnet{6 * n + 2}"
    assert parameter_count(name, num_classes=10) == plain
    assert parameter_count(f"se_{name}", num_classes=10) == plain + se


def test_resnet20_on_cifar_has_the_known_size() -> None:
    assert parameter_count("resnet20", num_classes=10) == 269_722
    assert parameter_count("resnet20", num_classes=10, shortcut="project") == 272_474


@pytest.mark.parametrize("n", [3, 18])
def test_parameter_counts_with_bottleneck_units_on_cifar(n: int) -> None:
    """9n + 2 layers: three a unit, as wide inside as the basic ones, four times as wide at the end."""
    plain = 3 * 16 * 9 + 2 * 16 + 256 * 10 + 10
    se = 0
    entering = 16
    for width in (16, 32, 64):
        for _ in range(n):
            plain += entering * width + width * width * 9 + width * 4 * width + 2 * (2 * width + 4 * width)
            entering = 4 * width
        se += n * (2 * 4 * width * (width // 4) + width // 4 + 4 * width)
    options: dict[str, Any] = {"num_classes": 10, "unit": "bottleneck"}
    assert parameter_count(f"resnet{6 * n + 2}", **options) == plain
    assert parameter_count(f"se_resnet{6 * n + 2}", **options) == plain + se
    with torch.device("meta"):
        model = senet.build(f"resnet{6 * n + 2}", **options)
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(layers) == 9 * n + 2


def test_bottleneck_units_on_cifar_have_every_placement(tmp_path: Path) -> None:
    x = torch.randn(2, 3, 16, 16)
    plain = senet.build("resnet20", num_classes=10, unit="bottleneck").eval()
    for placement in PLACEMENTS:
        se = SEConfig(init="identity")
        model = senet.build("se_resnet20", num_classes=10, unit="bottleneck", placement=placement, se=se)
        model.load_state_dict(plain.state_dict(), strict=False)
        assert torch.equal(model.eval()(x), plain(x))
    middle = [block.channels for block in blocks(model).values()]
    assert (placement, middle) == ("3x3", [16] * 3 + [32] * 3 + [64] * 3)
    senet.weights.save(model, tmp_path / "w.safetensors")
    again = senet.load(tmp_path / "w.safetensors")
    assert again.config == model.config
    assert torch.equal(again.eval()(x), plain(x))


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_without_a_squeeze_every_placement_is_that_of_insertion(placement: str) -> None:
    """The commuting square: the network that is built with SE is that into which it is inserted."""
    se = SEConfig(4, squeeze="none")
    built = senet.build("se_resnet20", unit="bottleneck", placement=placement, stages=[3], se=se)
    inserted = senet.build("resnet20", unit="bottleneck")
    senet.insert(inserted, placement=placement, where=3, reduction=4, squeeze="none", init="random")
    assert built.state_dict().keys() == inserted.state_dict().keys()
    inserted.load_state_dict(built.state_dict())
    x = torch.randn(4, 3, 8, 8)
    outs = []
    for model in (built, inserted):
        out = model.train()(x)
        out.square().mean().backward()
        assert all(parameter.grad is not None for parameter in model.parameters())
        outs += [out, model.eval()(x)]
    torch.testing.assert_close(outs[:2], outs[2:])
    assert len(senet.remove(inserted)) == 3


@pytest.mark.parametrize("reduction", [2, 4, 8, 16, 32])
def test_equation_5(reduction: int) -> None:
    """SE adds 2 / r · Σ N_s C_s² weights, for SE-ResNet-50 with Σ N_s C_s² = 20,119,552."""
    added = parameter_count("se_resnet50", se=SEConfig(reduction, bias=False)) - parameter_count("resnet50")
    assert added == 2 * 20_119_552 // reduction


@pytest.mark.parametrize(
    ("placement", "parameters"),
    [
        ("standard", 28_071_976),
        ("pre", 27_548_200),
        ("post", 28_071_976),
        ("identity", 28_071_976),
        ("3x3", 25_714_216),
    ],
)
def test_parameters_of_the_placements(placement: str, parameters: int) -> None:
    assert parameter_count("se_resnet50", se=SEConfig(bias=False), placement=placement) == parameters


@pytest.mark.parametrize(("stage", "published"), [(2, 25.6), (3, 25.7), (4, 26.4), (None, 28.1)])
def test_table_13_to_the_rounding_it_prints(stage: int | None, published: float) -> None:
    """The paper counts batch norm's running statistics as parameters: 53,120 in ResNet-50."""
    stages = None if stage is None else [stage]
    count = parameter_count("se_resnet50", se=SEConfig(bias=False), stages=stages) + 53_120
    assert round(count / 1e6, 1) == published


def test_stages_get_se_where_asked() -> None:
    with torch.device("meta"):
        model = senet.build("se_resnet50", stages=[3, 5])
    assert {name.split(".")[0] for name in blocks(model)} == {"layer2", "layer4"}
    assert len(blocks(model)) == 4 + 3


# ------------------------------------------------------------------ structure


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "resnext50_32x4d"])
def test_torchvisions_weights_fit_and_give_its_outputs(name: str) -> None:
    theirs = getattr(torchvision.models, name)().double().eval()
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    ours = senet.build(name).double().eval()
    ours.load_state_dict(theirs.state_dict())
    assert list(ours.state_dict()) == list(theirs.state_dict())
    x = torch.randn(2, 3, 75, 64, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["resnet20", "resnet50", "resnext50_32x4d"])
@pytest.mark.parametrize("init", ["random", "identity"])
def test_se_only_adds_keys(name: str, init: str) -> None:
    with torch.device("meta"):
        plain = senet.build(name).state_dict()
        se = senet.build(f"se_{name}", se=SEConfig(init=init)).state_dict()
    added = [key for key in se if key not in plain]
    assert [key for key in se if key in plain] == list(plain)
    assert added
    assert all(".se." in key for key in added)


def test_the_identity_start_gives_the_plain_networks_outputs() -> None:
    plain = senet.build("resnet20").eval()
    for placement in ("standard", "pre", "post", "identity"):
        se = senet.build("se_resnet20", se=SEConfig(init="identity"), placement=placement).eval()
        se.load_state_dict(plain.state_dict(), strict=False)
        x = torch.randn(2, 3, 32, 32)
        assert torch.equal(se(x), plain(x))


def test_the_layouts_differ_where_the_originals_do() -> None:
    def strides(name: str, layout: str) -> tuple[int, int]:
        with torch.device("meta"):
            unit: Any = senet.build(name, layout=layout).get_submodule("layer2.0")
        return unit.conv1.stride[0], unit.conv2.stride[0]

    assert strides("resnet50", "original") == (2, 1)
    assert strides("resnet50", "modern") == (1, 2)
    for name in ("resnext50_32x4d", "senet154"):
        assert strides(name, "original") == strides(name, "modern") == (1, 2)
    for layout, padding, ceil_mode in (("original", 0, True), ("modern", 1, False)):
        pool = senet.build("resnet18", layout=layout).maxpool
        assert isinstance(pool, nn.MaxPool2d)
        assert (pool.padding, pool.ceil_mode) == (padding, ceil_mode)
        assert pool(torch.zeros(1, 1, 112, 112)).shape[-1] == 56


def test_senet154_is_that_of_the_released_prototxt() -> None:
    with torch.device("meta"):
        model: Any = senet.build("senet154", layout="original")
    stem = [m for m in model.conv1 if isinstance(m, nn.Conv2d)]
    assert [(m.in_channels, m.out_channels, m.stride[0]) for m in stem] == [
        (3, 64, 2),
        (64, 64, 1),
        (64, 128, 1),
    ]
    widths = [(128, 256, 256), (256, 512, 512), (512, 1024, 1024), (1024, 2048, 2048)]
    for index, (reduce, middle, increase) in enumerate(widths):
        unit = getattr(model, f"layer{index + 1}")[0]
        found = (unit.conv1.out_channels, unit.conv2.out_channels, unit.conv3.out_channels)
        assert found == (reduce, middle, increase)
        assert unit.conv2.groups == 64
        assert unit.downsample[0].kernel_size[0] == (1 if index == 0 else 3)
    assert [len(getattr(model, f"layer{k}")) for k in (1, 2, 3, 4)] == [3, 8, 36, 3]
    assert model.dropout.p == 0.2
    assert senet.build("resnet20", dropout=0.3).dropout.p == 0.3


def test_cifar_rows_have_the_depth_in_their_name() -> None:
    for name in CIFAR_ROWS:
        model = senet.build(name)
        layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        assert len(layers) == int(name.removeprefix("resnet"))
