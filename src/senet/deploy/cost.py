"""What integers cost and save: accuracy on held-out images, bytes and time, beside the file in float32."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from senet.data import open_data
from senet.data.preprocessing import Preprocessing
from senet.data.source import Source, evenly_spaced
from senet.data.stream import BatchesInOrder, Images, Loader
from senet.deploy.artefact import Artefact, check_place
from senet.deploy.checking import noise
from senet.deploy.engines import opened
from senet.deploy.members import exported_member
from senet.deploy.quantization import Quantized, check_quantization, quantize
from senet.errors import DeploymentError, OptionError
from senet.evaluation.classification import Evaluation, Scored, batches_of, evaluate
from senet.evaluation.members import Member, check_scores, check_size
from senet.tables import Table

# Of one image, in turns, after some to warm up.
_RUNS, _WARM = 60, 10


@dataclass(frozen=True)
class Cost:
    """A file in float32 and one in integers on the same images; it prints itself, has rows, and saves.

    Args:
        quantized: what was written.
        data: the data set.
        evaluations: of both, the one in float32 first.
        same: how many images both classify alike.
        milliseconds: the median time of one image in ONNX Runtime on one thread, of both.
        bytes: of both files.
    """

    quantized: Quantized
    data: str
    evaluations: tuple[Evaluation, Evaluation]
    same: int
    milliseconds: tuple[float, float]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """A row a file."""
        sizes = (self.quantized.bytes_before, self.quantized.bytes)
        names = ("float32", "8-bit integers")
        images = self.evaluations[0].images - len(self.broken)
        return [
            {
                "numbers": name,
                "images": found.images,
                "correct1": found.correct1,
                "top1": found.top1,
                "top5": found.top5,
                "same_class": 100 * (self.same if number else images) / images,
                "bytes": size,
                "ms_an_image": taken,
            }
            for number, (name, found, size, taken) in enumerate(
                zip(names, self.evaluations, sizes, self.milliseconds, strict=True)
            )
        ]

    @property
    def broken(self) -> tuple[str, ...]:
        """Why, for each image that cannot be read."""
        return self.evaluations[0].broken

    def __str__(self) -> str:
        return f"{self.quantized}\n{self.data}, ONNX Runtime, one thread:\n{Table(self.rows)}"

    def save(self, path: str | Path) -> None:
        """Writes the rows as .csv, .json or .md."""
        Table(self.rows).save(path)


def quantize_and_compare(
    source: str | Path,
    path: str | Path,
    *,
    data: str | None = None,
    images: int = 512,
    most_lost: float = 1.0,
    batch_size: int = 64,
    workers: int | None = None,
    preprocessing: str | None = None,
    keep: str = "gates",
    calibration: str = "minmax",
    reduce_range: bool = False,
) -> Cost:
    """Quantizes an exported file, calibrated on training images, and compares both on the test images.

    Args:
        source: an .onnx file of ``senet.export``, in float32.
        path: of the file in integers; what is there is replaced where the new one is good enough.
        data: see ``open_data``; None takes what the weights were trained on.
        images: how many training images to calibrate on, evenly spaced.
        most_lost: of top-1, in points.
        batch_size: images at once, where the file leaves it free.
        workers: processes that prepare images; None for none, beside the engine.
        preprocessing: in place of what the file says; see ``preprocessing_named``.
        keep: see ``quantize``, as for the next two.
        calibration: how values are bounded.
        reduce_range: weights of 7 bits.

    Raises:
        DataError: the data is missing, or all of its images are broken.
        DeploymentError: more is lost: nothing is left; or ONNX Runtime cannot quantize it.
        MissingExtraError: a package of the extra ``onnx`` is not installed.
        OptionError: no data is named, or a choice is not possible.
        WeightsError: the file cannot be read, or is for other images or classes.
    """
    path, asked = Path(path), f"quantize {str(source)!r}"
    check_quantization(asked, source, path, keep, calibration)
    check_place(asked, path)
    member = exported_member(str(source))
    name = data or member.header.get("data")
    if name is None:
        raise OptionError(asked, "no data is named, here or in the file", do="Give --data.")
    splits = open_data(name)
    prepared = member.preprocessing(splits, preprocessing)
    member.check_classes(splits)
    check_scores(check_size(member.network(), prepared, member.name), member.name, splits)
    fixed = member.artefact.input[0]
    batch_size = batch_size if fixed < 0 else fixed
    calibrating = _batches(splits.train, prepared, images, batch_size, whole=fixed > 0)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".senet-") as folder:
        written = Path(folder) / path.name
        quantized = quantize(
            source, written, calibrating, keep=keep, calibration=calibration, reduce_range=reduce_range
        )
        members = [member, exported_member(str(written))]
        found, same = _evaluated(members, splits.test, prepared, batch_size, workers or 0)
        lost = found[0].top1 - found[1].top1
        if lost > most_lost:
            raise DeploymentError(
                asked,
                found=f"in integers it loses {lost:.2f} points of {found[0].top1:.2f} % top-1 on {name}: "
                "nothing is written",
                allowed=f"{most_lost:g} points",
                do="Keep more in float32 (--keep scale), calibrate otherwise (--calibration percentile), or "
                "allow more (--most_lost).",
            )
        taken = _times(Path(source), written, member.artefact, prepared)
        written.replace(path)
    return Cost(dataclasses.replace(quantized, path=path), name, found, same, taken)


class _Some:
    """Evenly spaced images of a source, from the first again where there are fewer."""

    def __init__(self, source: Source, count: int) -> None:
        self.source = source
        once = evenly_spaced(len(source), count)
        self.indices = [once[place % len(once)] for place in range(count)]

    def __len__(self) -> int:
        return len(self.indices)

    def read(self, index: int) -> tuple[Any, int]:
        return self.source.read(self.indices[index])


def _batches(
    source: Source, preprocessing: Preprocessing, count: int, batch_size: int, *, whole: bool
) -> Iterator[NDArray[Any]]:
    """That many images as the file takes them, or where it takes only whole batches, enough for these."""
    count = min(count, len(source))
    if whole:
        count = -(-count // batch_size) * batch_size
    images = Images(_Some(source, count), preprocessing.evaluation(), seed=0, replace=True)
    for batch in Loader(images, BatchesInOrder(count, batch_size), workers=0):
        yield preprocessing.normalise(batch.images).numpy()


def _evaluated(
    members: Sequence[Member], source: Source, preprocessing: Preprocessing, batch_size: int, workers: int
) -> tuple[tuple[Evaluation, Evaluation], int]:
    """The evaluations of two files, and how many images both classify alike."""
    kept: list[list[Scored]] = [[], []]
    before, after = (
        evaluate(
            member.network(),
            batches_of(source, preprocessing, batch_size=batch_size, workers=workers),
            preprocessing,
            device=torch.device("cpu"),
            keep=keep,
        )
        for member, keep in zip(members, kept, strict=True)
    )
    classes = [torch.cat([scored.scores.argmax(1) for scored in each if len(scored.labels)]) for each in kept]
    return (before, after), int(classes[0].eq(classes[1]).sum())


def _times(
    before: Path, after: Path, artefact: Artefact, preprocessing: Preprocessing
) -> tuple[float, float]:
    """The median milliseconds of one image, or of the batch that the file takes, in turns, by one thread."""
    batch = max(1, artefact.input[0])
    shape = (batch, preprocessing.channels, preprocessing.size, preprocessing.size)
    kind = torch.uint8 if artefact.pixels else torch.float32
    images = noise(shape, kind, torch.Generator().manual_seed(0)).numpy()
    sessions = [opened(path, "onnxruntime", threads=1) for path in (before, after)]
    taken: tuple[list[float], list[float]] = ([], [])
    for run in range(_WARM + _RUNS):
        for session, times in zip(sessions, taken, strict=True):
            start = time.perf_counter()
            session(images)
            if run >= _WARM:
                times.append((time.perf_counter() - start) * 1000 / batch)
    return float(np.median(taken[0])), float(np.median(taken[1]))
