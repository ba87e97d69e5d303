"""Pictures in characters, for the terminal."""

from __future__ import annotations

import math

from senet.analysis.gates import BINS, Gates
from senet.insertion.sites import Site

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


# One unit with the block in its place. A residual unit has its shortcut below.
_UNITS = {
    ("residual", "standard"): "x ─┬─ branch ─{se}─ + ─ out",
    ("residual", "pre"): "x ─┬─{se}─ branch ─ + ─ out",
    ("residual", "post"): "x ─┬─ branch ─ + ─{se}─ out",
    ("residual", "identity"): "x ─┬─ branch ──{pad}── + ─ out",
    ("residual", "3x3"): "x ─┬─ 1×1 ─ 3×3 ─{se}─ 1×1 ─ + ─ out",
    ("inverted", "standard"): "x ─┬─ expand ─ depthwise ─{se}─ project ─ + ─ out",
    ("dense", "standard"): "x ─┬─ layer ─{se}─ concat ─ out",
    ("inception", "standard"): "x ─┬─ branch ─┬─ concat ─{se}─ out",
    ("aggregation", "standard"): "x ─ conv ─ conv ─ concat ─ 1×1 ─{se}─ out",
    ("parallel", "standard"): "x ─ (3×3 + 1×1 + ...) ─{se}─ activation ─ out",
    ("separable", "standard"): "x ─ depthwise ─ pointwise, activation ─{se}─ out",
    ("plain", "standard"): "x ─ convolution, activation ─{se}─ out",
    ("single", "output"): "x ─ convolution ─{se}─ out",
}


def unit_picture(site: Site, hidden: int | None) -> str:
    """One unit, drawn in two lines, with the block in its place and its widths."""
    se = f"[SE {site.channels}→{hidden}→{site.channels}]"
    kind = "residual" if site.placement not in ("standard", "output") else site.kind
    above = _UNITS[kind, site.placement].format(se=se, pad="─" * len(se))
    fork = above.find("┬")
    if fork < 0:
        return above
    end = above.rfind("┬") if kind == "inception" else above.find("concat" if kind == "dense" else "+")
    inside = " branch " if kind == "inception" else f" {se} " if site.placement == "identity" else ""
    below = " " * fork + "└" + inside.center(end - fork - 1, "─") + "┘"
    return f"{above}\n{below}"
