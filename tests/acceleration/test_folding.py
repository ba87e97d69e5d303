from pathlib import Path
from typing import Any

import torch
from torch import nn

import senet
from senet.acceleration.absorption import Fold
from senet.acceleration.folding import Folding, FoldReport, apply
from senet.block import ConstantScale

HALF = torch.full((8,), 0.5, dtype=torch.float64)


def _foldings() -> tuple[Folding, ...]:
    return (
        Folding("1", HALF, (Fold("0", "output", HALF),), False, 76),
        Folding("2", HALF, (), True, 76),
        Folding("3", HALF + 0.5, (), False, 76),
    )


def _model() -> nn.Sequential:
    blocks = [senet.SqueezeExcitation(8, 4) for _ in range(3)]
    return nn.Sequential(nn.Conv2d(3, 8, 1), *blocks).bfloat16().eval()


def test_a_plan_can_be_applied_to_any_copy() -> None:
    model = _model()
    x = torch.randn(2, 3, 4, 4, dtype=torch.bfloat16)
    wanted = 0.25 * model[0](x)
    apply(model, _foldings())
    assert torch.equal(model(x), wanted)
    assert [type(module) for module in model] == [nn.Conv2d, nn.Identity, ConstantScale, nn.Identity]
    assert model[2].s.dtype == torch.bfloat16
    assert not any(module.training for module in model.modules())


def test_the_report_says_where_the_gates_went(tmp_path: Path) -> None:
    report = FoldReport("Net", _foldings(), 1e-16)
    assert [row["into"] for row in report.rows] == [
        "output of 0",
        "a constant scale, as no layer beside it takes it in",
        "nothing: all gates are 1",
    ]
    assert str(report).startswith(
        "Net: folded 3 SE blocks, 228 parameters fewer; 1 remain as constant scales\n"
    )
    assert str(report).endswith("largest change of the output: 1e-16")
    assert len(report) == 3
    report.save(tmp_path / "folded.md")
    assert "output of 0" in (tmp_path / "folded.md").read_text()


def test_the_report_of_one_block_that_is_gone() -> None:
    lines = str(FoldReport("Net", _foldings()[:1], "the network is on meta")).splitlines()
    assert lines[0] == "Net: folded 1 SE block, 76 parameters fewer"
    assert lines[-1] == "largest change of the output: not compared, as the network is on meta"


def test_networks_of_ours_know_of_their_own_blocks_alone() -> None:
    model: Any = nn.Sequential(*(senet.build("se_resnet20") for _ in range(2)))
    model[1].layer1[1].se.inserted = True
    names = "0.layer1.0.se", "0.layer2.0.se", "1.layer3.0.se", "1.layer1.1.se"
    apply(model, [Folding(name, torch.ones(1), (), index == 1, 0) for index, name in enumerate(names)])
    assert [(each.config.folded, each.config.scaled) for each in model] == [
        (("layer1.0.se",), ("layer2.0.se",)),
        (("layer3.0.se",), ()),
    ]
