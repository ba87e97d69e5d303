"""The learning curves of a run, as a picture in its folder."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from senet.files import replacing
from senet.report.palette import BLUE, GREY, PALE, PURPLE, VERMILION

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CURVES = "curves.png"

# Between two pictures: drawing takes a third of a second, which is then a hundredth of the time at most.
_SECONDS = 30.0

# Where the panels are, and the heading above them, as shares of the picture.
_LEFT, _RIGHT, _TOP, _HEADING = 0.095, 0.845, 0.91, 0.96

# Up to so many epochs, each is marked; in points, the least distance of two labels.
_MARKED = 30
_LABEL_HEIGHT = 13.0

# A rate that spends a fifth of the run below this share of its highest has a logarithmic axis. Steps do;
# a cosine does not, though it ends near 0.
_LOW = 1 / 20


class Curves:
    """Draws ``curves.png`` while a run goes on; nothing that goes wrong in it ends the run.

    Args:
        say: takes a line for people where the picture cannot be drawn; the same line only once.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._said = ""
        self._drawn = float("-inf")
        self._waiting: tuple[Path, Sequence[dict[str, Any]]] | None = None

    def __call__(self, path: Path, history: Sequence[dict[str, Any]]) -> None:
        """Draws, unless the last picture is younger than half a minute; ``close`` makes up for that.

        Args:
            path: the run folder.
            history: the rows of metrics.csv.
        """
        self._waiting = path, history
        if time.monotonic() - self._drawn >= _SECONDS:
            self.close()

    def close(self) -> None:
        """Draws what waits for it; to be called when the run is over, however it ended."""
        if self._waiting is None:
            return
        (path, history), self._waiting = self._waiting, None
        try:
            draw(path, history)
        except ImportError:
            self._complain("pip install 'senet[plot]'")
        except OSError as error:
            self._complain(error.strerror or str(error))
        # A month of training is worth more than its picture.
        except Exception as error:
            self._complain(f"{type(error).__name__}: {error}")
        self._drawn = time.monotonic()

    def _complain(self, why: str) -> None:
        if why != self._said:
            self._say(f"{CURVES} is not drawn: {why}")
            self._said = why


def draw(path: Path, history: Sequence[dict[str, Any]]) -> None:
    """Draws ``curves.png`` in a run folder, whole or not at all.

    Args:
        path: the run folder; its name is the title.
        history: the rows of metrics.csv, at least one.

    Raises:
        ImportError: matplotlib is not installed.
        OSError: the file cannot be written.
    """
    figure = figure_of(path.resolve().name, history)
    with replacing(path / CURVES) as temporary:
        figure.savefig(temporary, format="png", dpi="figure", backend="agg")


def figure_of(title: str, history: Sequence[dict[str, Any]]) -> Figure:
    """Losses, accuracy on the test images with the best epoch, and the learning rate, over the epochs.

    Args:
        title: stands above.
        history: the rows of metrics.csv, at least one.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, PercentFormatter, StrMethodFormatter

    # Not by pyplot, which chooses a backend for the whole program.
    figure = Figure(figsize=(8, 8), dpi=150, facecolor="white")
    places = {"left": _LEFT, "right": _RIGHT, "top": _TOP, "bottom": 0.07, "hspace": 0.14}
    loss, accuracy, rate = figure.subplots(
        3, sharex=True, gridspec_kw={"height_ratios": [4, 4, 1.6], **places}
    )
    losses, accuracies = _drawn(_LOSSES, history), _drawn(_ACCURACIES, history)
    measured = "test accuracy" if accuracies == _ACCURACIES[:2] else "test precision"
    for axes, name in ((loss, "loss"), (accuracy, measured), (rate, "learning rate")):
        _furnish(axes, name)
    epochs = [row["epoch"] for row in history]
    rate.set_xlim(0, epochs[-1])
    rate.set_xlabel("epoch", color=GREY)
    rate.xaxis.set_major_locator(MaxNLocator(integer=True))

    rates = [row["lr"] for row in history]
    if len(rates) > 1 and 0 < statistics.quantiles(rates, n=5, method="inclusive")[0] < _LOW * max(rates):
        rate.set_yscale("log")
        rate.yaxis.set_major_locator(LogLocator(numticks=6))
        rate.yaxis.set_minor_locator(NullLocator())
    rate.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    accuracy.yaxis.set_major_formatter(PercentFormatter(symbol=" %"))

    _plot(loss, epochs, history, losses)
    _plot(accuracy, epochs, history, accuracies)
    # The rate of a row is that of the epoch which ends there.
    _plot(rate, [0, *epochs], [history[0], *history], _RATE)
    _mark(loss, accuracy, history, accuracies[0].column)
    heading = figure.text(_LEFT, _HEADING, title, fontsize=12, fontweight="bold")
    heading.set_parse_math(False)
    extent = f"epoch {epochs[-1]:,}, step {history[-1]['step']:,}"
    figure.text(_RIGHT, _HEADING, extent, fontsize=9, color=GREY, ha="right")
    return figure


class _Curve(NamedTuple):
    """A column of the rows: how its end is labelled with the last value, and how it is drawn."""

    column: str
    label: str
    colour: str
    style: str = "default"


_LOSSES = [
    _Curve("train_loss", "train {:.3f}", BLUE),
    _Curve("test_loss", "test {:.3f}", VERMILION),
]
_ACCURACIES = [
    _Curve("test_top1", "top-1 {:.2f} %", VERMILION),
    _Curve("test_top5", "top-5 {:.2f} %", PURPLE),
    _Curve("test_ap", "AP {:.2f} %", VERMILION),
    _Curve("test_ap50", "AP50 {:.2f} %", PURPLE),
]
_RATE = [_Curve("lr", "{:.3g}", GREY, "steps-pre")]


def _drawn(curves: Sequence[_Curve], history: Sequence[dict[str, Any]]) -> list[_Curve]:
    """The curves that the run has: a detector's test has a precision in place of loss and accuracy."""
    return [curve for curve in curves if curve.column in history[0]]


