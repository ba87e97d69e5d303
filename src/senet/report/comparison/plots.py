"""A comparison as figures of plotly's, for the page; their look is the page's."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from senet.analysis.comparison.comparison import Comparison, Group
from senet.analysis.comparison.group import COSTS, ERRORS, gain_text
from senet.analysis.comparison.seeds import Estimate
from senet.report.comparison.views import VERDICTS, compared, jitter, short, state
from senet.report.page import plotly_text
from senet.report.palette import BLUE, GREY, INK, LINES, PALE, faded, line_colour, line_dash

# In pixels: a row of the points, and the figures that have no rows.
_ROW, _GAINS, _CURVES, _COST = 34, 420, 560, 460
# Of a line of the legend: its height; how many letters fit in one, there or below an axis, on a narrow page.
_LINE, _LETTERS = 22, 85
# The axes of the curves; D2 marks 1, 2, 5, 10, ...
_AXES: dict[str, dict[str, Any]] = {
    "logarithmic": {"type": "log", "dtick": "D2"},
    "linear": {"type": "linear", "dtick": None},
}
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x")
# So many groups have curves at first.
_SHOWN = len(LINES)


def errors_figure(comparison: Comparison) -> go.Figure:
    """A row a group: its runs, their mean and its 95 % interval; which error is chosen by buttons."""
    groups = comparison.groups
    figure = go.Figure()
    figure.add_scatter(
        mode="markers",
        name="a run",
        marker={"color": faded(BLUE, 0.45), "size": 8},
        hovertemplate="%{text}: %{x:.2f} %<extra></extra>",
    )
    figure.add_scatter(
        mode="markers",
        name="mean, 95 % interval",
        marker={"color": INK, "size": 10, "symbol": "diamond"},
        error_x={"type": "data", "color": INK, "thickness": 1.6, "width": 5},
        hovertemplate="%{text}<extra></extra>",
    )
    buttons: list[dict[str, Any]] = []
    for name, head in ERRORS.items():
        runs, means = _runs(groups, name), _means(groups, name)
        data = {key: [runs.get(key), values] for key, values in means.items()}
        layout = {"xaxis.title.text": head, "shapes": _baseline(comparison, name)}
        buttons.append({"label": head.removesuffix(" %"), "method": "update", "args": [data, layout]})
    first, look = buttons[0]["args"]
    for number, trace in enumerate(figure.data):
        trace.update({key: values[number] for key, values in first.items() if values[number] is not None})
    for row, group in enumerate(groups):
        if not group.results:
            place = {"x": 0.01, "xref": "paper", "xanchor": "left", "y": row, "showarrow": False}
            figure.add_annotation(text=plotly_text(state(group)), font={"color": GREY, "size": 12}, **place)
    figure.update_layout(look)
    return figure.update_layout(
        height=_ROW * len(groups) + 150,
        yaxis={
            "tickvals": list(range(len(groups))),
            "ticktext": [plotly_text(short(group.label)) for group in groups],
            "range": [len(groups) - 0.5, -0.5],
            "showgrid": False,
        },
        margin={"t": 70},
        updatemenus=[_buttons(buttons, _ROW * len(groups))],
    )


def gains_figure(comparison: Comparison) -> go.Figure:
    """The gain of each group, a line a seed; the mean with its 95 % interval in the colour of the verdict."""
    gains = comparison.gains
    labels, places = compared(comparison)
    figure = go.Figure()
    for number, seed in enumerate(sorted({seed for gain in gains.values() for seed in gain.by_seed})):
        values = [gains[label].by_seed.get(seed) if label in gains else 0.0 for label in labels]
        figure.add_scatter(
            x=places,
            y=values,
            mode="lines+markers",
            name="a seed",
            legendgroup="seeds",
            showlegend=number == 0,
            line={"color": faded(BLUE, 0.4), "width": 1.3},
            marker={"size": 6, "color": faded(BLUE, 0.55)},
            text=[None if value is None else f"{value:+z.2f}" for value in values],
            hovertemplate=f"seed {seed}: %{{text}} points<extra></extra>",
        )
    for verdict, colour in VERDICTS.items():
        found = [
            (place, gains[label])
            for label, place in zip(labels, places, strict=True)
            if label in gains and gains[label].verdict == verdict
        ]
        figure.add_scatter(
            x=[place for place, _ in found],
            y=[gain.estimate.mean for _, gain in found],
            error_y={
                "array": [_reach(gain.estimate) for _, gain in found],
                "color": colour,
                "thickness": 2,
                "width": 7,
            },
            mode="markers",
            name=f"mean, 95 % interval: {verdict}",
            showlegend=bool(found),
            marker={"color": colour, "size": 11, "symbol": "diamond"},
            text=[gain_text(gain) for _, gain in found],
            hovertemplate="mean %{text} points<extra></extra>",
        )
    names = [short(label) for label in labels]
    gap = min((after - place for place, after in pairwise(places)), default=0.0) or 1.0
    span = places[-1] - places[0] + gap
    return figure.update_layout(
        height=_GAINS,
        xaxis={
            "tickvals": places,
            "ticktext": [plotly_text(name) for name in names],
            # Level where the longest name has room between its neighbours.
            "tickangle": 0 if (max(map(len, names)) + 1) * span <= _LETTERS * gap else -35,
            "ticklabeloverflow": "allow",
            "range": [places[0] - gap / 2, places[-1] + gap / 2],
            "showgrid": False,
        },
        yaxis={"title": {"text": "gain, points of test top-1"}, "tickformat": "+.3~g"},
        shapes=[
            {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": 0, "y1": 0}
            | {"line": {"color": GREY, "width": 1}, "layer": "below"}
        ],
        margin={"t": 50},
    )


def curves_figure(comparison: Comparison) -> go.Figure:
    """Test error and training loss over the epochs: the mean over seeds, and from the least to the most.

    Groups are chosen in the legend, at first four.
    """
    figure = make_subplots(
        rows=2,
        shared_xaxes=True,
        row_heights=[0.6, 0.4],
        vertical_spacing=0.09,
        subplot_titles=["test error, %", "training loss"],
    )
    shown = [group for group in comparison.groups if _seeds_with_curves(group)]
    for number, group in enumerate(shown):
        curves = [group.curves[seed] for seed in _seeds_with_curves(group)]
        epochs = list(zip(*curves, strict=False))
        errors = [[100 - float(row["test_top1"]) for row in rows] for rows in epochs]
        losses = [[float(row["train_loss"]) for row in rows] for rows in epochs]
        _add_curve(figure, 1, number, group.label, errors)
        _add_curve(figure, 2, number, group.label, losses)
    figure.update_annotations(x=0, xanchor="left", yshift=4, font={"size": 13, "color": INK})
    figure.update_xaxes(row=2, col=1, title={"text": "epoch"})
    legend = _LINE * -(-sum(len(short(group.label)) + 8 for group in shown) // _LETTERS)
    # No error at all has no logarithm.
    first = 0 if all(value > 0 for trace in figure.data for value in trace.y) else 1
    axis = list(_AXES.values())[first]
    buttons = [
        {
            "label": name,
            "method": "relayout",
            "args": [{f"yaxis{n}.{key}": value for n in ("", "2") for key, value in each.items()}],
        }
        for name, each in _AXES.items()
    ]
    return figure.update_layout(
        height=_CURVES + 25 + legend,
        yaxis={"tickformat": ".3~g", **axis},
        yaxis2={"tickformat": ".3~g", **axis},
        # Room above the buttons for plotly's own.
        margin={"t": 110 + legend},
        legend={"y": 1 + 30 / (_CURVES - 140)},
        updatemenus=[_buttons(buttons, _CURVES - 140, legend + 30) | {"active": first}],
    )


def cost_figure(comparison: Comparison) -> go.Figure:
    """Test error against a cost that is chosen from a list; bars are 95 % intervals over seeds."""
    groups = [group for group in comparison.groups if group.results]
    figure = go.Figure()
    names = [name for name in COSTS if any(group.median(name) is not None for group in groups)]
    for number, group in enumerate(groups):
        mean = group.mean("test_error")
        figure.add_scatter(
            x=[_cost(group, names[0])],
            y=[mean.mean if mean else None],
            error_y={"array": [_reach(mean) if mean else None], "thickness": 1.4, "width": 4},
            mode="markers",
            name=plotly_text(short(group.label)),
            marker={
                "color": line_colour(number),
                "symbol": _SYMBOLS[number // len(LINES) % len(_SYMBOLS)],
                "size": 12,
            },
            hovertemplate="%{x:,.4~g}: %{y:.2f} %<extra>%{fullData.name}</extra>",
        )
    buttons = [
        {
            "label": COSTS[name][0],
            "method": "update",
            "args": [{"x": [[_cost(group, name)] for group in groups]}, {"xaxis.title.text": COSTS[name][0]}],
        }
        for name in names
    ]
    legend = _LINE * -(-sum(len(short(group.label)) + 8 for group in groups) // _LETTERS)
    return figure.update_layout(
        height=_COST + 15 + legend,
        xaxis={"title": {"text": COSTS[names[0]][0]}},
        yaxis={"title": {"text": ERRORS["test_error"]}},
        showlegend=True,
        margin={"t": 75 + legend},
        updatemenus=[_buttons(buttons, _COST - 100, legend)],
    )


def _runs(groups: Sequence[Group], name: str) -> dict[str, list[Any]]:
    """The dots of all runs."""
    dots: dict[str, list[Any]] = {"x": [], "y": [], "text": []}
    for row, group in enumerate(groups):
        values = group.values(name)
        for place, (seed, value) in enumerate(values.items()):
            dots["x"].append(_short(value))
            dots["y"].append(row + jitter(place, len(values)))
            dots["text"].append(f"{plotly_text(group.label)}, seed {seed}")
    return dots


def _means(groups: Sequence[Group], name: str) -> dict[str, list[Any]]:
    """The means of the groups that have runs, with their intervals."""
    found: dict[str, list[Any]] = {"x": [], "y": [], "text": [], "error_x.array": []}
    for row, group in enumerate(groups):
        if (mean := group.mean(name)) is not None:
            ends = "" if mean.low is None else f" [{mean.low:.2f}, {mean.high:.2f}]"
            found["x"].append(_short(mean.mean))
            found["y"].append(row)
            found["error_x.array"].append(_reach(mean))
            found["text"].append(f"{plotly_text(group.label)}: mean {mean.mean:.2f} %{ends}")
    return found


def _baseline(comparison: Comparison, name: str) -> list[dict[str, Any]]:
    """A line at the baseline's mean, if there is one."""
    base = next((group for group in comparison.groups if group.label == comparison.baseline), None)
    mean = base.mean(name) if base else None
    if mean is None:
        return []
    line = {"color": GREY, "width": 1, "dash": "dot"}
    ends = {"x0": mean.mean, "x1": mean.mean, "y0": 0, "y1": 1, "yref": "paper"}
    return [{"type": "line", "layer": "below", "line": line, **ends}]


