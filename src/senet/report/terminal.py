"""Pictures in characters, for the terminal."""

from __future__ import annotations

import math

from senet.analysis.gates import BINS, Gates

_HEIGHTS = " ▁▂▃▄▅▆▇█"


def gate_bars(gates: Gates) -> str:
    """A line a block: its name, how its gates are distributed from 0 to 1, their mean ± spread."""
    width = max(len(block.name) for block in gates)
    lines = [f"{'block':{width}}  0{'gate'.center(BINS - 2)}1  mean ± spread"]
    for block in gates:
        tallest = max(int(block.histogram.max()), 1)
        # By the root: the few gates far from the rest are what one wants to see.
        bar = "".join(
            _HEIGHTS[math.ceil((len(_HEIGHTS) - 1) * math.sqrt(count / tallest))]
            for count in block.histogram.tolist()
        )
        mean = float(block.mean.mean())
        lines.append(f"{block.name:{width}}  {bar}  {mean:.3f} ± {block.spread:.3f}")
    return "\n".join(lines)
