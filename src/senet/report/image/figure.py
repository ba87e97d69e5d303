"""The gates of one image as a picture on paper: what the network sees, and the last block of each stage."""

from __future__ import annotations

from pathlib import Path
from textwrap import fill, shorten
from typing import TYPE_CHECKING, Any

from senet.analysis.image.image_gates import ROUNDING, Channel, ImageBlock, ImageGates
from senet.analysis.stages import panels
from senet.errors import MissingExtraError
from senet.files import replacing
from senet.report.image.maps import map_over_image
from senet.report.palette import BLUE, GREY, INK, PALE, VERMILION

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DPI = 150

# In inches: the width, the height of the first row and of each block's; in pixels, a map.
_WIDTH, _HEAD, _ROW = 9.0, 2.3, 1.75
_SIDE = 192
# Of each block, the channels with maps on either side.
_SHOWN = 2


def write_image_figure(found: ImageGates, path: Path) -> None:
    """Writes the picture as PNG, whole or not at all; MissingExtraError without matplotlib."""
    try:
        figure = image_figure(found)
    except ImportError as error:
        raise MissingExtraError.of("matplotlib", extra="plot", need="figures") from error
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=_DPI, backend="agg")


def image_figure(found: ImageGates) -> Figure:
    """The image with its predictions; then a row a block: its gates, and channels opened and closed most."""
    from matplotlib.figure import Figure

    shown = panels(found.blocks)
    blocks = [block for block in found.blocks if block.name in shown]
    height = _HEAD + _ROW * len(blocks)
    # Not by pyplot, which chooses a backend for the whole program.
    figure = Figure(figsize=(_WIDTH, height), dpi=_DPI, facecolor="white")
    grid = figure.add_gridspec(
        1 + len(blocks),
        1 + 2 * _SHOWN,
        height_ratios=[_HEAD, *[_ROW] * len(blocks)],
        width_ratios=[2.4, *[1.0] * 2 * _SHOWN],
        **{"left": 0.035, "right": 0.985, "top": 1 - 0.3 / height, "bottom": 0.12 / height},
        **{"hspace": 0.2, "wspace": 0.08},
    )
    _show_predictions(figure.add_subplot(grid[0, 0]), found)
    _show_image(figure.add_subplot(grid[0, 1 : 1 + _SHOWN]), found)
    _show_legend(figure.add_subplot(grid[0, 1 + _SHOWN :]), found)
    for row, block in enumerate(blocks, 1):
        _show_gates(figure.add_subplot(grid[row, 0]), block)
        if not block.opened and not block.closed:
            axes = figure.add_subplot(grid[row, 1:])
            axes.set_axis_off()
            axes.text(0, 0.5, "no gate differs", fontsize=9, color=GREY)
            continue
        channels = [*_padded(block.opened), *_padded(block.closed)]
        for column, channel in enumerate(channels, 1):
            _show_map(figure.add_subplot(grid[row, column]), found, channel)
    return figure


def _padded(channels: tuple[Channel, ...]) -> list[Channel | None]:
    return [*channels[:_SHOWN], *[None] * (_SHOWN - len(channels))]


def _show_image(axes: Axes, found: ImageGates) -> None:
    axes.imshow(found.image.convert("RGB"))
    axes.set_axis_off()
    _title(axes, found.file)


def _show_predictions(axes: Axes, found: ImageGates) -> None:
    _furnish(axes)
    _title(axes, found.network)
    shares = [each.probability for each in found.predictions]
    axes.barh([place + 0.2 for place in range(len(shares))], shares, color=BLUE, height=0.3)
    axes.set(xlim=(0, 1), ylim=(4.6, -0.6), xticks=[], yticks=[])
    for place, each in enumerate(found.predictions):
        text = f"{shorten(each.name, 40, placeholder=' …')}  {each.probability:.1%}"
        axes.text(0, place, text, fontsize=8, color=INK, parse_math=False)


def _show_legend(axes: Axes, found: ImageGates) -> None:
    """What the rows below show."""
    axes.set_axis_off()
    compared = f"Line and band: {found.compared}, ± their deviation." if found.images else ""
    lines = [
        ("Left: the gates of a block, sorted.", INK),
        (compared, GREY),
        ("Points: this image, more open,", VERMILION),
        ("or more closed.", BLUE),
        ("Right: two channels opened most, then two closed most, with gate and difference.", INK),
        ("Their maps before the gate, above zero,", VERMILION),
        ("or below zero.", BLUE),
    ]
    place = 1.0
    for text, colour in lines:
        wrapped = fill(text, 42)
        axes.text(0, place, wrapped, fontsize=8, color=colour, va="top", parse_math=False)
        place -= 0.1 * len(wrapped.splitlines())


def _show_gates(axes: Axes, block: ImageBlock) -> None:
    _furnish(axes)
    _title(axes, block.name)
    order = (block.s if block.average is None else block.average.mean).argsort(stable=True)
    place = range(block.channels)
    if block.average is not None:
        mean, std = block.average.mean[order].numpy(), block.average.std[order].numpy()
        axes.fill_between(place, mean - std, mean + std, color=GREY, alpha=0.2, linewidth=0)
        axes.plot(place, mean, color=INK, linewidth=1)
    colours = [
        GREY if abs(each) <= ROUNDING else VERMILION if each > 0 else BLUE for each in block.apart[order]
    ]
    axes.scatter(place, block.s[order].numpy(), s=9, c=colours, linewidths=0)
    axes.set_ylim(min(0.0, float(block.s.min())) - 0.02, max(1.0, float(block.s.max())) + 0.02)
    axes.set_xticks([])


def _show_map(axes: Axes, found: ImageGates, channel: Channel | None) -> None:
    axes.set_axis_off()
    if channel is None or channel.before is None:
        return
    most = float(channel.before.abs().max())
    axes.imshow(map_over_image(channel.before, found.image, most=most, side=_SIDE))
    _title(axes, f"{channel.number}: {channel.gate:.2f} ({channel.apart:+.2f})")


def _furnish(axes: Axes) -> None:
    """A thin grid, and no frame."""
    axes.grid(color=PALE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelsize=8, colors=GREY)


def _title(axes: Any, text: str) -> None:
    axes.set_title(text, loc="left", fontsize=9, color=INK, parse_math=False)
