"""What SE costs: against formulas, independent counters, and networks that were never SE's."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import senet
from senet.analysis.cost.cost import cost
from senet.analysis.cost.replica import on_meta, without
from senet.analysis.cost.saved import saved_bytes
from senet.errors import InsertionError, OptionError, TraceError
from senet.graph.arithmetic import multiply_adds

QUICK = ("se_resnet20", "se_wrn16_8", "resnet50", "mobilenet_v1", "bn_inception", "shufflenet_v1_g3")
THEIRS = (
    "torchvision:mobilenet_v3_small",
    pytest.param("torchvision:efficientnet_b0", marks=pytest.mark.slow),
    pytest.param("torchvision:regnet_y_400mf", marks=pytest.mark.slow),
    pytest.param("timm:seresnet50", marks=pytest.mark.slow),
    pytest.param("timm:efficientnet_b0", marks=pytest.mark.slow),
)

TITLES = {
    "parameters": "parameters",
    "multiply_adds": "multiply-adds",
    "moved": "bytes moved",
    "saved": "bytes saved",
}


def _bare(name: str, **options: Any) -> nn.Module:
    with torch.device("meta"):
        return senet.build(name, **options).eval()


# -- against others ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in senet.list_models()],
)
def test_products_are_those_of_pytorchs_counter(name: str) -> None:
    """The report's multiply-adds are those of the catalogue, and their products those that PyTorch counts."""
    model = _bare(name)
    size = senet.info(name).input_size
    images = torch.empty(1, *size, device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(images)
    found = multiply_adds(model, images)
    # PyTorch counts a multiply-add as two.
    assert 2 * found.products == counter.get_total_flops()
    assert cost(model, size, runs=0).total.multiply_adds == found.total


@pytest.mark.parametrize(
    ("name", "bias"),
    [
        ("se_resnet18", False),
        *(pytest.param("se_resnet50", bias, marks=pytest.mark.slow) for bias in (True, False)),
    ],
)
def test_blocks_are_what_the_formulas_say(name: str, bias: bool) -> None:
    report = cost(_bare(name, se=senet.SEConfig(bias=bias)), runs=0)
    for block in report.blocks:
        c, hidden, positions = block.channels, block.channels // 16, block.size[0] * block.size[1]
        # Equation 5, and the products of the two layers with the scaling of each element.
        assert block.parameters == 2 * c * hidden + bias * (c + hidden)
        assert block.multiply_adds == 2 * c * hidden + c * positions
        # The squeeze reads the map, the scaling reads and writes it; the rest are numbers for each channel.
        numbers = block.parameters + 3 * c * positions
        assert numbers < block.moved / 4 < numbers + 12 * c
    if name == "se_resnet50":
        assert report.se.parameters == 2_514_944 + bias * 16_048
        assert report.total.parameters == 25_557_032 + report.se.parameters
    for quantity in ("parameters", "multiply_adds", "moved", "saved"):
        blocks = [getattr(block, quantity) for block in report.blocks]
        assert getattr(report.se, quantity) == sum(blocks)
        assert report.se.row[TITLES[quantity]] == sum(blocks)
        assert report.share[TITLES[quantity]] == sum(blocks) / getattr(report.total, quantity)


def test_without_a_squeeze_the_layers_run_at_every_position() -> None:
    se = senet.SEConfig(squeeze="none", bias=False)
    report = cost(_bare("se_resnet20", se=se, stages=[4]), vs=_bare("resnet20"), runs=0)
    assert len(report.blocks) == 3
    for block in report.blocks:
        c, hidden, positions = block.channels, block.channels // 16, block.size[0] * block.size[1]
        assert block.parameters == 2 * c * hidden
        assert block.multiply_adds == (2 * c * hidden + c) * positions
    for row in report.compared:
        if row["quantity"] != "latency ms":
            assert (
                row["difference"]
                == report.se.row[row["quantity"]]
                == sum(each.row[row["quantity"]] for each in report.blocks)
            )


def test_without_se_it_is_the_plain_network() -> None:
    """What is left when SE's share is taken away is what the plain network costs."""
    report = cost(_bare("se_resnet20"), vs=_bare("resnet20"), runs=0)
    assert report.vs is not None
    assert report.vs.blocks == ()
    for quantity in ("parameters", "multiply_adds", "moved", "saved"):
        se, total, plain = (getattr(part, quantity) for part in (report.se, report.total, report.vs.total))
        assert total - se == plain
        assert getattr(report.vs.se, quantity) == 0
    assert [row["difference"] for row in report.compared] == [
        report.se.row[row["quantity"]] for row in report.compared
    ]


@pytest.mark.parametrize("name", THEIRS)
def test_se_of_other_libraries(name: str) -> None:
    pytest.importorskip(name.partition(":")[0])
    model = senet.load(name)
    report = cost(model, (3, 224, 224), runs=0)
    modules = [
        module
        for module in model.modules()
        if type(module).__name__ in ("SqueezeExcite", "SqueezeExcitation", "SEModule")
    ]
    assert [block.parameters for block in report.blocks] == [
        sum(each.numel() for each in module.parameters()) for module in modules
    ]
    assert not report.inside
    # Layer by layer, a map is kept that a network without SE does not keep.
    for block in report.blocks:
        assert block.saved is not None
        assert block.saved > 4 * block.channels * block.size[0] * block.size[1]


@pytest.mark.parametrize("name", THEIRS)
def test_on_small_images_no_block_is_lost(name: str) -> None:
    """Where the last maps have one position."""
    pytest.importorskip(name.partition(":")[0])
    model = senet.load(name)
    usual, small = (cost(model, (3, size, size), runs=0) for size in (224, 32))
    assert [(block.name, block.parameters) for block in small.blocks] == [
        (block.name, block.parameters) for block in usual.blocks
    ]
    assert small.blocks[-1].size == (1, 1)
    assert small.se.parameters == usual.se.parameters
    # The excitations cost the same, the products with the maps less.
    assert small.se.multiply_adds < usual.se.multiply_adds
    assert small.lost == usual.lost == ()


def test_a_network_without_se_has_a_share_of_zero() -> None:
    pytest.importorskip("torchvision")
    report = cost(senet.load("torchvision:resnet18"), runs=0)
    assert report.input == (3, 224, 224)
    assert report.total.parameters == 11_689_512
    assert {key: value for key, value in report.share.items() if key != "latency ms"} == dict.fromkeys(
        ("parameters", "multiply-adds", "bytes moved", "bytes saved"), 0.0
    )


# -- bytes saved ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "se_resnet20",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("se_resnet56", "se_wrn16_8", "se_preresnet110", "se_shufflenet_v1_g3")
        ),
    ],
)
def test_each_block_saves_what_the_network_saves_less_without_it(name: str) -> None:
    """Also where blocks with the same surroundings are counted once."""
    model = _bare(name)
    size = senet.info(name).input_size
    report = cost(model, size, runs=0)
    bare = on_meta(model, fused=True).train()
    images = torch.empty(1, *size, device="meta")
    for block in report.blocks:
        assert block.saved == saved_bytes(bare, images) - saved_bytes(without(bare, [block.name]), images)
    assert report.se.saved == sum(block.saved or 0 for block in report.blocks)


