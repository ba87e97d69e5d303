"""Statistics over seeds: means, paired differences, and the slope of a gain over depth.

Seeds are the sample. All of them see the same test images, so nothing here says what others would give.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from senet.errors import MissingExtraError

BETTER, WORSE, UNDECIDED = "better", "worse", "undecided"

# With fewer, nothing is concluded. A verdict needs p below the level; intervals cover the rest.
ENOUGH, LEVEL = 3, 0.05

# Differences of percentages that are nearer than this differ by rounding only.
_ROUNDING = 1e-9


class Spread(NamedTuple):
    """The mean over seeds and the standard deviation (n - 1), which one seed does not have."""

    mean: float
    std: float | None


class Estimate(NamedTuple):
    """A mean over seeds, its 95 % interval, and p of the t-test that it is 0; None where not defined.

    ``why`` says why they are not.
    """

    mean: float
    low: float | None = None
    high: float | None = None
    p: float | None = None
    why: str = ""


@dataclass(frozen=True)
class Gain:
    """How much better one group is than another, over the seeds that both have.

    Args:
        by_seed: the difference, by seed.
        estimate: its mean with interval and p.
        p: adjusted by Holm for all comparisons of a grid; None where there is none.
    """

    by_seed: Mapping[int, float]
    estimate: Estimate
    p: float | None

    @property
    def wins(self) -> int:
        """In how many seeds it is better."""
        return sum(gain > _ROUNDING for gain in self.by_seed.values())

    @property
    def verdict(self) -> str:
        """``BETTER`` or ``WORSE`` where the adjusted p is below 0.05 and there are three seeds or more."""
        if self.p is None or self.p >= LEVEL or len(self.by_seed) < ENOUGH:
            return UNDECIDED
        return BETTER if self.estimate.mean > 0 else WORSE


@dataclass(frozen=True)
class Slope:
    """How a gain changes with each doubling of the depth.

    Args:
        by_seed: the slope of each seed's own gains over log2 of the depth (least squares).
        estimate: their mean with interval and p.
    """

    by_seed: Mapping[int, float]
    estimate: Estimate

    @property
    def verdict(self) -> str:
        """A sentence that claims no more than the interval does."""
        mean, low, high, _, why = self.estimate
        slope = f"{mean:+z.2f} points per doubling"
        if low is None or high is None:
            return f"Nothing can be said of the slope ({slope}): {why}."
        found = f"the slope is {slope} of the depth [{low:+z.2f}, {high:+z.2f}], {len(self.by_seed)} seeds"
        if len(self.by_seed) < ENOUGH:
            return f"Fewer than {ENOUGH} seeds: nothing can be concluded; {found}."
        if low <= 0 <= high:
            return f"No change of the gain with depth is seen, which is no proof of none: {found}."
        return f"The gain {'grows' if mean > 0 else 'shrinks'} with depth: {found}."


def spread(values: Sequence[float]) -> Spread:
    """Mean and standard deviation (n - 1) of one value or more."""
    return Spread(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None)


def estimate(values: Sequence[float]) -> Estimate:
    """The mean of one value or more, with the 95 % interval and the test of Student's t.

    Of paired differences, the test is the paired t-test. Equal values have no interval: that they do not vary
    in so few seeds says nothing of how much they would.

    Raises:
        MissingExtraError: scipy is not installed.
    """
    mean, std = spread(values)
    if std is None:
        return Estimate(mean, why="one seed: no interval")
    if max(values) - min(values) < _ROUNDING:
        return Estimate(mean, why="equal in all seeds: no interval")
    student, freedom = _student(), len(values) - 1
    error = std / math.sqrt(len(values))
    reach = float(student.ppf(1 - LEVEL / 2, freedom)) * error
    p = 2 * float(student.sf(abs(mean) / error, freedom))
    return Estimate(mean, mean - reach, mean + reach, p)


def gains(values: Mapping[str, tuple[Mapping[int, float], Mapping[int, float]]]) -> dict[str, Gain]:
    """The gains of several groups, with p adjusted for all of them.

    Args:
        values: by group, its values and those of what it is compared with, each by seed; higher is better.

    Returns:
        The gain of each group that has a seed in common with the other.
    """
    by_seed = {
        label: {seed: own[seed] - other[seed] for seed in sorted(own.keys() & other.keys())}
        for label, (own, other) in values.items()
    }
    estimates = {label: estimate(list(found.values())) for label, found in by_seed.items() if found}
    adjusted = holm([each.p for each in estimates.values()])
    return {
        label: Gain(by_seed[label], each, p)
        for (label, each), p in zip(estimates.items(), adjusted, strict=True)
    }


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """Holm's (1979) adjusted p-values, in the order given; None stays and counts for nothing."""
    adjusted: list[float | None] = [None] * len(ps)
    known = sorted((p, place) for place, p in enumerate(ps) if p is not None)
    least = 0.0
    for rank, (p, place) in enumerate(known):
        least = max(least, min(1.0, p * (len(known) - rank)))
        adjusted[place] = least
    return adjusted


def slope(depths: Sequence[int], found: Sequence[Mapping[int, float]]) -> Slope | None:
    """The slope of the gain over log2 of the depth.

    Args:
        depths: in layers.
        found: the gain at each depth, by seed.

    Returns:
        The slopes of the seeds that have a gain at every depth; None without such a seed, or with one depth.
    """
    if len(set(depths)) < 2:
        return None
    doublings = [math.log2(depth) for depth in depths]
    by_seed = {
        seed: statistics.linear_regression(doublings, [gain[seed] for gain in found]).slope
        for seed in sorted(set.intersection(*map(set, found)))
    }
    return Slope(by_seed, estimate(list(by_seed.values()))) if by_seed else None


def _student() -> Any:
    try:
        from scipy import stats
    except ImportError as error:
        raise MissingExtraError.of("scipy", extra="train", need="intervals and tests") from error
    return stats.t
