"""What the gates of a block are like, in numbers with intervals.

Every 95 % interval is that of a delete-one-group jackknife: each number is computed again without each of the
groups of images. It says how much the number would differ on other images, and nothing of other training
seeds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from senet.analysis.role.profiles import CLOSED, BlockProfile, Moments
from senet.errors import MissingExtraError

INTERVALS = "95 %, over images; other training seeds are not in it"

# What is measured in each block with an interval, and what it means.
NUMBERS = {
    "mean": "mean gate over images and channels",
    "spread": "standard deviation of all gates; the squares of the next three add up to its square",
    "between_channels": "standard deviation between the channels' means",
    "between_classes": "standard deviation between the class means of one channel",
    "within_class": "standard deviation between the images of one class, of one channel",
    "class_share": "share of a channel's variance over images that the class explains, corrected for the "
    "number of images",
    "similarity": "mean correlation of two classes' profiles over the channels, corrected for the noise of "
    "the class means; profiles that vary more over the channels count more",
    "one_scale": "share of the variance between classes in which a class multiplies the mean profile by one "
    "number",
    "scale_spread": "standard deviation of that number",
    "closed": f"share of gates up to {CLOSED:g}",
    "open": "share of gates from 0.95",
    "saturated": "share of gates that are closed or open",
}
# Those that say nothing of a single class.
OF_CLASSES = ("between_classes", "class_share", "similarity", "one_scale", "scale_spread")

# Gates are float32: what differs by less than ten of its steps at 1 is rounding.
_ROUNDING = 1e-6
# Profiles of which less than this is more than the noise of so few images have no similarity.
_MORE_THAN_NOISE = 0.1
# A gate that moves less multiplies its channel by one number: bfloat16 has steps of 0.004 at 1.
CONSTANT = 1e-3

Estimate = npt.NDArray[np.float64]


class Number(NamedTuple):
    """A number and its 95 % interval over images; None where it is not defined."""

    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class BlockMeasures:
    """One block, measured.

    Args:
        name: of the block in the network.
        channels: C.
        size: of the map it gates.
        images: how many samples were seen.
        estimates: by the names of ``NUMBERS``, each (1 + G,): of all images, then without each group.
        dead: channels whose gate was never above 0.05.
        constant: channels whose gate has a standard deviation below 0.001.
        effective_rank: how many directions the gates vary in: the exponential of the entropy of the
            normalised eigenvalues of their covariance (Roy and Vetterli 2007); NaN where nothing varies.
        not_numbers: gates that were NaN.
        beyond: whether a gate lay outside 0 to 1, as those of tanh, ReLU and the identity start do.
    """

    name: str
    channels: int
    size: tuple[int, ...]
    images: int
    estimates: dict[str, Estimate]
    dead: int
    constant: int
    effective_rank: float
    not_numbers: int
    beyond: bool

    @property
    def numbers(self) -> dict[str, Number]:
        """All of ``NUMBERS`` with their intervals."""
        return {name: interval(estimate) for name, estimate in self.estimates.items()}

    @property
    def row(self) -> dict[str, Any]:
        """A line of a table, without intervals."""
        return {
            "block": self.name,
            "channels": self.channels,
            "size": "×".join(map(str, self.size)) or None,
            "images": self.images,
            **{name: number.value for name, number in self.numbers.items()},
            "dead": self.dead,
            "constant": self.constant,
            "effective_rank": _defined(self.effective_rank),
            "nan": self.not_numbers,
        }

    @property
    def full_row(self) -> dict[str, Any]:
        """The same, each number followed by the ends of its interval, as ``mean_low`` and ``mean_high``."""
        full: dict[str, Any] = {}
        for column, value in self.row.items():
            full[column] = value
            if column in self.estimates:
                _, full[f"{column}_low"], full[f"{column}_high"] = interval(self.estimates[column])
        return full


def measures_of(profile: BlockProfile) -> BlockMeasures:
    """Measures a block."""
    filled = profile.count.sum(1).nonzero().flatten().tolist()
    moments = [None, *filled] if len(filled) > 1 else [None]
    common = common_noise(profile)
    each = [numbers_of(profile.moments(without), common) for without in moments]
    samples = int(profile.count.sum())
    return BlockMeasures(
        name=profile.name,
        channels=profile.channels,
        size=profile.size,
        images=samples,
        estimates={name: np.array([numbers[name] for numbers in each]) for name in NUMBERS},
        dead=int((profile.high <= CLOSED).sum()),
        constant=int((profile.overall_std < CONSTANT).sum()),
        effective_rank=effective_rank(profile.covariance),
        not_numbers=samples * profile.channels - int(profile.histogram.sum()),
        beyond=bool((profile.low < 0).any() or (profile.high > 1).any()),
    )


def numbers_of(moments: Moments, common: float) -> dict[str, float]:
    """All of ``NUMBERS``; NaN where one is not defined, or where gates are.

    The spread is split by the law of total variance, exactly: every image counts the same, so a class by its
    images. The class share is epsilon squared, the adjusted R squared of a one-way analysis of variance,
    with the sums over all channels. The scale of a class is that of its least squares fit to the mean
    profile. The similarity is the covariance of two profiles by the product of their standard deviations,
    each summed over the pairs of classes: a mean correlation that no single profile without variation upsets.

    Args:
        moments: of the images.
        common: what ``common_noise`` gives.
    """
    present = moments.images > 0
    images = moments.images[present].double()
    mean, total = moments.mean[present], images.sum()
    weight = images / total
    overall = weight @ mean
    apart = mean - overall
    between = weight @ apart.square()
    within = moments.square[present].sum(0) / total
    channels = overall.var(correction=0)
    gates = total * len(overall)
    closed, opened = moments.closed.sum() / gates, moments.opened.sum() / gates
    scale = mean @ overall / overall.square().sum()
    scales = weight @ (scale - 1).square()
    one_scale = scales * overall.square().sum() / between.sum()
    differ = len(images) > 1 and float(between.mean()) > _ROUNDING**2
    numbers = {
        "mean": overall.mean(),
        "spread": (channels + between.mean() + within.mean()).sqrt(),
        "between_channels": channels.sqrt(),
        "between_classes": between.mean().sqrt(),
        "within_class": within.mean().sqrt(),
        "class_share": _explained(between.mean(), within.mean(), total, len(images)),
        "similarity": _similarity(mean, _profile_noise(within, images, common)),
        "one_scale": one_scale if differ else math.nan,
        "scale_spread": scales.sqrt(),
        "closed": closed,
        "open": opened,
        "saturated": closed + opened,
    }
    unknown = OF_CLASSES if len(images) < 2 else ()
    return {name: math.nan if name in unknown else float(number) for name, number in numbers.items()}


def class_shares(profile: BlockProfile) -> Tensor:
    """(C,) the share of each channel's variance that the class explains, corrected; NaN if it has none.

    Below zero where classes differ less than their images would by chance.
    """
    moments = profile.moments()
    present = moments.images > 0
    total = moments.images.sum().double()
    weight = moments.images[present] / total
    between = weight @ (moments.mean[present] - profile.overall_mean).square()
    return _explained(between, moments.square[present].sum(0) / total, total, int(present.sum()))


def common_noise(profile: BlockProfile) -> float:
    """How much of the images' variance within classes raises or lowers all channels alike, from 0 to 1.

    That part of the noise of class means is no noise of their profiles, which are taken about their mean.
    """
    moments = profile.moments()
    present = moments.images > 0
    within = float(moments.square[present].sum())
    apart = (profile.mean[:, present] - moments.mean[present]).sum(2)
    together = float(profile.comoment.sum() + (profile.count[:, present] * apart.square()).sum())
    return min(max(together / profile.channels / within, 0.0), 1.0) if within > 0 else 0.0


def effective_rank(covariance: Tensor) -> float:
    """Exp of the entropy of the normalised eigenvalues (Roy and Vetterli 2007); NaN where nothing varies."""
    if not covariance.isfinite().all() or float(covariance.trace()) <= len(covariance) * _ROUNDING**2:
        return math.nan
    values = torch.linalg.eigvalsh(covariance).clamp(min=0)
    return math.exp(torch.special.entr(values / values.sum()).sum())


def interval(estimate: Estimate) -> Number:
    """A number with its interval, from its value on all images and without each group (Student's t)."""
    whole, without = float(estimate[0]), estimate[1:]
    groups = len(without)
    if groups < 2 or not np.isfinite(estimate).all():
        return Number(_defined(whole))
    error = math.sqrt((groups - 1) / groups * float(np.square(without - without.mean()).sum()))
    reach = _quantile(groups - 1) * error
    return Number(whole, whole - reach, whole + reach)


@cache
def _quantile(freedom: int) -> float:
    try:
        from scipy import stats
    except ImportError as error:
        raise MissingExtraError.of("scipy", extra="train", need="intervals") from error
    return float(stats.t.ppf(0.975, freedom))


def _explained(between: Tensor, within: Tensor, total: Tensor, classes: int) -> Tensor:
    """Adjusted R squared: 1 - mean square within / mean square in all."""
    share = 1 - within / (total - classes) * (total - 1) / (between + within)
    undefined = (between + within <= _ROUNDING**2) | (total <= classes) | (classes < 2)
    return torch.where(undefined, math.nan, share)


def _profile_noise(within: Tensor, images: Tensor, common: float) -> Tensor:
    """(K,) what the noise of class means adds to their squares over the channels; NaN if it is not known."""
    total, classes = float(images.sum()), len(images)
    if total <= classes:
        return torch.full_like(images, math.nan)
    return within.sum() * total / (total - classes) * (1 - common) / images


def _similarity(mean: Tensor, noise: Tensor) -> Tensor:
    """Mean correlation over the pairs of rows, free of the noise; NaN if the rows do not vary beyond it."""
    apart = mean - mean.mean(1, keepdim=True)
    square = apart.square().sum(1)
    corrected = square - noise
    least = max(_MORE_THAN_NOISE * float(square.sum()), _ROUNDING**2 * mean.numel())
    # The square of a sum is that of each and each pair twice.
    length = corrected.clamp(min=0).sqrt()
    pairs = length.sum().square() - length.square().sum()
    if not float(corrected.sum()) > least or not float(pairs) > 0:
        return mean.new_tensor(math.nan)
    return (apart.sum(0).square().sum() - square.sum()) / pairs


def _defined(number: float) -> float | None:
    return number if math.isfinite(number) else None
