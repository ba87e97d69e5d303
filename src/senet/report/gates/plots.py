"""The gates of a network as figures of plotly's, for the page; their look is the page's."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from senet.analysis.role.measures import Number
from senet.analysis.role.profiles import BINS, BlockProfile
from senet.analysis.role.study import GateStudy
from senet.report.gates.views import (
    DEPTH,
    Panel,
    class_labels,
    gate_range,
    labels,
    over_classes,
    sampled,
    sorted_shares,
    stages,
)
from senet.report.page import plotly_text
from senet.report.palette import GREY, INK, LINES, PALE, SCALE, faded, line_colour, line_dash

# Heights in pixels: of a panel over depth, a row of the map, the panels of a block.
_DEPTH, _ROW, _PROFILE, _GATES = 220, 22, 290, 190
# Of the legend: the height of a line, and how many letters fit in one on a narrow page.
_LINE, _LETTERS = 22, 85


def depth_figure(study: GateStudy) -> go.Figure:
    """What is measured in each block, over depth, a panel a question; bands are 95 % intervals."""
    figure = make_subplots(
        rows=len(DEPTH),
        shared_xaxes=True,
        vertical_spacing=0.07,
        subplot_titles=[each.title for each in DEPTH],
    )
    for row, panel in enumerate(DEPTH, 1):
        _add_panel(figure, study, panel, row)
    names = list(labels(study).values())
    figure.update_xaxes(
        tickvals=list(range(len(names))),
        ticktext=[plotly_text(name) for name in names],
        range=[-0.5, len(names) - 0.5],
    )
    _head_panels(figure)
    _mark_stages(figure, study)
    return figure.update_layout(height=_DEPTH * len(DEPTH) + 90, hovermode="x", margin={"t": 80, "b": 20})


def specificity_figure(study: GateStudy) -> go.Figure:
    """Blocks x channels: how much of each channel's gate the class explains; sorted within a block."""
    names, height = list(labels(study).values()), len(study.blocks)
    figure = go.Figure()
    for row, (name, profile) in enumerate(zip(names, study.blocks.values(), strict=True)):
        shares, order = sorted_shares(profile)
        # Seen where a gate does not vary.
        figure.add_shape(
            x0=0, x1=1, y0=row - 0.42, y1=row + 0.42, fillcolor=PALE, line={"width": 0}, layer="below"
        )
        figure.add_heatmap(
            x0=0.5 / len(order),
            dx=1 / len(order),
            y=[row - 0.42, row + 0.42],
            z=shares.astype(np.float32)[None],
            customdata=np.array(order)[None],
            name=plotly_text(name),
            coloraxis="coloraxis",
            hovertemplate="channel %{customdata}: %{z:.1%}<extra>%{fullData.name}</extra>",
            hoverongaps=False,
        )
    figure.update_layout(
        height=_ROW * height + 150,
        xaxis={"title": {"text": "channels of the block, sorted"}, "tickformat": ".0%", "showgrid": False},
        yaxis={
            "tickvals": list(range(height)),
            "ticktext": [plotly_text(name) for name in names],
            "range": [height - 0.5, -0.5],
            "showgrid": False,
        },
        coloraxis={
            "cmin": 0,
            "cmax": 1,
            "colorscale": [[place / (len(SCALE) - 1), colour] for place, colour in enumerate(SCALE)],
            "colorbar": {"tickformat": ".0%", "thickness": 12, "outlinewidth": 0, "len": 0.9},
        },
        margin={"t": 20},
    )
    return figure


