import torch

from senet.analysis.gates import BlockGates, Gates
from senet.report.terminal import gate_bars


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
