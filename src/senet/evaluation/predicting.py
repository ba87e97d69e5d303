"""What a network says of single images: the classes that it finds the likeliest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from senet.data.preprocessing import Preprocessing
from senet.data.source import read_image
from senet.data.stream import BatchesInOrder, Images, Loader
from senet.errors import WeightsError
from senet.evaluation.classification import evaluating
from senet.weights.classes import COUNT, devkit_numbers


class Guess(NamedTuple):
    """A class, its number from 0, and its probability."""

    label: str
    number: int
    probability: float


class Prediction(NamedTuple):
    """What an image shows: the likeliest classes, the first first; or why it cannot be read."""

    image: Path
    guesses: tuple[Guess, ...]
    broken: str | None = None


class Pictures:
    """Images in files, upright, numbered from 0.

    Args:
        paths: of the files.
        channels: 1 or 3.
    """

    def __init__(self, paths: Sequence[Path], channels: int) -> None:
        self.paths = paths
        self.channels = channels

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, index: int) -> tuple[Any, int]:
        """The image (PIL) and its number; DataError naming a broken one."""
        return read_image(self.paths[index], channels=self.channels, upright=True), index


@torch.inference_mode()
def predict(
    model: nn.Module,
    paths: Sequence[Path],
    preprocessing: Preprocessing,
    classes: Sequence[str],
    *,
    top: int = 5,
    device: torch.device | str = "cpu",
    batch_size: int = 32,
    workers: int = 0,
) -> Iterator[Prediction]:
    """What a network says of images, each once and in their order.

    Args:
        model: scores (N, classes) of images (N, C, H, W); left in the mode that it was in.
        paths: of the images.
        preprocessing: that the network was trained for.
        classes: their names, in the order of the scores.
        top: how many classes of each image, fewer where there are fewer.
        device: where the model is.
        batch_size: how many images at once.
        workers: processes that prepare images; 0 does it in this one.

    Raises:
        RunError: a process that prepares images has died.
        WeightsError: the network gives other scores than there are classes, or no numbers.
    """
    images = Images(Pictures(paths, preprocessing.channels), preprocessing.evaluation(), seed=0)
    order = BatchesInOrder(len(paths), batch_size)
    with evaluating(model):
        for batch in Loader(images, order, workers=workers):
            found = {broken.image: Prediction(paths[broken.image], (), broken.why) for broken in batch.broken}
            if len(batch.labels):
                prepared = preprocessing.normalise(batch.images.to(device))
                scores = model(prepared.contiguous(memory_format=torch.channels_last))
                _check(scores, classes)
                for index, guesses in zip(batch.labels.tolist(), _guesses(scores, classes, top), strict=True):
                    found[index] = Prediction(paths[index], guesses)
            yield from (found[index] for index in sorted(found))


def class_names(header: Mapping[str, Any], count: int) -> list[str]:
    """The names of a network's classes.

    Those that its weights say; or of 1000 classes ImageNet's, in the order that the weights say; or numbers.

    Raises:
        WeightsError: the weights name other classes than there are.
    """
    named = header.get("classes")
    if isinstance(named, list):
        if len(named) != count:
            found = f"the weights name {len(named)} classes, and the network has {count}"
            raise WeightsError("the names of classes", found, do="Write the file again.")
        return [str(each) for each in named]
    if count != COUNT:
        return [str(number) for number in range(count)]
    names = _imagenet()
    if header.get("class_order") != "devkit":
        return names
    return [name for _, name in sorted(zip(devkit_numbers(), names, strict=True))]


def _imagenet() -> list[str]:
    """ImageNet's classes in the order of the sorted synsets, as torchvision calls them."""
    from torchvision.models import ResNet18_Weights

    return [str(each) for each in ResNet18_Weights.DEFAULT.meta["categories"]]


def _guesses(scores: Tensor, classes: Sequence[str], top: int) -> Iterator[tuple[Guess, ...]]:
    found = F.softmax(scores.double(), 1).topk(min(top, scores.shape[1]))
    for probabilities, numbers in zip(found.values.tolist(), found.indices.tolist(), strict=True):
        yield tuple(
            Guess(classes[number], number, probability)
            for number, probability in zip(numbers, probabilities, strict=True)
        )


def _check(scores: Tensor, classes: Sequence[str]) -> None:
    if scores.ndim != 2 or scores.shape[1] != len(classes):
        raise WeightsError(
            "predict",
            found=f"the network gives {tuple(scores.shape[1:])} for an image, and there are {len(classes)} "
            "names of classes",
            do="Name a classifier.",
        )
    if not scores.isfinite().all():
        raise WeightsError(
            "predict",
            found="the network gives scores that are no finite numbers",
            do="Its weights may be lost: look whether they are finite.",
        )