def test_the_fused_operation_saves_no_map() -> None:
    pytest.importorskip("torchvision")
    theirs = senet.load("torchvision:resnet18")
    senet.insert(theirs)
    before = cost(theirs, runs=0)
    senet.accelerate(theirs, backend="composite")
    after = cost(theirs, runs=0)
    assert before.se.saved is not None
    assert after.se.saved is not None
    assert after.se.saved < 0.02 * before.se.saved
    # All else is counted layer by layer, as before.
    assert after.se.moved == before.se.moved
    assert [block.name for block in after.blocks] == [block.name for block in before.blocks]


class _Unsteady(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x)
        return out * 2 if self.training and out.mean().item() > 0 else out


def test_training_that_needs_numbers_is_said() -> None:
    report = cost(_Unsteady(), (3, 8, 8), runs=0)
    assert report.total.saved is None
    assert "does not run in training, without memory, on this batch (" in " ".join(str(report).split())


# -- SE that is no module of its own ----------------------------------------------------------


class _Inline(nn.Module):
    """SE written out in a unit with a parameter of its own, twice in one forward."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.gamma = nn.Parameter(torch.ones(8, 1, 1))
        self.fc1, self.fc2 = nn.Conv2d(8, 2, 1), nn.Conv2d(2, 8, 1)
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 8, 1, bias=False), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        u = self.conv(x)
        s = torch.sigmoid(self.fc2(torch.relu(self.fc1(u.mean((2, 3), keepdim=True)))))
        u = u * s * self.gamma
        out: Tensor = u * self.gate(u)
        return out


def test_se_that_is_no_module_is_counted_and_what_cannot_be_measured_is_said() -> None:
    report = cost(_Inline(), (3, 16, 16), runs=2)
    assert [block.name for block in report.blocks] == ["[0]", "[1]"]
    # Of the parameters, those that its own operations read.
    assert [block.parameters for block in report.blocks] == [2 * 8 * 2 + 2 + 8, 64]
    assert report.total.latency is not None
    assert report.se.latency is None is report.se.saved
    assert "is no module inside it that takes a map and returns it gated" in " ".join(str(report).split())


def test_a_block_that_runs_twice_counts_its_parameters_once() -> None:
    block = senet.SqueezeExcitation(8, reduction=4)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), block, nn.Conv2d(8, 8, 3), block)
    report = cost(model, (3, 16, 16), runs=0)
    (row,) = report.blocks
    assert (row.name, row.parameters) == ("1", 2 * 8 * 2 + 2 + 8)
    assert row.multiply_adds == 2 * 2 * 8 * 2 + 8 * (14 * 14 + 12 * 12)


# -- what it takes and leaves -----------------------------------------------------------------


def test_the_input_is_what_the_network_is_made_for() -> None:
    assert cost(_bare("se_resnet20", in_channels=1), runs=0).input == (1, 32, 32)
    assert cost(nn.Sequential(nn.Conv1d(3, 4, 3)), runs=0).input == (3, 1024)
    assert cost(nn.Conv3d(2, 4, 3), (2, 8, 8, 8), batch=3, runs=2).total.latency is not None


def test_counts_are_of_an_image_and_bytes_of_the_batch() -> None:
    one, four = (cost(_bare("resnet20"), batch=batch, runs=0) for batch in (1, 4))
    assert one.total.multiply_adds == four.total.multiply_adds
    weights = 4 * one.total.parameters
    assert 3.9 * (one.total.moved - weights) < four.total.moved - weights < 4 * one.total.moved
    assert one.total.saved is not None
    assert four.total.saved is not None
    assert 3.9 * one.total.saved < four.total.saved <= 4 * one.total.saved


def test_latency_is_measured_with_and_without_se_and_nothing_stays() -> None:
    model, plain = senet.build("se_resnet20").train(), senet.build("resnet20")
    calls: list[int] = []
    model.register_forward_hook(lambda *_: calls.append(1))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = torch.get_rng_state()
    report = cost(model, vs=plain, runs=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert not calls
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert all(each.grad is None for each in model.parameters())
    assert report.ratio is not None
    assert report.vs_ratio is not None
    for part in (*report.blocks, report.se, report.total):
        assert part.latency is not None
        assert part.latency.low <= part.latency.median <= part.latency.high
        assert part.latency.runs == 3
    assert report.passport["machine"]["threads"] == torch.get_num_threads()


def test_the_paper_is_quoted_for_its_own_networks_alone() -> None:
    said = [f"{each.column} {each}" for each in cost(_bare("resnet50"), runs=0).printed]
    assert said == ["gmacs 3.86", "parameters 25.6"]
    for other in (_bare("resnet50", num_classes=10), _bare("se_resnet18", stages=(2,))):
        assert cost(other, runs=0).printed == ()


def _refused() -> Iterator[tuple[Any, dict[str, Any], type[Exception], str]]:
    network = _bare("se_resnet20")
    yield network, {"input": (4, 32, 32)}, OptionError, "expected input.* to have 3 channels"
    yield network, {"input": (3, 0, 32)}, OptionError, "Allowed: .C, .spatial., such as"
    yield network, {"input": "3x32x32"}, OptionError, "input="
    yield network, {"batch": 0}, OptionError, "batch=0"
    yield network, {"runs": 1}, OptionError, "Allowed: 0, or at least 2"
    yield nn.Linear(3, 4), {}, TraceError, "no convolution"
    yield nn.Sequential(nn.LazyConv2d(4, 3)), {}, InsertionError, "lazy layers"
    yield "se_resnet20", {}, OptionError, "torch.nn.Module"


@pytest.mark.parametrize(("model", "options", "kind", "message"), list(_refused()))
def test_what_is_refused(model: Any, options: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        cost(model, runs=options.pop("runs", 0), **options)
