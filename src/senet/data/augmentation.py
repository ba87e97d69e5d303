"""What training does to an image beside preparing it, and to a batch of images.

The values are plain data, which the command line reads: importing this file imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from senet.errors import OptionError, check_choice, require, require_count

if TYPE_CHECKING:
    from torch import Tensor

    from senet.data.preprocessing import Preprocessing, Transform

_MAGNITUDES = 31  # RandAugment's levels in torchvision, from 0


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How training images are changed at random. What comes in from beyond an image's border is black.

    Args:
        crop: pad (a border, then a random crop), resized (a random area and aspect of 3/4 to 4/3, as
            GoogLeNet), or centre (as in evaluation).
        pad: pixels on each side, for the crop pad.
        pad_mode: what the border of the crop pad is: constant (black) or reflect (the image, mirrored).
        area: the smallest share of the image's area, for the crop resized; the largest is all of it.
        flip: whether half of the images are mirrored.
        rotate: each image is rotated by an angle of -rotate to rotate degrees.
        jitter: each value of each pixel gets a whole number of -jitter to jitter, of 255, added.
        randaugment: operations of RandAugment an image (torchvision's; Cubuk et al. 2019); 0 for none.
        magnitude: of RandAugment, 0 to 30.
        trivialaugment: whether each image gets TrivialAugment, wide (torchvision's; Müller and Hutter 2021).
        cutout: side of a square around a random pixel that becomes the mean colour (DeVries and Taylor
            2017); 0 for none.
        erase: the probability that a rectangle of 2 to 33 % of the area becomes the mean colour
            (torchvision's random erasing; Zhong et al. 2017).
        mixup: alpha of mixup (Zhang et al. 2017); 0 for none.
        cutmix: alpha of CutMix (Yun et al. 2019); 0 for none. With mixup too, each batch gets one of them.
        train_size: side of the training images in pixels, where it is not that of evaluation.

    Raises:
        OptionError: a value is not possible.
    """

    crop: Literal["centre", "pad", "resized"] = "centre"
    pad: int = 0
    pad_mode: Literal["constant", "reflect"] = "constant"
    area: float = 0.08
    flip: bool = False
    rotate: float = 0.0
    jitter: int = 0
    randaugment: int = 0
    magnitude: int = 9
    trivialaugment: bool = False
    cutout: int = 0
    erase: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    train_size: int | None = None

    def __post_init__(self) -> None:
        check_choice(f"crop={self.crop!r}", self.crop, ("centre", "pad", "resized"))
        check_choice(f"pad_mode={self.pad_mode!r}", self.pad_mode, ("constant", "reflect"))
        require("pad", self.pad, self.pad >= 0, "at least 0")
        require("area", self.area, 0 < self.area <= 1, "0 < share <= 1")
        require("rotate", self.rotate, 0 <= self.rotate <= 180, "0 to 180 degrees")
        require("jitter", self.jitter, 0 <= self.jitter <= 255, "0 to 255")
        require("randaugment", self.randaugment, self.randaugment >= 0, "at least 0")
        require("magnitude", self.magnitude, 0 <= self.magnitude < _MAGNITUDES, f"0 to {_MAGNITUDES - 1}")
        one = not (self.trivialaugment and self.randaugment)
        require("trivialaugment", self.trivialaugment, one, "one of randaugment and trivialaugment")
        require("cutout", self.cutout, self.cutout >= 0, "at least 0")
        require("erase", self.erase, 0 <= self.erase <= 1, "0 to 1")
        for name, alpha in (("mixup", self.mixup), ("cutmix", self.cutmix)):
            require(name, alpha, 0 <= alpha < math.inf, "at least 0")
        if self.train_size is not None:
            require_count("train_size", self.train_size)


