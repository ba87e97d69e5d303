"""The gates of one image as figures of plotly's, for its page; their look is the page's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from textwrap import shorten
from typing import Any

import numpy as np
import plotly.graph_objects as go
import torch
from torch import Tensor

from senet.analysis.image.image_gates import ImageBlock, ImageGates
from senet.report.page import plotly_text
from senet.report.palette import BLUE, GREY, INK, PALE, VERMILION, faded

# From closed to opened, and from unlike to alike.
DIVERGING = [[0, BLUE], [0.5, "#ffffff"], [1, VERMILION]]

# So many classes are still read side by side.
_CLASSES = 12
_NAME = 32
_ROW = 26


def distance_figure(found: ImageGates) -> go.Figure:
    """How far the gates of the image are from the average, over depth, and how far images usually are."""
    figure = _over_blocks(found, height=280)
    lines = {
        "this image": ([block.distance for block in found.blocks], {"color": BLUE, "width": 2}),
        "usual": ([block.usual for block in found.blocks], {"color": GREY, "width": 2, "dash": "dot"}),
    }
    for name, (values, line) in lines.items():
        figure.add_scatter(
            x=list(range(len(values))),
            y=values,
            name=name,
            mode="lines+markers",
            line=line,
            hovertemplate="%{y:.3f}<extra>%{fullData.name}</extra>",
        )
    return figure.update_layout(hovermode="x", yaxis={"rangemode": "tozero"})


def similarity_figure(found: ImageGates) -> go.Figure:
    """Classes x blocks: how alike the gates of the image and of the class are; a dot marks the most alike."""
    shown = shown_classes(found)
    values = np.array([[float(block.similarity[k]) for block in found.blocks] for k in shown])
    figure = _over_blocks(found, height=_ROW * len(shown) + 130)
    figure.add_heatmap(
        z=values.round(3),
        zmin=-1,
        zmax=1,
        colorscale=DIVERGING,
        xgap=2,
        ygap=2,
        hovertemplate="%{y}<br>%{x}: %{z:.2f}<extra></extra>",
        colorbar={"thickness": 12, "outlinewidth": 0, "len": 1, "tickvals": [-1, 0, 1]},
    )
    nearest = [
        (x, shown.index(k)) for x, k in enumerate(block.nearest for block in found.blocks) if k in shown
    ]
    figure.add_scatter(
        x=[x for x, _ in nearest],
        y=[y for _, y in nearest],
        mode="markers",
        marker={"color": INK, "size": 7},
        hoverinfo="skip",
    )
    names = [plotly_text(shorten(found.classes[k], _NAME, placeholder=" …")) for k in shown]
    return figure.update_layout(
        yaxis={
            "tickvals": list(range(len(shown))),
            "ticktext": names,
            "autorange": "reversed",
            "showgrid": False,
        },
        xaxis={"showgrid": False},
        showlegend=False,
    )


def shown_classes(found: ImageGates) -> list[int]:
    """The classes that are worth a row: the one compared with, those predicted, the nearest of each block."""
    nearest = [block.nearest for block in reversed(found.blocks)]
    wanted = [found.label, *(each.number for each in found.predictions), *nearest]
    known = [k for k in wanted if k is not None and k < len(found.classes)]
    others = range(len(found.classes)) if len(found.classes) <= _CLASSES else ()
    return list(dict.fromkeys([*known, *others]))[:_CLASSES]


def gates_figure(found: ImageGates) -> go.Figure:
    """One block at a time, chosen from a list: its gates against the average, the channels sorted by it."""
    views = [_traces(block) for block in found.blocks]
    limit = max(0.05, *(float(block.apart.abs().max()) for block in found.blocks))
    figure = go.Figure()
    if found.images:
        figure.add_scatter(
            name="± deviation",
            mode="lines",
            line={"width": 0},
            fill="toself",
            fillcolor=faded(GREY, 0.18),
            hoverinfo="skip",
        )
        figure.add_scatter(
            name="average",
            mode="lines",
            line={"color": INK, "width": 1.5},
            hoverinfo="skip",
        )
    figure.add_scatter(
        name="this image",
        mode="markers",
        marker={
            "size": 8,
            "cmin": -limit,
            "cmax": limit,
            "colorscale": DIVERGING,
            "line": {"color": GREY, "width": 0.8},
            "colorbar": {
                "thickness": 12,
                "outlinewidth": 0,
                "title": {"text": "apart", "font": {"size": 11}},
            },
        },
        hovertemplate="%{customdata}<extra></extra>",
    )
    for trace, values in zip(figure.data, views[found.furthest], strict=True):
        trace.update(values)
    buttons = []
    for block, view in zip(found.blocks, views, strict=True):
        keys = ("x", "y", "customdata", "marker.color")
        values = {key: [_at(trace, key) for trace in view] for key in keys}
        size = "".join(f", maps of {' × '.join(map(str, block.size))}" if block.size else "")
        label = plotly_text(f"{block.name}: {block.channels:,} channels{size}")
        buttons.append({"label": label, "method": "restyle", "args": [values]})
    low = min(0.0, *(float(block.s.min()) for block in found.blocks))
    high = max(1.0, *(float(block.s.max()) for block in found.blocks))
    axis = "channels, sorted by their average" if found.images else "channels, sorted"
    return figure.update_layout(
        height=460,
        margin={"t": 80},
        legend={"x": 1, "xanchor": "right"},
        xaxis={"title": {"text": axis}, "showgrid": False},
        yaxis={"title": {"text": "gate"}, "range": [low - 0.02, high + 0.02]},
        updatemenus=[
            {
                "buttons": buttons,
                "x": 0,
                "xanchor": "left",
                "y": 1.03,
                "yanchor": "bottom",
                "active": found.furthest,
                "bgcolor": "white",
                "bordercolor": PALE,
            }
        ],
    )


def _over_blocks(found: ImageGates, *, height: int) -> go.Figure:
    names = [plotly_text(block.name) for block in found.blocks]
    return go.Figure().update_layout(
        height=height,
        xaxis={"tickvals": list(range(len(names))), "ticktext": names, "range": [-0.5, len(names) - 0.5]},
    )


def _traces(block: ImageBlock) -> list[dict[str, Any]]:
    """What each trace of the gates figure gets for a block: band, average, gates."""
    average = block.average
    order = (block.s if average is None else average.mean).argsort(stable=True)
    place = list(range(block.channels))
    apart = _short(block.apart[order])
    gates = {
        "x": place,
        "y": _short(block.s[order]),
        "customdata": [_described(block, channel) for channel in order.tolist()],
        "marker": {"color": apart},
    }
    if average is None:
        return [gates]
    mean, std = average.mean[order], average.std[order]
    band = {"x": [*place, *reversed(place)], "y": _short(torch.cat([mean + std, (mean - std).flip(0)]))}
    return [band, {"x": place, "y": _short(mean)}, gates]


def _described(block: ImageBlock, channel: int) -> str:
    text = f"channel {channel}: {float(block.s[channel]):.3f}"
    if block.average is None or block.deviations is None:
        return text
    mean, std = float(block.average.mean[channel]), float(block.average.std[channel])
    deviations = float(block.deviations[channel])
    apart = f"<br>{deviations:+.1f} σ" if math.isfinite(deviations) else ""
    return f"{text}<br>average {mean:.3f} ± {std:.3f}{apart}"


def _at(trace: dict[str, Any], key: str) -> Any:
    outer, _, inner = key.partition(".")
    value = trace.get(outer)
    return value.get(inner) if inner and value else value


def _short(values: Tensor) -> Sequence[float]:
    """To four digits, as the page holds them as text."""
    return [round(value, 4) for value in values.tolist()]
