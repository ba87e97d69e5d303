"""From what a user names to what is evaluated: weights, how images are prepared for them, their classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from senet import weights as weight_files
from senet.data import Splits
from senet.data.preprocessing import SMALL, Preprocessing, preprocessing_for, preprocessing_named
from senet.errors import OptionError, WeightsError, first_line
from senet.evaluation.classification import evaluating
from senet.models import NetworkConfig, build, info, list_models, load, network_of, weights_named
from senet.models.foreign import is_foreign

# For networks of others that do not say what they are made for.
_USUAL = 224


@dataclass(frozen=True)
class Member:
    """One of the networks to evaluate. It is not in memory yet: one at a time is enough.

    Args:
        name: as the user calls it.
        weights: where they are.
        header: what they say of themselves.
        config: of the network, None if the weights do not say it and the name does.
    """

    name: str
    weights: str | Path
    header: Mapping[str, Any]
    config: NetworkConfig | None

    def network(self, splits: Splits | None = None) -> nn.Module:
        """The network in evaluation mode; of a name of ours, for the data's classes and channels."""
        if self.config is not None:
            return load(weight_files.recognise(self.weights))
        if is_foreign(self.name):
            network = load(self.name)
            weight_files.load(network, self.weights)
            return network
        if splits is None:
            return build(self.name, weights=self.weights).eval()
        classes, channels = len(splits.classes), splits.channels
        return build(self.name, num_classes=classes, in_channels=channels, weights=self.weights).eval()

    def check_classes(self, splits: Splits) -> None:
        """Raises WeightsError where the weights know other classes than the data has, or another order."""
        asked = f"{self.name!r} on {splits.name!r}"
        if self.header.get("class_order", "synset") != "synset":
            raise WeightsError(
                asked,
                found=f"the classes of the weights are in the order of the {self.header['class_order']}",
                allowed="that of the sorted synsets, as folders have it",
                do="Convert the original weights again without --classes.",
            )
        ours = list(splits.classes)
        theirs = self.header.get("classes", ours)
        if theirs != ours:
            raise WeightsError(
                asked,
                found=_difference([str(each) for each in theirs], ours),
                allowed="the same classes in the same order",
                do="Name the data that they were trained on.",
            )
        if self.config is not None and self.config.num_classes != len(ours):
            raise WeightsError(
                asked,
                found=f"the weights know {self.config.num_classes} classes, the data has {len(ours)}",
                do="Name the data that they were trained on.",
            )

    def preprocessing(self, splits: Splits | None, words: str | None) -> Preprocessing:
        """How images are prepared: as the caller says it, or else the weights, if it fits the data.

        Args:
            splits: the data; None where there is none.
            words: of the caller.

        Raises:
            OptionError: the caller's words are not of the form.
            WeightsError: the weights do not say it, or it is for images of other channels.
        """
        asked = f"{self.name!r}" if splits is None else f"{self.name!r} on {splits.name!r}"
        if words == "data" and splits is not None:
            size = self._size_of_images()
            return preprocessing_for(splits.train, splits.channels, image_size=None, network_size=size)
        said = words is None
        found = said_preprocessing(asked, self.header) if said else preprocessing_named(words or "")
        if splits is not None and found.channels != splits.channels:
            raise WeightsError(
                asked,
                found=f"the weights are for images of {found.channels} channels, "
                f"the data has {splits.channels}",
                do="Name the data that they were trained on.",
            )
        return found

    def _size_of_images(self) -> int:
        """The side of the images that the network is made for."""
        if is_foreign(self.name):
            return declared_size(self.network())
        name = self.name if self.config is None else self.config.name
        return info(name).input_size[1] if name in list_models() else SMALL


def declared_size(network: nn.Module) -> int:
    """The side of the images that a network of timm says it is made for; else what is usual."""
    config = getattr(network, "pretrained_cfg", None)
    size = config.get("input_size") if isinstance(config, dict) else None
    return int(size[1]) if size else _USUAL


def said_preprocessing(asked: str, header: Mapping[str, Any]) -> Preprocessing:
    """How images are prepared, as weights say it; WeightsError where they do not, or it is unreadable."""
    if "preprocessing" not in header:
        raise WeightsError(
            asked,
            found="the weights do not say how images are prepared for them",
            do="Give --preprocessing: data, as training decides it by the data, or such as "
            "imagenet,size=288,resize=303,interpolation=bicubic.",
        )
    try:
        return Preprocessing.from_dict(header["preprocessing"])
    except (KeyError, TypeError, OptionError) as error:
        raise WeightsError(asked, f"the file's preprocessing is unreadable ({error})") from error


