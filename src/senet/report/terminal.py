"""Pictures in characters, for the terminal."""

from __future__ import annotations

import math

from senet.analysis.gates import BINS, Gates
from senet.analysis.role.claims import Finding
from senet.analysis.role.study import GateStudy
from senet.insertion.sites import Site
from senet.tables import Table

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


# What of a study's measures a terminal has room for.
_MEASURES = ("mean", "spread", "class_share", "similarity", "closed", "open", "dead", "constant")


def study_text(study: GateStudy) -> str:
    """What was looked at, a line a block, and what became of the claims."""
    seen = study.evaluation
    lines = [
        f"{study.network} on {study.data} ({study.split}): {len(study.blocks)} SE blocks, "
        f"{seen.images - len(seen.broken):,} images, accuracy {seen.top1:.2f} %"
    ]
    if study.random:
        lines.append("The weights are random: this shows the mechanics, and nothing of a trained network.")
    columns = ("block", "channels", *_MEASURES, "effective_rank")
    rows = [{column: row[column] for column in columns} for row in study.rows]
    return "\n".join([*lines, "", str(Table(rows)), "", *map(_finding, study.claims)])


def _finding(finding: Finding) -> str:
    value, low, high = finding.number
    if value is None:
        number = finding.why
    elif low is None or high is None:
        number = f"{value:+.3f}"
    else:
        number = f"{value:+.3f} [{low:+.3f}, {high:+.3f}]"
    claim = finding.claim
    return f"{finding.verdict:14}  {claim.text}\n{'':16}{claim.number}, {claim.contrast}: {number}"


# One unit with the block in its place. A residual unit has its shortcut below.
_UNITS = {
    ("residual", "pre"): "x ─┬─{se}─ branch ─ + ─ out",
    ("residual", "post"): "x ─┬─ branch ─ + ─{se}─ out",
    ("residual", "identity"): "x ─┬─ branch ──{pad}── + ─ out",
    ("residual", "3x3"): "x ─┬─ 1×1 ─ 3×3 ─{se}─ 1×1 ─ + ─ out",
    ("inverted", "standard"): "x ─┬─ expand ─ depthwise ─{se}─ project ─ + ─ out",
    ("dense", "standard"): "x ─┬─ layer ─{se}─ concat ─ out",
    ("aggregation", "standard"): "x ─ conv ─ conv ─ concat ─ 1×1 ─{se}─ out",
    ("parallel", "standard"): "x ─ (3×3 + 1×1 + ...) ─{se}─ activation ─ out",
    ("separable", "standard"): "x ─ depthwise ─ pointwise, activation ─{se}─ out",
    ("plain", "standard"): "x ─ convolution, activation ─{se}─ out",
    ("single", "output"): "x ─ convolution ─{se}─ out",
}


def unit_picture(site: Site, hidden: int | None) -> str:
    """One unit with the block in its place: the paper's two as in its figures, the others in two lines."""
    if (site.kind, site.placement) in _FIGURES:
        return _figure(site, hidden)
    se = f"[SE {site.channels}→{hidden}→{site.channels}]"
    kind = "residual" if site.placement not in ("standard", "output") else site.kind
    above = _UNITS[kind, site.placement].format(se=se, pad="─" * len(se))
    fork = above.find("┬")
    if fork < 0:
        return above
    end = above.find("concat" if kind == "dense" else "+")
    inside = f" {se} " if site.placement == "identity" else ""
    below = " " * fork + "└" + inside.center(end - fork - 1, "─") + "┘"
    return f"{above}\n{below}"


# What stands where the block's map comes from, in the paper's Figures 2 and 3.
_FIGURES = {("inception", "standard"): "Inception", ("residual", "standard"): "residual"}


def _figure(site: Site, hidden: int | None) -> str:
    """From top to bottom; the trunk is the column at 5, the block's at 20, the shortcut's at 31."""
    whole, one = _sizes(*site.size, site.channels), [1] * len(site.size)
    pooled, narrow = _sizes(*one, site.channels), _sizes(*one, hidden)
    block = [("global pooling", pooled), ("FC", narrow), ("ReLU", ""), ("FC", pooled), ("sigmoid", "")]
    rows = [
        (_FIGURES[site.kind, site.placement].center(11), whole),
        (f"     ├{'─' * 14}┐", ""),
        *((f"     │      {text:^17}", sizes) for text, sizes in block),
        (f"   scale {'─' * 11}┘", whole),
    ]
    shortcut = "│" if site.kind == "residual" else " "
    inner = [f"{text:31}{shortcut}   {sizes}".rstrip() for text, sizes in rows]
    if site.kind == "residual":
        inner = [f"     ├{'─' * 25}┐", *inner, f"     + {'─' * 24}┘"]
    return "\n".join(["     X", *inner, "     X̃"])


def _sizes(*sizes: int | None) -> str:
    return " × ".join(str(size) for size in sizes)
