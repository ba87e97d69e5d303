"""Multiply-adds: by hand for a small network, and those of the released prototxts."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import senet
from senet import paper
from senet.graph.arithmetic import MultiplyAdds, multiply_adds

# Of convolutions and linear layers, computed from the released prototxts: without SE, SE's own.
PROTOTXTS = {
    "resnet50": (3_857_973_248, 2_514_944),
    "resnet101": (7_570_194_432, 4_743_168),
    "resnet152": (11_282_415_616, 6_578_176),
    "resnext50_32x4d": (4_230_479_872, 2_514_944),
    "resnext101_32x4d": (7_969_996_800, 4_743_168),
    "senet154": (20_681_785_344, 6_578_176),
    "bn_inception": (2_032_600_064, 639_360),
}


class _Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=4)
        self.se = senet.SqueezeExcitation(8, reduction=4)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).relu()
        out: Tensor = self.fc((x + self.se(self.grouped(x))).mean((2, 3)))
        return out


# Rows of Tables 13, 15 and 16, and how the network is built.
ABLATIONS: list[tuple[str, str, dict[str, Any]]] = [
    *(("stages", f"SE Stage {k}", {"stages": [k]}) for k in (2, 3, 4)),
    ("stages", "SE All", {}),
    ("se3x3", "SE_3x3", {"placement": "3x3"}),
    ("nosqueeze", "NoSqueeze", {"se": senet.SEConfig(bias=False, squeeze="none")}),
]


@pytest.mark.parametrize(("table", "row", "options"), ABLATIONS, ids=[row for _, row, _ in ABLATIONS])
def test_the_ablations_cost_what_the_paper_prints(table: str, row: str, options: dict[str, Any]) -> None:
    """Without SE's scaling, and with batch norm's running statistics among the parameters."""
    printed = paper.table(table).row(row).printed
    with torch.device("meta"):
        model = senet.build("se_resnet50", layout="original", **{"se": senet.SEConfig(bias=False)} | options)
    found = multiply_adds(model, torch.empty(1, 3, 224, 224, device="meta"))
    assert f"{(found.products + found.sums) / 1e9:.2f}" == printed["gmacs"]
    parameters = sum(parameter.numel() for parameter in model.parameters()) + 53_120
    assert f"{parameters / 1e6:.1f}" == printed["parameters"]


def test_without_a_squeeze_the_layers_are_counted_at_every_position() -> None:
    model = _Small()
    model.se = senet.SqueezeExcitation(8, reduction=4, squeeze="none")
    found, positions = multiply_adds(model, torch.empty(2, 3, 7, 10)), 4 * 5
    squeezed = multiply_adds(_Small(), torch.empty(2, 3, 7, 10))
    assert found.products - squeezed.products == (positions - 1) * 2 * 8 * 2
    assert (found.sums, found.scales) == (squeezed.sums, squeezed.scales) == (8 * positions, 8 * positions)


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("batch", [1, 4])
def test_a_network_counted_by_hand(device: str, batch: int) -> None:
    model = _Small().to(device)
    found = multiply_adds(model, torch.empty(batch, 3, 7, 10, device=device))
    positions = 4 * 5
    conv, grouped = positions * 8 * 3 * 9, positions * 8 * 2 * 9
    assert found == MultiplyAdds(conv + grouped + 2 * 8 * 2 + 8 * 5, 8 * positions, 8 * positions)
    assert found.total == found.products + 16 * positions
    assert model.training


def test_without_an_example_a_usual_size_is_taken() -> None:
    assert multiply_adds(_Small()) == multiply_adds(_Small(), torch.empty(1, 3, 224, 224))


@pytest.mark.parametrize("name", PROTOTXTS)
def test_the_released_networks(name: str) -> None:
    plain, se = PROTOTXTS[name]
    example = torch.empty(1, *senet.info(name).input_size, device="meta")
    for config, wanted in ((None, plain), (senet.SEConfig(), plain + se)):
        with torch.device("meta"):
            model = senet.build(name, se=config, layout="original")
        assert multiply_adds(model, example).products == wanted
