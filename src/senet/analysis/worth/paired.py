"""Two networks on the same images: the change in accuracy, with its interval."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, sqrt

# Of the normal distribution, for 95 %.
Z = 1.96


@dataclass(frozen=True)
class Paired:
    """Images that were classified before and after a change.

    Args:
        images: how many.
        lost: right before and wrong after.
        gained: wrong before and right after.
    """

    images: int
    lost: int
    gained: int

    @property
    def change(self) -> float:
        """Of the accuracy, in points of a per cent."""
        return 100 * (self.gained - self.lost) / self.images

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the change, in points.

        Wald's for paired proportions, with half an image added to each of the four cells (Agresti and Min
        2005, Statistics in Medicine 24, 729-740): right also where few images change, or none.
        """
        images = self.images + 2
        centre = (self.gained - self.lost) / images
        # Half an image each of lost and gained.
        changed = (self.gained + self.lost + 1) / images
        half = Z * sqrt((changed - centre**2) / images)
        return 100 * max(centre - half, -1.0), 100 * min(centre + half, 1.0)

    def within(self, points: float) -> bool | None:
        """Whether at most so many points are lost; None where the interval leaves it open."""
        low, high = self.interval
        return None if low < -points <= high else low >= -points

    def images_for(self, points: float) -> int | None:
        """About how many images would tell whether so many points are lost, if it is as it seems.

        None where just so many seem to be: no number of images would.
        """
        low, high = self.interval
        away = abs((low + high) / 2 + points)
        return ceil((self.images + 2) * ((high - low) / 2 / away) ** 2) if away > 1e-9 else None

    def row(self, name: str) -> dict[str, float]:
        """The change with its interval, and both counts, as columns that begin with ``name``."""
        low, high = self.interval
        return {
            name: self.change,
            f"{name}_low": low,
            f"{name}_high": high,
            f"{name}_lost": self.lost,
            f"{name}_gained": self.gained,
        }

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.change:+.2f} [{low:+.2f}, {high:+.2f}]"