def block_figure(study: GateStudy, shown: Sequence[int], channels: int | None) -> go.Figure:
    """One block at a time, chosen from a list; the classes are chosen in the legend, at first four.

    Args:
        study: the gates.
        shown: the numbers of the classes.
        channels: how many of a block, evenly spaced; None for all.
    """
    names = [plotly_text(name) for name in class_labels(study, shown)]
    views = [_view(profile, shown, channels) for profile in study.blocks.values()]
    figure = make_subplots(
        rows=3,
        vertical_spacing=0.11,
        row_heights=[_PROFILE, _PROFILE, _GATES],
        subplot_titles=[
            "mean gate of each class",
            "mean ± standard deviation over the images of a class",
            "all gates of the block",
        ],
    )
    for number, name in enumerate(names):
        colour = line_colour(number)
        line = {"color": colour, "width": 1.5, "dash": line_dash(number)}
        group = {"legendgroup": f"class {number}", "visible": True if number < len(LINES) else "legendonly"}
        shared = {"name": name, "mode": "lines", "line": line, **group}
        figure.add_scatter(row=1, col=1, hovertemplate=_HOVER, **shared)
        figure.add_scatter(row=2, col=1, hovertemplate=_HOVER, showlegend=False, **shared)
        figure.add_scatter(
            row=2,
            col=1,
            showlegend=False,
            mode="lines",
            line={"width": 0},
            fill="toself",
            fillcolor=faded(colour, 0.18),
            hoverinfo="skip",
            **group,
        )
    figure.add_scatter(
        row=1,
        col=1,
        name=f"mean over all {len(study.classes):,} classes",
        mode="lines",
        line={"color": INK, "width": 2, "dash": "dot"},
        hovertemplate="channel %{x}<br>mean %{y:.3f}<extra>%{fullData.name}</extra>",
    )
    figure.add_bar(
        row=3,
        col=1,
        showlegend=False,
        marker={"color": GREY, "line": {"width": 0}},
        hovertemplate="%{y:.2%} of the gates<br>around %{x:.2f}<extra></extra>",
    )
    for trace, values in enumerate(zip(*(view.traces for view in views), strict=True)):
        figure.data[trace].update(values[0])
    low, high = gate_range(study)
    figure.update_yaxes(range=_wider(low, high))
    figure.update_yaxes(row=3, col=1, autorange=True, range=None, tickformat=".0%")
    figure.update_xaxes(row=2, col=1, title={"text": "channel"})
    figure.update_xaxes(row=3, col=1, range=[0, 1], title={"text": "gate"})
    _head_panels(figure)
    plot = 2 * _PROFILE + _GATES
    # The legend grows upwards, between the panels and the menus, by a line for so many letters.
    letters = sum(len(trace.name) + 8 for trace in figure.data if trace.name and trace.showlegend is None)
    legend = _LINE * math.ceil(letters / _LETTERS)
    menus = {
        "y": 1 + (50 + legend) / plot,
        "yanchor": "bottom",
        "bgcolor": "white",
        "bordercolor": PALE,
        "showactive": True,
    }
    return figure.update_layout(
        height=plot + 165 + legend,
        bargap=0,
        margin={"t": 105 + legend, "b": 60},
        legend={"y": 1 + 30 / plot},
        updatemenus=[_block_menu(study, views) | menus, _axis_menu(low, high) | menus],
    )


_HOVER = (
    "channel %{x}<br>mean %{y:.3f}, deviation %{customdata[0]:.3f}<br>%{customdata[1]} images"
    "<extra>%{fullData.name}</extra>"
)

_INTERVAL = "{name} %{{y:{format}}} [%{{customdata[0]:{format}}}, %{{customdata[1]:{format}}}]<extra></extra>"


class _View(NamedTuple):
    """A block in the block figure: what each trace gets, in their order."""

    traces: list[dict[str, list[Any]]]


def _view(profile: BlockProfile, shown: Sequence[int], channels: int | None) -> _View:
    place = sampled(profile.channels, channels)
    mean, deviation, images = profile.class_mean, profile.class_std, profile.images
    traces: list[dict[str, list[Any]]] = []
    for number in shown:
        means, deviations = _short(mean[number, place]), _short(deviation[number, place])
        line: dict[str, list[Any]] = {
            "x": place,
            "y": means,
            "customdata": [[each, int(images[number])] for each in deviations],
        }
        upper = [
            m + d if m is not None and d is not None else None for m, d in zip(means, deviations, strict=True)
        ]
        lower = [
            m - d if m is not None and d is not None else None for m, d in zip(means, deviations, strict=True)
        ]
        band: dict[str, list[Any]] = {
            "x": [*place, *reversed(place)],
            "y": [None if each is None else round(each, 4) for each in [*upper, *reversed(lower)]],
        }
        traces += [line, line, band]
    traces.append({"x": place, "y": _short(over_classes(profile)[place])})
    share = profile.histogram / profile.histogram.sum().clamp(min=1)
    traces.append({"x": [round((bin + 0.5) / BINS, 3) for bin in range(BINS)], "y": _short(share)})
    return _View(traces)


