"""The gates of one image, against what is usual for its class."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from senet.analysis.classes import class_number
from senet.analysis.image.image_gates import ROUNDING, Average, Channel, ImageBlock, ImageGates, Prediction
from senet.analysis.role.measures import CONSTANT
from senet.analysis.role.profiles import BlockProfile
from senet.analysis.role.study import ALL, GateStudy
from senet.analysis.sites import GateSite, Handle
from senet.analysis.watching import sites_of, uncompiled
from senet.data.preprocessing import Preprocessing, transforms
from senet.data.source import converted, decode
from senet.errors import DataError, OptionError, RecordingError, did_you_mean, require, require_count
from senet.evaluation.classification import evaluating
from senet.weights.store import fingerprint

MOST = 4
_PREDICTIONS = 5


def gates_of_image(
    network: nn.Module,
    image: Any,
    preprocessing: Preprocessing,
    *,
    study: GateStudy | None = None,
    class_: str | int | None = None,
    classes: Sequence[str] = (),
    most: int = MOST,
    blocks: Sequence[str] = (),
    name: str = "",
    random: bool = False,
) -> ImageGates:
    """Runs a network once on an image, in evaluation mode, and leaves it as it was.

    Args:
        network: any network with SE.
        image: a path, or a PIL image.
        preprocessing: what the network expects.
        study: its gates over other images; None compares with nothing.
        class_: the name or number of the class to compare with, or "all" for all images; None: the predicted
            class, or all images where the study has none of it.
        classes: the names of the classes, where there is no study that says them.
        most: how many channels are shown with their maps, on either side.
        blocks: only those; see ``find_gates``.
        name: of the network, where there is no study that says it.
        random: whether the weights are fresh.

    Raises:
        DataError: the image cannot be read.
        OptionError: the network has no SE block or none of this name, the study is of other weights, there
            is no such class, or the study has no images of it.
        RecordingError: no block ran, not for this image alone, or gates are no numbers.
    """
    require_count("most", most)
    asked = _asked(class_, study)
    pil, file = _opened(image, preprocessing.channels)
    pixels = preprocessing.evaluation()(pil)
    device = next((each.device for each in network.parameters()), torch.device("cpu"))
    images = preprocessing.normalise(pixels[None].to(device)).contiguous(memory_format=torch.channels_last)
    runs, scores = _run(network, images, blocks)
    names = tuple(classes) if study is None else study.classes
    predictions = _predictions(scores, names)
    profiles = {} if study is None else _profiles(study, runs)
    if study is not None and study.fingerprint not in ("", fingerprint(network)):
        raise OptionError(
            f"the study of {study.network!r}",
            found="it was made with other weights than the network has now",
            allowed="a study of the same network with the same weights",
            do="Make it again.",
        )
    label, compared = asked, 0
    if profiles:
        seen = torch.stack([profile.images for profile in profiles.values()]).amin(0)
        if class_ is None and predictions and predictions[0].number < len(seen):
            label = predictions[0].number if seen[predictions[0].number] else None
        compared = int(seen.sum() if label is None else seen[label])
    return ImageGates(
        network=name or (study.network if study else "") or type(network).__name__,
        file=file,
        image=transforms().functional.to_pil_image(pixels),
        predictions=predictions,
        label=label,
        images=compared,
        classes=names,
        blocks=tuple(_block(run, profiles.get(run.block), label, most) for run in runs),
        random=random or (study is not None and study.random),
    )


class _Run(NamedTuple):
    """One run of a block: its gates (C,), the map (C, *spatial), and how many came before."""

    block: str
    s: Tensor
    u: Tensor | None
    before: int


def _asked(class_: str | int | None, study: GateStudy | None) -> int | None:
    """The number of the class that is asked for, None for that of all images."""
    if class_ is None:
        return None
    if study is None:
        raise OptionError(
            f"class {class_!r}", "there are no images to compare with", do="Give a study of gates, or data."
        )
    if class_ == ALL and ALL not in study.classes:
        return None
    known = isinstance(class_, int) and 0 <= class_ < len(study.classes)
    number = int(class_) if known else class_number(str(class_), study.classes)
    if not all(profile.images[number] for profile in study.blocks.values()):
        raise OptionError(
            f"class {class_!r}",
            found="the study of gates has no images of it",
            do="Name another, or make a study with images of it.",
        )
    return number


def _opened(image: Any, channels: int) -> tuple[Any, str]:
    """The PIL image, grey or RGB, and its name."""
    if not isinstance(image, str | Path):
        require("image", type(image).__name__, hasattr(image, "convert"), "a path or a PIL image")
        try:
            return converted(image, channels), Path(getattr(image, "filename", "") or "image").name
        except (ValueError, OSError) as error:
            raise DataError("an image", f"its pixels cannot be read ({error})") from error
    path = Path(image).expanduser()
    try:
        data = path.read_bytes()
    except OSError as error:
        near: list[str] = []
        with contextlib.suppress(OSError):
            near = [each.name for each in path.parent.iterdir()]
        found = f"the file cannot be read ({error.strerror or error})"
        raise DataError(
            f"reading {str(image)!r}", found, "an image", did_you_mean(path.name, near)
        ) from error
    return decode(data, channels=channels, where=str(path)), path.name


def _run(network: nn.Module, images: Tensor, blocks: Sequence[str]) -> tuple[list[_Run], Any]:
    """All runs of blocks on one image, in their order, and what the network returns."""
    runs: list[_Run] = []

    def kept(value: Tensor) -> Tensor:
        # A copy, as what follows may work in place; in float64, as the averages are.
        return value[0].to("cpu", torch.float64, copy=True)

    def seen(block: str, s: Tensor, u: Tensor | None = None) -> None:
        if len(s) != 1:
            raise RecordingError(
                f"the gates of {block!r}",
                f"one image gives {len(s)} samples",
                "one",
                "Name the other blocks.",
            )
        s, u = kept(s), None if u is None else kept(u)
        if not s.isfinite().all():
            raise RecordingError(
                f"the gates of {block!r}",
                "some are no numbers",
                do="The weights are broken, or the image is.",
            )
        runs.append(_Run(block, s, u, sum(run.block == block for run in runs)))

    sites = sites_of(network, blocks=blocks, example=images.expand(2, -1, -1, -1).contiguous())
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(uncompiled())
        stack.enter_context(evaluating(network))
        for site in sites:
            stack.callback(_watch(site, seen).remove)
        scores = network(images)
    if not runs:
        raise RecordingError(
            "the gates of an image", "no SE block ran", do="Name those that run: blocks=[...]"
        )
    return runs, scores


def _watch(site: GateSite, seen: Any) -> Handle:
    """With its map where that is seen: of a module that returns gates it is not."""
    try:
        return site.watch_maps(partial(seen, site.name))
    except OptionError:
        return site.watch(partial(seen, site.name))


def _predictions(scores: Any, classes: Sequence[str]) -> tuple[Prediction, ...]:
    if not isinstance(scores, Tensor) or scores.ndim != 2 or not scores.isfinite().all():
        return ()
    best = scores[0].double().softmax(0).topk(min(_PREDICTIONS, scores.shape[1]))
    return tuple(
        Prediction(number, classes[number] if number < len(classes) else f"class {number}", probability)
        for probability, number in zip(best.values.tolist(), best.indices.tolist(), strict=True)
    )


def _profiles(study: GateStudy, runs: Sequence[_Run]) -> dict[str, BlockProfile]:
    """What the study knows of these blocks."""
    known = {run.block: study.blocks[run.block] for run in runs if run.block in study.blocks}
    if not known or any(run.block in known and known[run.block].channels != len(run.s) for run in runs):
        raise OptionError(
            f"the study of {study.network!r}",
            found="its blocks are not those of this network",
            allowed="a study of the same network",
        )
    return known


def _block(run: _Run, profile: BlockProfile | None, label: int | None, most: int) -> ImageBlock:
    average, similarity = None, run.s.new_empty(0)
    if profile is not None:
        images, mean, square, *_ = profile.moments()
        overall = profile.overall_mean
        similarity = _similarity(run.s - overall, mean - overall)
        if label is None:
            average = Average(int(images.sum()), overall, profile.overall_std)
        else:
            average = Average(int(images[label]), mean[label], (square[label] / images[label]).sqrt())
    name = run.block if not run.before else f"{run.block} (run {run.before + 1})"
    size = () if run.u is None else tuple(run.u.shape[1:])
    block = ImageBlock(name, len(run.s), size, run.s, average, similarity)
    order = block.apart.argsort(descending=True, stable=True)
    opened, closed = order[block.apart[order] > ROUNDING], order[block.apart[order] < -ROUNDING].flip(0)
    return replace(
        block,
        opened=tuple(_channel(block, number, run.u) for number in opened[:most].tolist()),
        closed=tuple(_channel(block, number, run.u) for number in closed[:most].tolist()),
    )


def _channel(block: ImageBlock, number: int, u: Tensor | None) -> Channel:
    deviations = math.nan if block.deviations is None else float(block.deviations[number])
    return Channel(
        number=number,
        gate=float(block.s[number]),
        apart=float(block.apart[number]),
        deviations=deviations if math.isfinite(deviations) else None,
        before=None if u is None else u[number],
    )


def _similarity(image: Tensor, classes: Tensor) -> Tensor:
    """The correlation of (C,) with each row of (K, C), NaN where they hardly differ from zero."""
    image, classes = image - image.mean(), classes - classes.mean(1, keepdim=True)
    lengths = image.norm() * classes.norm(dim=1)
    least = len(image) * CONSTANT**2
    return torch.where(lengths > least, classes @ image / lengths, math.nan)
