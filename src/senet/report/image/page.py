"""The report on the gates of one image: a page to read, and a picture of it for a paper or a message."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from senet.analysis.image.image_gates import Channel, ImageBlock, ImageGates
from senet.errors import MissingExtraError
from senet.report.image.figure import write_image_figure
from senet.report.image.maps import map_over_image
from senet.report.page import Html, Page, details, element, picture, table
from senet.tables import Table

REPORT, FIGURE, GATES = "image.html", "image.png", "image.csv"

# What the last table need not say again.
_ABOVE = ("opened", "closed")

# In pixels: the image, and a map.
_IMAGE, _MAP = 224, 112

_DEPTH = """How far the gates of a block are from that average: the root mean square over its channels. The
dotted line is how far the images of the average usually are from it."""
_SIMILARITY = """Which class the gates are like: the correlation, over the channels of a block, of what sets
this image and a class apart from the mean over all images. The dot marks the class that is most alike. Where
the classes hardly differ, as in most first blocks, that says little."""
_BLOCK = """Each point is a channel: above the line it is more open than on average, below it more closed.
Choose a block in the list; the one shown first is furthest from the average. Point at a channel for its
number."""
_BLOCK_ALONE = """Each point is a channel. Choose a block in the list, and point at a channel for its
number."""
_CHANNELS = """The channels whose gates are furthest above and below the average, with their activation maps
over the image: on the left as the block gets the map, on the right multiplied with the gate, both in the
same colours. Vermilion is above zero, blue below; a square is one number of the map."""
_CHANNELS_ALONE = """The channels with the highest and the lowest gates of each block, with their activation
maps over the image: on the left as the block gets the map, on the right multiplied with the gate, both in
the same colours. Vermilion is above zero, blue below; a square is one number of the map."""


def write_image_report(found: ImageGates, folder: str | Path) -> list[Path]:
    """Writes ``image.html``, ``image.png`` and ``image.csv``, a row a channel, each whole or not at all.

    Args:
        found: the gates of the image.
        folder: made if it is not there.

    Returns:
        The paths, the page first.

    Raises:
        MissingExtraError: plotly or matplotlib is not installed.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    page = image_page(found)
    write_image_figure(found, folder / FIGURE)
    Table(found.channel_rows).save(folder / GATES)
    page.save(folder / REPORT)
    return [folder / REPORT, folder / FIGURE, folder / GATES]


def image_page(found: ImageGates) -> Page:
    """The page; MissingExtraError without plotly."""
    try:
        from senet.report.image.plots import distance_figure, gates_figure, similarity_figure
    except ImportError as error:
        raise MissingExtraError.of("plotly", extra="plot", need="the HTML page") from error
    page = Page(f"The gates of {found.network} on {found.file}", f"Compared with {found.compared}.")
    if found.random:
        page.banner("Random weights: mechanics only. Nothing here says anything about a trained network.")
    page.add(_subject(found))
    if found.images:
        page.section("Over depth", _DEPTH)
        page.figure(distance_figure(found), name="distance")
        page.add(element("p", _SIMILARITY, kind="lead"))
        page.figure(similarity_figure(found), name="similarity")
    page.section("One block", _BLOCK if found.images else _BLOCK_ALONE)
    page.figure(gates_figure(found), name="gates")
    page.section("Channels", _CHANNELS if found.images else _CHANNELS_ALONE)
    for number, block in enumerate(found.blocks):
        page.add(_block(found, block, opened=number == found.furthest))
    page.section("All numbers")
    shown = [{name: value for name, value in row.items() if name not in _ABOVE} for row in found.rows]
    page.add(table(shown, kind="dense"))
    return page


def _subject(found: ImageGates) -> Html:
    """The image, and what the network takes it for."""
    seen = f"as the network sees it: {found.image.width} × {found.image.height}"
    parts = [
        element("div", picture(found.image, size=_IMAGE, alt=found.file), element("p", seen, kind="small")),
        table(
            [{"prediction": each.name, "probability": _bar(each.probability)} for each in found.predictions]
        ),
    ]
    layout = "display: flex; flex-wrap: wrap; gap: 0 2rem"
    return element("div", *parts[: 1 + bool(found.predictions)], kind="card", style=layout)


def _bar(share: float) -> Html:
    """A share as a bar with its number."""
    shape = f"display: inline-block; width: {16 * share:.2f}rem; height: .6rem; margin-right: .5rem"
    return Html(element("span", style=f"{shape}; background: var(--accent)") + f"{share:.1%}")


def _block(found: ImageGates, block: ImageBlock, *, opened: bool) -> Html:
    """A fold: the channels opened most on the left, those closed most on the right."""
    summary = f"{block.name} · {block.channels:,} channels"
    if block.distance is not None:
        summary += f" · {block.distance:.3f} from the average, usually {block.usual:.3f}"
    layout = "display: grid; grid-template-columns: repeat(auto-fill, minmax(14.5rem, 1fr))"
    sides = [
        element(
            "div",
            element("h3", title),
            element("div", *(_channel(found, block, each) for each in channels), style=layout)
            if channels
            else element("p", "No gate differs.", kind="small"),
        )
        for title, channels in (("Most opened", block.opened), ("Most closed", block.closed))
    ]
    fold = details(summary, element("div", *sides, kind="pair"))
    return Html(fold.replace("<details>", "<details open>", 1)) if opened else fold


def _channel(found: ImageGates, block: ImageBlock, channel: Channel) -> Html:
    text = f"gate {channel.gate:.2f}"
    if block.average is not None:
        text += f", usually {channel.gate - channel.apart:.2f}"
    if channel.deviations is not None:
        text += f" ({channel.deviations:+.1f} σ)"
    return element(
        "div",
        element("b", f"Channel {channel.number}"),
        element("p", text, kind="small"),
        element("div", *_maps(found, channel), kind="strip"),
    )


def _maps(found: ImageGates, channel: Channel) -> Sequence[Html]:
    from PIL import Image

    if channel.before is None or channel.after is None:
        return [element("p", "The map is not seen.", kind="small")]
    most = max(float(channel.before.abs().max()), float(channel.after.abs().max()))
    return [
        picture(
            Image.fromarray(map_over_image(values, found.image, most=most, side=2 * _MAP)),
            size=_MAP,
            alt=f"channel {channel.number}, {which} the gate",
        )
        for which, values in (("before", channel.before), ("after", channel.after))
    ]