def _furnish(axes: Axes, name: str) -> None:
    """A name above, a thin grid, and no frame."""
    axes.set_title(name, loc="left", fontsize=10, color=GREY)
    axes.grid(color=PALE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelsize=9, colors=GREY)


def _plot(axes: Axes, epochs: Sequence[int], rows: Sequence[dict[str, Any]], curves: list[_Curve]) -> None:
    """Draws the curves, each with its name and last value at its end."""
    for curve in curves:
        axes.plot(
            epochs,
            [row[curve.column] for row in rows],
            color=curve.colour,
            linewidth=1.4,
            drawstyle=curve.style,
            marker="o" if len(epochs) <= _MARKED and curve.style == "default" else "",
            markersize=3.5,
            clip_on=False,
        )
    axes.margins(y=0.08)
    axes.set_ylim(bottom=max(0.0, axes.get_ylim()[0]))
    lasts = [rows[-1][curve.column] for curve in curves]
    for curve, last, shift in zip(curves, lasts, _shifts(axes, lasts), strict=True):
        axes.annotate(
            curve.label.format(last),
            (epochs[-1], last),
            xytext=(7, shift),
            textcoords="offset points",
            va="center",
            fontsize=9,
            color=curve.colour,
        )


def _shifts(axes: Axes, lasts: Sequence[float]) -> list[float]:
    """By how many points labels at these heights have to move so that none covers the other."""
    heights = [axes.transData.transform((0, last))[1] * 72 / axes.figure.dpi for last in lasts]
    if len(lasts) < 2:
        return [0.0]
    lower, upper = sorted(range(2), key=lambda number: heights[number])
    short = max(0.0, _LABEL_HEIGHT - (heights[upper] - heights[lower])) / 2
    return [short if number == upper else -short for number in range(2)]


def _mark(loss: Axes, accuracy: Axes, history: Sequence[dict[str, Any]], measure: str) -> None:
    """Marks the epoch that best.safetensors is from: the first of those with the highest measure."""
    best = max(history, key=lambda row: row[measure])
    epoch, highest = best["epoch"], best[measure]
    for axes in (loss, accuracy):
        axes.axvline(epoch, color=GREY, linewidth=0.9, linestyle=(0, (1, 2)), zorder=1)
    accuracy.plot(epoch, highest, "o", color="white", markeredgecolor=VERMILION, markersize=7, clip_on=False)
    early = epoch < history[-1]["epoch"] / 2
    # At the foot of the panel, on the side where there is room: the curves are at its head.
    accuracy.annotate(
        f"best: {highest:.2f} % in epoch {epoch:,}",
        (epoch, 0),
        xycoords=accuracy.get_xaxis_transform(),
        xytext=(6 if early else -6, 6),
        textcoords="offset points",
        ha="left" if early else "right",
        fontsize=9,
        color=GREY,
    )
