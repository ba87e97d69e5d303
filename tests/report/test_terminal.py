import pytest
import torch

from senet.analysis.gates import BlockGates, Gates
from senet.insertion.attachment import Attachment
from senet.insertion.placement import PLACEMENTS, RULES
from senet.insertion.sites import Site
from senet.report.terminal import gate_bars, unit_picture


def test_a_line_a_block() -> None:
    open_block, spread_block = BlockGates("layer1.0.se", 2), BlockGates("b", 2)
    open_block.update(torch.full((3, 2), 0.999))
    spread_block.update(torch.tensor([[0.0, 0.5], [0.25, 0.75]]))
    head, first, second = gate_bars(Gates({"layer1.0.se": open_block, "b": spread_block})).splitlines()
    assert head.startswith("block        0")
    assert first == "layer1.0.se  " + " " * 19 + "█  0.999 ± 0.000"
    assert second.startswith("b            █    █    █    █")
    assert second.endswith("0.375 ± 0.280")
    assert (
        len({line.index(mark) for line, mark in ((head, "mean"), (first, "0.999"), (second, "0.375"))}) == 1
    )


def _site(kind: str, placement: str = "standard") -> Site:
    return Site("u", kind, 2, placement, 64, (7, 9), Attachment("output", "u"), "u.se")


@pytest.mark.parametrize("kind", [kind for kind in RULES if kind not in ("residual", "inception")])
def test_every_kind_of_unit_has_a_picture(kind: str) -> None:
    above, *below = unit_picture(_site(kind), 4).splitlines()
    assert "─[SE 64→4→64]─" in above
    assert above.endswith("─ out")
    for line in below:
        assert above[line.index("└")] == "┬"


def test_the_residual_unit_is_drawn_as_in_figure_3() -> None:
    assert unit_picture(_site("residual"), 4).splitlines() == [
        "     X",
        "     ├─────────────────────────┐",
        "  residual                     │   7 × 9 × 64",
        "     ├──────────────┐          │",
        "     │       global pooling    │   1 × 1 × 64",
        "     │             FC          │   1 × 1 × 4",
        "     │            ReLU         │",
        "     │             FC          │   1 × 1 × 64",
        "     │           sigmoid       │",
        "   scale ───────────┘          │   7 × 9 × 64",
        "     + ────────────────────────┘",
        "     X̃",
    ]


def test_the_inception_module_is_drawn_as_in_figure_2() -> None:
    lines = unit_picture(_site("inception"), 4).splitlines()
    assert [" ".join(line.split()) for line in lines] == [
        "X",
        "Inception 7 × 9 × 64",
        "├──────────────┐",
        "│ global pooling 1 × 1 × 64",
        "│ FC 1 × 1 × 4",
        "│ ReLU",
        "│ FC 1 × 1 × 64",
        "│ sigmoid",
        "scale ───────────┘ 7 × 9 × 64",
        "X̃",
    ]


@pytest.mark.parametrize("placement", [name for name in PLACEMENTS if name != "standard"])
def test_every_placement_has_a_picture(placement: str) -> None:
    above, below = unit_picture(_site("residual", placement), 4).splitlines()
    assert ("[SE" in below) is (placement == "identity")
    assert above.index("┬") == below.index("└")
    assert above.index("+") == below.index("┘")
    order = [above.find("branch"), above.find("[SE"), above.find("+")]
    if placement in ("pre", "post"):
        ranked = {"pre": [1, 0, 2], "post": [0, 2, 1]}[placement]
        assert sorted(range(3), key=lambda k: order[k]) == ranked
