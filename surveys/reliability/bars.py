"""A bar: a promise, and the function that tries to break it, at any size."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

# By name, in the order in which they are told.
BARS: dict[str, Bar] = {}


class BrokenPromiseError(AssertionError):
    """What was promised does not hold."""


@dataclass(frozen=True)
class Bar:
    """A promise and its test.

    Args:
        number: of the bar, such as R1.
        name: of the function, and what the command calls it.
        promise: what a user may rely on, with sizes in braces.
        how: how that is tested, likewise.
        measure: tests it at the sizes given as keywords, the full ones by default; returns what was
            measured, or raises BrokenPromiseError.
        needs: what this machine lacks for it; empty where it lacks nothing.
    """

    number: str
    name: str
    promise: str
    how: str
    measure: Callable[..., str]
    needs: Callable[[], str] = str

    @property
    def sizes(self) -> dict[str, int]:
        """The full sizes."""
        return dict(self.measure.__kwdefaults__ or {})

    def run(self, **sizes: int) -> dict[str, Any]:
        """The bar's row in the table, at these sizes."""
        sizes = self.sizes | sizes
        started = time.perf_counter()
        measured = self.measure(**sizes)
        written = {key: f"{value:,}" for key, value in sizes.items()}
        return {
            "bar": self.number,
            "name": self.name,
            "promise": self.promise.format(**written),
            "how": self.how.format(**written),
            "measured": measured,
            "sizes": sizes,
            "full": sizes == self.sizes,
            "date": datetime.date.today().isoformat(),
            "seconds": round(time.perf_counter() - started),
        }


def bar(
    number: str, promise: str, how: str, *, needs: Callable[[], str] = str
) -> Callable[[Callable[..., str]], Callable[..., str]]:
    """Makes a function, whose keywords are its sizes and their defaults the full ones, a bar."""

    def register(measure: Callable[..., str]) -> Callable[..., str]:
        BARS[measure.__name__] = Bar(number, measure.__name__, promise, how, measure, needs)
        return measure

    return register


def check(holds: bool, what: str) -> None:
    """Raises BrokenPromiseError saying ``what`` was found, unless it holds."""
    if not holds:
        raise BrokenPromiseError(what)