def _block_menu(study: GateStudy, views: Sequence[_View]) -> dict[str, Any]:
    """The list of blocks. It changes the values of the traces, so what the legend hides stays hidden."""
    buttons = []
    for (name, label), view in zip(labels(study).items(), views, strict=True):
        values = {key: [trace.get(key) for trace in view.traces] for key in ("x", "y", "customdata")}
        block = study.blocks[name]
        size = " × ".join(map(str, block.size))
        text = f"{label}: {block.channels:,} channels" + (f", maps of {size}" if size else "")
        buttons.append({"label": plotly_text(text), "method": "restyle", "args": [values]})
    return {"buttons": buttons, "x": 0, "xanchor": "left"}


def _axis_menu(low: float, high: float) -> dict[str, Any]:
    whole = {f"yaxis{axis}.range": _wider(low, high) for axis in ("", "2")}
    fit = {f"yaxis{axis}.autorange": True for axis in ("", "2")}
    return {
        "type": "buttons",
        "direction": "right",
        "buttons": [
            {"label": f"axis {low:.3g} to {high:.3g}", "method": "relayout", "args": [whole]},
            {"label": "axis to fit", "method": "relayout", "args": [fit]},
        ],
        "x": 1,
        "xanchor": "right",
    }


def _wider(low: float, high: float) -> list[float]:
    """A little more, so that lines at the ends are seen whole."""
    return [low - 0.02, high + 0.02]


def _band(numbers: Sequence[Number]) -> Iterator[tuple[int | None, float | None]]:
    """The outlines of an interval along the blocks, apart where it is not known."""
    for known, places in groupby(range(len(numbers)), key=lambda place: numbers[place].low is not None):
        if known:
            run = list(places)
            yield from ((place, numbers[place].high) for place in run)
            yield from ((place, numbers[place].low) for place in reversed(run))
            yield None, None


def _add_panel(figure: go.Figure, study: GateStudy, panel: Panel, row: int) -> None:
    for number, (column, name) in enumerate(panel.lines.items()):
        colour = line_colour(number)
        numbers = [each.numbers[column] for each in study.measures]
        band = list(_band(numbers))
        figure.add_scatter(
            row=row,
            col=1,
            x=[place for place, _ in band],
            y=[value for _, value in band],
            mode="lines",
            line={"width": 0},
            fill="toself",
            fillcolor=faded(colour, 0.18),
            hoverinfo="skip",
            showlegend=False,
            legendgroup=column,
        )
        figure.add_scatter(
            row=row,
            col=1,
            x=list(range(len(numbers))),
            y=[each.value for each in numbers],
            customdata=[[each.low, each.high] for each in numbers],
            mode="lines+markers",
            line={"color": colour, "width": 1.8},
            marker={"size": 6},
            name=name,
            showlegend=len(panel.lines) > 1,
            legendgroup=column,
            legend=f"legend{row}",
            hovertemplate=_INTERVAL.format(name=name, format=".1%" if panel.share else ".3f"),
        )
    _, end = figure.layout[f"yaxis{'' if row == 1 else row}"].domain
    figure.update_layout(
        {
            f"legend{row}": {
                "orientation": "h",
                "x": 1,
                "xanchor": "right",
                "y": end,
                "yanchor": "bottom",
                "bgcolor": "rgba(0,0,0,0)",
            }
        }
    )
    figure.update_yaxes(row=row, col=1, tickformat=".0%" if panel.share else "")


def _head_panels(figure: go.Figure) -> None:
    """The titles of the panels stand to the left."""
    figure.update_annotations(x=0, xanchor="left", yshift=4, font={"size": 13, "color": INK})


def _mark_stages(figure: go.Figure, study: GateStudy) -> None:
    """Every other stage on a grey ground, and the size of its maps above."""
    for number, stage in enumerate(stages(study)):
        if number % 2:
            figure.add_shape(
                type="rect",
                xref="x",
                yref="paper",
                x0=stage.first - 0.5,
                x1=stage.last + 0.5,
                y0=0,
                y1=1,
                fillcolor="#f5f5f2",
                line={"width": 0},
                layer="below",
            )
        figure.add_annotation(
            text=stage.text,
            x=(stage.first + stage.last) / 2,
            xref="x",
            y=1,
            yref="paper",
            yshift=38,
            showarrow=False,
            font={"size": 11, "color": GREY},
        )


def _short(values: Any) -> list[float | None]:
    """To four digits, as the page holds them as text; None where there is no number."""
    return [round(value, 4) if value == value else None for value in values.tolist()]
