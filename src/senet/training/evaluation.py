"""Evaluation: how many images a network classifies rightly, counted in integers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from senet import weights as weight_files
from senet.data import Source, Splits, open_data
from senet.data.preprocessing import SMALL, Preprocessing, preprocessing_for, preprocessing_named
from senet.data.stream import BatchesInOrder, Images, Loader
from senet.errors import OptionError, WeightsError, require
from senet.models import build, info, list_models, load, weights_named
from senet.training.device import device_named, worker_count
from senet.weights import Weights

Batches = Iterable[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Evaluation:
    """Counts over a set of images.

    Args:
        images: how many were classified.
        correct1: how many have the right class first.
        correct5: how many have it among the first five.
        loss: mean cross-entropy, without label smoothing.
    """

    images: int
    correct1: int
    correct5: int
    loss: float

    @property
    def top1(self) -> float:
        """Accuracy in per cent."""
        return 100 * self.correct1 / self.images

    @property
    def top5(self) -> float:
        """Accuracy among the first five, in per cent."""
        return 100 * self.correct5 / self.images

    def to_dict(self) -> dict[str, Any]:
        """Counts, accuracies in per cent and loss."""
        return {
            "images": self.images,
            "correct1": self.correct1,
            "correct5": self.correct5,
            "top1": self.top1,
            "top5": self.top5,
            "loss": self.loss,
        }


def batches_of(
    source: Source, preprocessing: Preprocessing, *, batch_size: int = 256, workers: int = 0
) -> Batches:
    """Every image once, in order: uint8 images (B, C, H, W) with labels (B,).

    Args:
        source: the images.
        preprocessing: resizes and crops.
        batch_size: images a batch.
        workers: processes that prepare images; 0 does it in this one.
    """
    images = Images(source, preprocessing.evaluation(), seed=0)
    return Loader(images, BatchesInOrder(len(source), batch_size), workers=workers)


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    batches: Batches,
    preprocessing: Preprocessing,
    *,
    device: torch.device,
    memory_format: torch.memory_format = torch.channels_last,
) -> Evaluation:
    """Evaluates a network in float32 and leaves each module in the mode it was in.

    Args:
        model: scores (N, classes) from images (N, C, H, W).
        batches: uint8 images (N, C, H, W) with labels (N,).
        preprocessing: normalises them.
        device: where the model is.
        memory_format: of the images.
    """
    modes = {module: module.training for module in model.modules()}
    model.eval()
    images = 0
    totals = torch.zeros(2, dtype=torch.int64, device=device)
    loss = torch.zeros((), dtype=torch.float64, device=device)
    try:
        for batch, target in batches:
            labels = target.to(device)
            x = preprocessing.normalise(batch.to(device)).contiguous(memory_format=memory_format)
            scores = model(x).float()
            top = scores.topk(min(5, scores.shape[1])).indices.eq(labels[:, None])
            totals += torch.stack([top[:, 0].sum(), top.sum()])
            loss += F.cross_entropy(scores, labels, reduction="sum")
            images += len(labels)
    finally:
        for module, training in modes.items():
            module.training = training
    correct1, correct5 = totals.tolist()
    return Evaluation(images, correct1, correct5, loss.item() / images)


def evaluate_named(
    name: str,
    *,
    data: str | None = None,
    weights: str | None = None,
    preprocessing: str | None = None,
    device: str = "auto",
    batch_size: int = 256,
    workers: int | None = None,
) -> dict[str, Any]:
    """Evaluates what a user names, with the preprocessing that its weights carry.

    Args:
        name: a run folder, weights of any origin, or a network's name beside ``weights``.
        data: the data set; None takes the one that the weights were trained on.
        weights: the weights of a network given by name.
        preprocessing: "data" (as training decides it), or as ``preprocessing_named`` takes it, in place of
            what the weights say.
        device: auto, cpu, cuda, ...
        batch_size: images a batch.
        workers: processes that prepare images; None decides by the device.

    Returns:
        The name, the data and the evaluation's fields.

    Raises:
        OptionError: no weights or no data are named, or a value is not allowed.
        WeightsError: the weights cannot be read, or are for other images or classes.
    """
    require("batch_size", batch_size, batch_size >= 1, "at least 1")
    require("workers", workers, workers is None or workers >= 0, "at least 0")
    place = device_named(device)
    source = weights if weights is not None else weights_named(name)
    if source is None:
        raise OptionError(
            f"eval {name!r}", "a network fresh from its name knows nothing", do="Give --weights."
        )
    found = weight_files.recognise(source)
    data = data or found.header.get("data")
    if data is None:
        raise OptionError(f"eval {name!r}", "no data is named, here or in the weights", do="Give --data.")
    splits = open_data(data)
    prepared = _preprocessing(name, found, splits, preprocessing)
    _check_classes(name, found.header, splits)
    if weights is None:
        model: Any = load(found)
    elif "network" in found.header:
        model = load(found)
        if model.config.name != name:
            raise WeightsError(
                f"eval {name!r}", f"the weights are of {model.config.name}", do="Leave out one of the two."
            )
    else:
        model = build(name, num_classes=len(splits.classes), in_channels=splits.channels, weights=found)
    if model.config.num_classes != len(splits.classes):
        raise WeightsError(
            f"eval {name!r} on {splits.name!r}",
            found=f"the weights know {model.config.num_classes} classes, the data has {len(splits.classes)}",
            do="Name the data that they were trained on.",
        )
    model.to(place, memory_format=torch.channels_last)
    batches = batches_of(splits.test, prepared, batch_size=batch_size, workers=worker_count(workers, place))
    return {"model": name, "data": data} | evaluate(model, batches, prepared, device=place).to_dict()


def _check_classes(name: str, header: Mapping[str, Any], splits: Splits) -> None:
    """Raises WeightsError where the weights know other classes than the data has, or another order."""
    asked = f"eval {name!r} on {splits.name!r}"
    if header.get("class_order", "synset") != "synset":
        raise WeightsError(
            asked,
            found=f"the classes of the weights are in the order of the {header['class_order']}",
            allowed="that of the sorted synsets, as folders have it",
            do="Convert the original weights again without --classes.",
        )
    if header.get("classes", list(splits.classes)) != list(splits.classes):
        theirs = ", ".join(str(each) for each in header["classes"][:3])
        raise WeightsError(
            asked,
            found=f"the weights know {len(header['classes'])} classes ({theirs}, ...), "
            f"the data has {len(splits.classes)} ({', '.join(splits.classes[:3])}, ...)",
            allowed="the same classes in the same order",
            do="Name the data that they were trained on.",
        )


def _preprocessing(name: str, weights: Weights, splits: Splits, words: str | None) -> Preprocessing:
    """What the caller says, or else the weights, if it fits the data."""
    asked = f"eval {name!r} on {splits.name!r}"
    if words == "data":
        network_size = info(name).input_size[1] if name in list_models() else SMALL
        return preprocessing_for(splits.train, splits.channels, image_size=None, network_size=network_size)
    if words is not None:
        found = preprocessing_named(words)
    elif "preprocessing" not in weights.header:
        raise WeightsError(
            asked,
            found="the weights do not say how images are prepared for them",
            do="Give --preprocessing: data, as training decides it by the data, or such as "
            "imagenet,size=288,resize=303,interpolation=bicubic.",
        )
    else:
        try:
            found = Preprocessing.from_dict(weights.header["preprocessing"])
        except (KeyError, TypeError, OptionError) as error:
            raise WeightsError(asked, f"the file's preprocessing is unreadable ({error})") from error
    if found.channels != splits.channels:
        raise WeightsError(
            asked,
            found=f"the weights are for images of {found.channels} channels, the data has {splits.channels}",
            do="Name the data that they were trained on.",
        )
    return found
