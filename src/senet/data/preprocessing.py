"""From a PIL image to the network's input: size, augmentation, normalisation."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from senet.data.source import Source, evenly_spaced
from senet.errors import DataError, MissingExtraError, ShapeError, check_choice, require, require_count
from senet.weights.layout import IMAGENET
from senet.weights.layouts import PREPROCESSINGS

Transform = Callable[[Any], Tensor]

# Images up to this side are taken at their own size; larger ones are resized and cropped.
SMALL = 64

# What ImageNet networks are trained with everywhere; RGB, of values from 0 to 1.
IMAGENET_MEAN: tuple[float, ...] = tuple(IMAGENET["mean"])
IMAGENET_STD: tuple[float, ...] = tuple(IMAGENET["std"])

# The share of the shorter edge that the evaluation crop keeps: 224 of 256 (section 5.1).
CROP_SHARE = 224 / 256

INTERPOLATIONS = ("bilinear", "bicubic")

# The centre; or the four corners and the centre, and their mirror images (Krizhevsky et al. 2012).
CROPS = (1, 10)

_LARGEST = 10_000
_MEASURED_IMAGES = 2_000


@dataclass(frozen=True)
class Preprocessing:
    """What evaluation does to an image; it travels in the header of the weights.

    Args:
        channels: 1 or 3.
        size: the side of the network's square input, in pixels.
        resize: the shorter edge before the crop, in pixels.
        mean: per channel, of values from 0 to 1.
        std: per channel.
        interpolation: of the resizing, "bilinear" or "bicubic".
        squash: whether the longer edge becomes as long as the shorter one, so that nothing but the
            margin of the crop is cut off (Places365: 224 of a squashed 256 × 256).

    Raises:
        OptionError: a value is not possible.
    """

    channels: int
    size: int
    resize: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = "bilinear"
    squash: bool = False

    def __post_init__(self) -> None:
        require_count("size", self.size)
        require_count("resize", self.resize)
        require("channels", self.channels, self.channels in (1, 3), "1 or 3")
        check_choice(f"interpolation={self.interpolation!r}", self.interpolation, INTERPOLATIONS)
        require("squash", self.squash, isinstance(self.squash, bool), "true or false")
        require("resize", self.resize, self.resize >= self.size, f"at least the size, {self.size}")
        require("resize", self.resize, self.resize <= _LARGEST, f"at most {_LARGEST:,}")
        for name, values in (("mean", self.mean), ("std", self.std)):
            numbers = len(values) == self.channels and all(_is_number(each) for each in values)
            require(name, values, numbers, f"{self.channels} numbers")
        require("std", self.std, all(each > 0 for each in self.std), "above 0")

    def evaluation(self) -> Transform:
        """PIL image to uint8 (channels, size, size): resize, centre crop."""
        v2 = transforms()
        return _Chain([self.resized, v2.CenterCrop(self.size), v2.PILToTensor()])

    def views(self, scales: Sequence[int], crops: int) -> Transform:
        """PIL image to uint8 (V, channels, size, size), the V = len(scales) * crops views of an image.

        Args:
            scales: what ``resize`` is for each, in pixels.
            crops: 1, the centre; 10, also the corners, and the mirror images of these five.

        Raises:
            OptionError: a crop does not fit into a scale, or the crops are neither 1 nor 10.
        """
        require("crops", crops, crops in CROPS, "1 or 10")
        resized = [dataclasses.replace(self, resize=scale).resized for scale in scales]
        return _Views(resized, self.size, crops, transforms().PILToTensor())

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 (N, channels, H, W) to float32 of about zero mean and unit deviation.

        Raises:
            ShapeError: the images have other channels.
        """
        if images.ndim != 4 or images.shape[1] != self.channels:
            raise ShapeError(
                "Preprocessing.normalise(images)",
                found=f"the images are {tuple(images.shape)}",
                allowed=f"(N, {self.channels}, H, W)",
            )
        mean = torch.tensor(self.mean, device=images.device).view(-1, 1, 1) * 255
        std = torch.tensor(self.std, device=images.device).view(-1, 1, 1) * 255
        return (images - mean) / std

    def resized(self, image: Any) -> Any:
        """The PIL image at its size before the crop."""
        # Most small images are as they should be, and asking costs less than resizing.
        decisive = image.size if self.squash else (min(image.size),)
        if set(decisive) == {self.resize}:
            return image
        v2 = transforms()
        how = v2.InterpolationMode(self.interpolation)
        edges = [self.resize] * (1 + self.squash)  # one edge is the shorter one
        return v2.functional.resize(image, edges, interpolation=how, antialias=True)

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON can hold them."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """What ``to_dict`` gave."""
        return cls(**{**values, "mean": tuple(values["mean"]), "std": tuple(values["std"])})


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def preprocessing_named(text: str) -> Preprocessing:
    """The preprocessing that a user writes, such as ``imagenet,size=288,resize=303,interpolation=bicubic``.

    Args:
        text: a name (imagenet, inception or caffe), and what differs from it: size, resize, interpolation,
            or the word squash.

    Raises:
        OptionError: it is not of that form.
    """
    name, *changes = text.split(",")
    check_choice(f"preprocessing {text!r}", name, PREPROCESSINGS)
    values = dict(PREPROCESSINGS[name])
    for change in changes:
        key, _, value = change.partition("=")
        check_choice(f"preprocessing {text!r}", key, ("size", "resize", "interpolation", "squash"))
        number = value.isdecimal() and len(value) < 9
        values[key] = True if change == "squash" else int(value) if number else value
    return Preprocessing.from_dict(values)


def preprocessing_for(
    source: Source,
    channels: int,
    *,
    image_size: int | None,
    network_size: int,
    resize: int | None = None,
    squash: bool = False,
) -> Preprocessing:
    """The preprocessing that fits some images, decided by a sample of them.

    Small images (none of 50, evenly spaced, above 64 pixels) are brought to the size of the smallest
    and normalised by their own mean and deviation, measured on up to 2,000. Larger ones are resized
    and cropped to the network's size and normalised with ImageNet's. Broken images are left out.

    Args:
        source: the images to train on.
        channels: of the images.
        image_size: the size asked for, in pixels; None decides as above.
        network_size: the size that the network was designed for.
        resize: the shorter edge before the crop, in pixels; None is the size for small images, and 8/7 of
            it for larger ones.
        squash: whether images are resized to a square.

    Raises:
        OptionError: a value is not possible.
        DataError: no image of the sample can be read.
    """
    sides = [side for image in _sample(source, 50) for side in image.size]
    small = max(sides) <= SMALL
    size = image_size or (min(sides) if small else network_size)
    if small:
        mean, std = _measure(source, channels)
    else:
        mean, std = (IMAGENET_MEAN, IMAGENET_STD) if channels == 3 else ((0.449,), (0.226,))
    if resize is None:
        # Small images are not made larger and cropped: they have no margin to lose.
        resize = size if small else round(size / CROP_SHARE)
    return Preprocessing(channels, size, resize, mean, std, squash=squash)


def _sample(source: Source, most: int) -> Iterator[Any]:
    """Evenly spaced images, at least one; DataError if all of them are broken."""
    indices = evenly_spaced(len(source), most)
    errors = []
    for index in indices:
        try:
            yield source.read(index)[0]
        except DataError as error:
            errors.append(error)
    if errors and len(errors) == len(indices):
        raise errors[0]


def _measure(source: Source, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    images = _sample(source, _MEASURED_IMAGES)
    pixels = np.concatenate([np.asarray(image, dtype=np.float64).reshape(-1, channels) for image in images])
    mean, std = pixels.mean(0) / 255, pixels.std(0) / 255
    # A channel that never changes carries nothing, but must not divide by zero.
    return _rounded(mean), _rounded(np.where(std > 0, std, 1.0))


def _rounded(values: npt.NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(round(float(value), 4) for value in values)


@dataclass(frozen=True)
class _Chain:
    """Steps in a row; a class and not a closure, so that other processes can be given it."""

    steps: Sequence[Callable[[Any], Any]]

    def __call__(self, image: Any) -> Tensor:
        for step in self.steps:
            image = step(image)
        result: Tensor = image
        return result


@dataclass(frozen=True)
class _Views:
    """The crops of an image at each of some scales; see ``Preprocessing.views``."""

    resized: Sequence[Callable[[Any], Any]]
    size: int
    crops: int
    to_tensor: Callable[[Any], Tensor]

    def __call__(self, image: Any) -> Tensor:
        return torch.stack([crop for resize in self.resized for crop in self._crops(resize(image))])

    def _crops(self, image: Any) -> list[Tensor]:
        pixels = self.to_tensor(image)
        bottom, right = (edge - self.size for edge in pixels.shape[1:])
        places = [(round(bottom / 2), round(right / 2))]  # rounded as by torchvision's CenterCrop
        if self.crops > 1:
            places += [(0, 0), (0, right), (bottom, 0), (bottom, right)]
        crops = [pixels[:, top : top + self.size, left : left + self.size] for top, left in places]
        return crops if self.crops == 1 else crops + [crop.flip(-1) for crop in crops]


def transforms() -> Any:
    """Torchvision's transforms; MissingExtraError without them."""
    try:
        from torchvision.transforms import v2
    except ImportError as error:
        raise MissingExtraError.of("torchvision", extra="train", need="preparing images") from error
    return v2
