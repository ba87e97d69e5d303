"""The report on a network's gates: a page to read and look into, and figures for papers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from senet.analysis.role.claims import FAILS, HOLDS, Finding
from senet.analysis.role.measures import NUMBERS, Number
from senet.analysis.role.profiles import Extremes
from senet.analysis.role.study import GateStudy
from senet.errors import OptionError
from senet.report.gates.figures import write_figures
from senet.report.gates.views import labels, most_specific
from senet.report.page import Html, Page, details, element, facts, picture, require_plotly, table

if TYPE_CHECKING:
    from PIL.Image import Image

REPORT = "report.html"

# Of each block, the channels whose images are shown; and the size of those, in pixels.
_CHANNELS, _SIZE = 3, 52

_ABOUT = """A squeeze-and-excitation block looks at the whole image and multiplies each channel of its map
by a gate, from 0 (closed) to 1 (open). This is what the gates of one network do."""
_SPECIFIC = """Each cell is a channel of a block, coloured by how much of the variance of its gate over
images the class of the image explains: light gates treat all classes alike, dark ones follow the class,
grey ones do not vary. The channels of a block are sorted by it. It is corrected for the number of images,
so chance is 0 %."""
_CLAIMS = """What has been said about the gates of SE networks, as a difference between blocks of this
network. A claim holds where the whole 95 % interval lies above zero, and does not where it lies below; in
between it is undecided."""
_OVERVIEW = """Each point is a block, from the input to the output. Bands are 95 % intervals over images;
what another training seed would give is not in them. Shades mark the stages."""
_BLOCK = """Choose a block in the list; a click on a class shows or hides it, a double click shows it
alone. Drag to look closer, double click to go back."""
_PICTURES = """Of each block the channels whose gates follow the class most, with the images that give
them the highest and the lowest gates. The number below an image is the gate."""


def write_report(
    study: GateStudy,
    folder: str | Path,
    *,
    shown: Sequence[int],
    channels: int | None = 50,
    panels: Sequence[str] | None = None,
    pictures: Callable[[int], Image] | None = None,
    in_figures: Sequence[int] | None = None,
) -> list[Path]:
    """Writes ``report.html`` and the figures as PNG and SVG, each whole or not at all.

    Args:
        study: the gates.
        folder: made if it is not there.
        shown: the numbers of the classes that are drawn.
        channels: how many of each block are drawn, evenly spaced; None for all.
        panels: the names of the blocks in the figures classes and instances; None for the paper's choice.
        pictures: gives an image by its number in the source; None to show none.
        in_figures: the numbers of the classes in the figures classes and instances; None for ``shown``.

    Returns:
        The paths of the files, the page first.

    Raises:
        OptionError: there is no such class or block.
        MissingExtraError: plotly or matplotlib is not installed.
    """
    count = len(study.classes)
    drawn = shown if in_figures is None else in_figures
    if not shown or not drawn or not all(0 <= number < count for number in (*shown, *drawn)):
        raise OptionError(
            f"shown={list(shown)}",
            "these are not classes of the data",
            f"one or more numbers from 0 to {count - 1}",
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    page = gate_page(study, shown=shown, channels=channels, pictures=pictures)
    figures = write_figures(study, folder, shown=drawn, channels=channels, panels=panels)
    page.save(folder / REPORT)
    return [folder / REPORT, *figures]


def gate_page(
    study: GateStudy,
    *,
    shown: Sequence[int],
    channels: int | None = 50,
    pictures: Callable[[int], Image] | None = None,
) -> Page:
    """The page; arguments as for ``write_report``."""
    page = Page(f"The gates of {study.network}", _ABOUT)
    if study.random:
        page.banner("Random weights: mechanics only. Nothing here says anything about a trained network.")
    page.add(_subject(study))
    require_plotly()
    from senet.report.gates.plots import block_figure, depth_figure, specificity_figure

    page.section("At a glance", _SPECIFIC)
    page.figure(specificity_figure(study), name="specificity")
    page.section("Claims", _CLAIMS)
    page.add(_claims(study.claims))
    page.section("Over depth", _OVERVIEW)
    page.figure(depth_figure(study), name="depth")
    page.section("One block", _BLOCK)
    page.figure(block_figure(study, shown, channels), _which(study, channels), name="block")
    if pictures is not None:
        page.section("Images", _PICTURES)
        page.add(*_images(study, pictures))
    page.section("All numbers")
    page.add(table([_spaced(row) for row in study.rows], kind="dense"))
    page.add(details("What the columns mean", facts(_spaced(NUMBERS))))
    return page


def _subject(study: GateStudy) -> Html:
    """What was looked at."""
    seen = study.evaluation
    accuracy = f"{seen.top1:.2f} %" + (f" (top-5 {seen.top5:.2f} %)" if len(study.classes) > 5 else "")
    broken = f", {len(seen.broken):,} of them unreadable" if seen.broken else ""
    channels = sum(profile.channels for profile in study.blocks.values())
    values = {
        "network": study.network,
        "weights": "random" if study.random else study.weights or "as given",
        "data": study.data,
        "split": study.split,
        "images": f"{seen.images:,} of {len(study.classes):,} classes{broken}",
        "accuracy on them": accuracy,
        "SE blocks": f"{len(study.blocks)}, with {channels:,} channels",
    }
    passport = details("Passport", facts(dict(_flat(study.passport)))) if study.passport else ""
    return Html(element("div", facts(values), kind="card") + passport)


def _spaced(values: Mapping[str, Any]) -> dict[str, Any]:
    """With names that may be broken into lines."""
    return {name.replace("_", " "): value for name, value in values.items()}


def _flat(values: dict[str, Any], above: str = "") -> Sequence[tuple[str, object]]:
    """Nested facts as pairs, "machine: cores"."""
    pairs: list[tuple[str, object]] = []
    for name, value in values.items():
        if isinstance(value, dict):
            pairs += _flat(value, f"{above}{name}: ")
        else:
            pairs.append((above + name, value if isinstance(value, str) else json.dumps(value, default=str)))
    return pairs


def _claims(found: Sequence[Finding]) -> Html:
    """A line a claim: what was said, the contrast that would show it, the number, the verdict."""
    kinds = {HOLDS: "held", FAILS: "refuted"}
    rows = []
    for each in found:
        said = element("div", each.claim.text) + element("div", each.claim.source, kind="small")
        contrast = f"{each.claim.number.replace('_', ' ')}: {each.claim.contrast}"
        verdict = element("span", each.verdict, kind=f"pill {kinds.get(each.verdict, '')}".strip())
        why = element("div", each.why, kind="small") if each.why else ""
        rows.append(
            {
                "claim": Html(said),
                "measured as": contrast,
                "difference": Html(element("div", *_interval(each.number))),
                "verdict": Html(verdict + why),
            }
        )
    return table(rows)


def _interval(number: Number) -> tuple[Html, Html] | tuple[str]:
    if number.value is None:
        return ("–",)
    value = element("b", f"{number.value:+.3f}", kind="value")
    if number.low is None or number.high is None:
        return value, element("div", "no interval", kind="small")
    return value, element("div", f"{number.low:+.3f} to {number.high:+.3f}", kind="small nowrap")


def _which(study: GateStudy, channels: int | None) -> str:
    fewer = channels is not None and any(block.channels > channels for block in study.blocks.values())
    shown = (
        f"Of each block {channels} evenly spaced channels, or all if it has fewer."
        if fewer
        else "All channels."
    )
    return f"{shown} Point at a line for its channel, class, mean, deviation and number of images."


def _images(study: GateStudy, pictures: Callable[[int], Image]) -> list[Html]:
    """A fold a block: its most specific channels with their images; the last block is open."""
    folds = []
    for (name, label), profile in zip(labels(study).items(), study.blocks.values(), strict=True):
        parts: list[Html] = []
        for channel in most_specific(profile, _CHANNELS):
            parts.append(element("h3", f"Channel {channel}"))
            sides = [
                element("div", element("p", which, kind="small"), _strip(extremes, channel, pictures))
                for which, extremes in (
                    ("opened most by", profile.opening),
                    ("closed most by", profile.closing),
                )
            ]
            parts.append(element("div", *sides, kind="pair"))
        if parts:
            folds.append(details(f"{label} · {study.blocks[name].channels:,} channels", *parts))
    return folds


def _strip(extremes: Extremes, channel: int, pictures: Callable[[int], Image]) -> Html:
    """The images that are extreme for a channel, each above its gate."""
    pairs = zip(extremes.values[channel].tolist(), extremes.images[channel].tolist(), strict=True)
    shown = [
        element(
            "div",
            picture(pictures(image), size=_SIZE, alt=f"image {image}, gate {value:.3f}"),
            f"{value:.2f}",
        )
        for value, image in pairs
        if image >= 0
    ]
    return element("div", *shown, kind="strip")