def training_transform(preprocessing: Preprocessing, augmentation: Augmentation) -> Transform:
    """PIL image (L or RGB) to uint8 (channels, size, size), augmented.

    All that is drawn comes from torch's global generator on the CPU, and nothing is drawn for what is off.

    Args:
        preprocessing: size and mean of the images.
        augmentation: what is done to them; mixup and CutMix are ``mixing``'s.

    Raises:
        OptionError: ``train_size`` is larger than the image that it is cropped from.
        MissingExtraError: torchvision is not installed.
    """
    from senet.data.preprocessing import transforms

    v2 = transforms()
    size = augmentation.train_size or preprocessing.size
    how = v2.InterpolationMode(preprocessing.interpolation)
    mean = [round(255 * each) for each in preprocessing.mean]

    steps: list[Callable[[Any], Any]] = []
    if augmentation.crop == "resized":
        scale = (augmentation.area, 1.0)
        steps.append(v2.RandomResizedCrop(size, scale=scale, interpolation=how, antialias=True))
    else:
        _check_train_size(size, preprocessing.resize)
        steps.append(preprocessing.resized)
        if augmentation.crop == "pad":
            steps.append(v2.RandomCrop(size, augmentation.pad, padding_mode=augmentation.pad_mode))
        else:
            steps.append(v2.CenterCrop(size))
    # torchvision's recipe has the policy after crop and flip, and erasing last; DeVries and Taylor cut out
    # last too. Noise comes after the rotation, which would smooth it (no source says so).
    if augmentation.flip:
        steps.append(v2.RandomHorizontalFlip())
    if augmentation.randaugment:
        steps.append(v2.RandAugment(augmentation.randaugment, augmentation.magnitude, interpolation=how))
    if augmentation.trivialaugment:
        steps.append(v2.TrivialAugmentWide(interpolation=how))
    if augmentation.rotate:
        steps.append(v2.RandomRotation(augmentation.rotate, interpolation=how))
    steps.append(v2.PILToTensor())
    if augmentation.jitter:
        steps.append(_Jitter(augmentation.jitter))
    if augmentation.cutout:
        steps.append(_Cutout(augmentation.cutout, mean))
    if augmentation.erase:
        steps.append(v2.RandomErasing(augmentation.erase, value=mean))
    chain: Transform = v2.Compose(steps)
    return chain


def mixing(
    augmentation: Augmentation, num_classes: int
) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None:
    """Mixup or CutMix of a batch, or None where neither is asked for.

    It takes normalised images (N, C, H, W) and labels (N,), and gives images (N, C, H, W) and the
    probabilities of the classes (N, num_classes). Each image is mixed with the one before it in the
    batch, all by one weight, which is drawn from torch's global generator on the CPU.

    Args:
        augmentation: the alphas.
        num_classes: how many classes there are.

    Raises:
        MissingExtraError: torchvision is not installed.
    """
    kinds = {"MixUp": augmentation.mixup, "CutMix": augmentation.cutmix}
    if not any(kinds.values()):
        return None
    from senet.data.preprocessing import transforms

    v2 = transforms()
    either: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] = v2.RandomChoice(
        [getattr(v2, kind)(alpha=alpha, num_classes=num_classes) for kind, alpha in kinds.items() if alpha]
    )
    return either


def _check_train_size(size: int, edge: int) -> None:
    if size > edge:
        raise OptionError(
            f"train_size={size}",
            found=f"the images' shorter edge is {edge} before the crop",
            allowed=f"at most {edge}, or the crop 'resized'",
        )


# Classes and not closures, so that other processes can be given them.


@dataclass(frozen=True)
class _Jitter:
    """Adds whole numbers of -most to most to uint8 values, clamped to 0 to 255."""

    most: int

    def __call__(self, image: Tensor) -> Tensor:
        import torch

        noise = torch.randint(-self.most, self.most + 1, image.shape, dtype=torch.int16)
        return (image + noise).clamp_(0, 255).to(torch.uint8)


@dataclass(frozen=True)
class _Cutout:
    """Fills a square of ``side`` around a random pixel; what sticks out is cut off (section 3.2)."""

    side: int
    fill: list[int]

    def __call__(self, image: Tensor) -> Tensor:
        import torch

        top, left = (int(torch.randint(length, ())) - self.side // 2 for length in image.shape[1:])
        square = image[:, max(top, 0) : top + self.side, max(left, 0) : left + self.side]
        square[:] = torch.tensor(self.fill, dtype=torch.uint8).view(-1, 1, 1)
        return image