def member_named(name: str, weights: str | None) -> Member:
    """What a user names.

    Args:
        name: a run folder, weights of any origin, or a network's name beside ``weights``, which may be that
            of another library.
        weights: the weights of a network given by name.

    Raises:
        OptionError: no weights are named.
        WeightsError: the weights cannot be read, or are of another network.
    """
    foreign = is_foreign(name)
    source = weights if foreign or weights is not None else weights_named(name)
    if source is None:
        tagged = name.startswith("timm:") and "." in name
        raise OptionError(
            f"{name!r}",
            found="a name with a tag is one of weights"
            if tagged
            else "a network fresh from its name knows nothing",
            do=f"Say NAME --weights {name}." if tagged else "Give --weights.",
        )
    found = weight_files.recognise(source)
    known = weights is None or "network" in found.header
    config = network_of(found) if known and not foreign else None
    if config is not None and weights is not None and config.name != name:
        raise WeightsError(f"{name!r}", f"the weights are of {config.name}", do="Leave out one of the two.")
    return Member(name, source, found.header, config)


def changed(
    preprocessing: Preprocessing, name: str, *, size: int | None, scales: Sequence[int], squash: bool
) -> Preprocessing:
    """The preprocessing with what the caller wants otherwise.

    Args:
        preprocessing: of the network.
        name: the network, for the error.
        size: the side of the crop; None leaves it.
        scales: what images are resized to, before the crop; none leaves it.
        squash: whether images are resized to a square; False leaves it.

    Raises:
        OptionError: the crop does not fit into what images are resized to, or a value is not possible.
    """
    side = preprocessing.size if size is None else size
    smallest = min(scales, default=preprocessing.resize)
    if side > smallest:
        raise OptionError(
            f"{name!r}",
            found=f"a crop of {side} pixels does not fit into images resized to {smallest}",
            allowed="a crop of at most what images are resized to",
            do="Set --size, --scales, or both.",
        )
    resize = scales[0] if scales else preprocessing.resize
    squash = squash or preprocessing.squash
    return dataclasses.replace(preprocessing, size=side, resize=resize, squash=squash)


def check_size(
    model: nn.Module, preprocessing: Preprocessing, name: str, *, option: str = "--size"
) -> Tensor:
    """What the network gives for an image of this size in evaluation; OptionError if it cannot.

    Args:
        model: the network; it stays as it is.
        preprocessing: decides the size.
        name: of the network, for the error.
        option: that would change the size.
    """
    size = preprocessing.size
    # What another engine runs has no parameters, and is on the CPU.
    device = next(model.parameters(), torch.empty(0)).device
    try:
        with torch.inference_mode(), evaluating(model):
            scores = model(torch.zeros(1, preprocessing.channels, size, size, device=device))
    except (RuntimeError, ValueError, TypeError, LookupError, AssertionError) as error:
        raise OptionError(
            f"{name!r} on images of {size}x{size}",
            found=f"the network cannot take them ({first_line(error)})",
            do=f"Set another {option}.",
        ) from error
    if not isinstance(scores, Tensor):
        raise WeightsError(
            f"{name!r}", f"it gives a {type(scores).__name__}", "a classifier: scores (N, classes)"
        )
    return scores


def check_scores(scores: Tensor, name: str, splits: Splits) -> None:
    """Raises WeightsError where a network has other scores for an image than the data has classes."""
    if scores.shape != (1, len(splits.classes)):
        raise WeightsError(
            f"{name!r} on {splits.name!r}",
            found=f"it gives scores of {tuple(scores.shape[1:])}, the data has {len(splits.classes)} classes",
            do="Name the data that they were trained on.",
        )


def _difference(theirs: list[str], ours: list[str]) -> str:
    """In what classes differ."""
    if len(theirs) == len(ours):
        index = next(i for i, (a, b) in enumerate(zip(theirs, ours, strict=True)) if a != b)
        return f"class {index} is {theirs[index]!r} for the weights and {ours[index]!r} in the data"
    return (
        f"the weights know {len(theirs)} classes ({', '.join(theirs[:3])}, ...), "
        f"the data has {len(ours)} ({', '.join(ours[:3])}, ...)"
    )