def _add_curve(
    figure: go.Figure, row: int, number: int, label: str, epochs: Sequence[Sequence[float]]
) -> None:
    """A group in a panel: its line and its band, which the legend hides together."""
    colour, x = line_colour(number), list(range(1, len(epochs) + 1))
    group = {"legendgroup": f"group {number}", "visible": True if number < _SHOWN else "legendonly"}
    low, high = [_short(min(each)) for each in epochs], [_short(max(each)) for each in epochs]
    figure.add_scatter(
        row=row,
        col=1,
        x=[*x, *reversed(x)],
        y=[*high, *reversed(low)],
        mode="lines",
        line={"width": 0},
        fill="toself",
        fillcolor=faded(colour, 0.15),
        hoverinfo="skip",
        showlegend=False,
        **group,
    )
    figure.add_scatter(
        row=row,
        col=1,
        x=x,
        y=[_short(statistics.fmean(each)) for each in epochs],
        customdata=[list(ends) for ends in zip(low, high, strict=True)],
        mode="lines" if len(x) > 1 else "markers",
        name=plotly_text(short(label)),
        showlegend=row == 1,
        line={"color": colour, "width": 1.8, "dash": line_dash(number)},
        hovertemplate="epoch %{x}: mean %{y:.4~g}, from %{customdata[0]:.4~g} to %{customdata[1]:.4~g}"
        "<extra>%{fullData.name}</extra>",
        **group,
    )


def _seeds_with_curves(group: Group) -> list[int]:
    """Of the runs that are done: others end early."""
    return [seed for seed in sorted(group.results) if group.curves.get(seed)]


def _cost(group: Group, name: str) -> float | None:
    value = group.median(name)
    return None if value is None else _short(value / COSTS[name][1])


def _reach(mean: Estimate) -> float | None:
    """Half the interval."""
    return None if mean.high is None else round(mean.high - mean.mean, 4)


def _short(value: float) -> float:
    """To five digits, as the page holds it as text."""
    return float(f"{value:.5g}")


def _buttons(buttons: list[dict[str, Any]], height: int, legend: int = 0) -> dict[str, Any]:
    """A row of buttons above a plot of so many pixels, right."""
    return {
        "type": "buttons",
        "direction": "right",
        "buttons": buttons,
        "x": 1,
        "xanchor": "right",
        "y": 1 + (8 + legend) / height,
        "yanchor": "bottom",
        "bgcolor": "white",
        "bordercolor": PALE,
        "showactive": True,
    }
