"""Whether images come as fast as the network takes them, and what it would need where they do not."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from senet.data.stream import Batch

# Of an epoch's time; less is not worth a word.
_BEARABLE = 0.1


@dataclass
class Supply:
    """How the images of an epoch came to one process.

    Args:
        images: that it trained on.
        seconds: that their steps took, with the waiting.
        waited: of these, the seconds in which the network waited for images.
        preparing: seconds that the images took to prepare, summed over all processes that do so.
        computing: of these, the seconds in which the processor worked; else they waited for files, or for a
            core.
    """

    images: int = 0
    seconds: float = 0.0
    waited: float = 0.0
    preparing: float = 0.0
    computing: float = 0.0

    @property
    def share(self) -> float:
        """The part of the time that is waiting, from 0 to 1."""
        return self.waited / self.seconds if self.seconds else 0.0

    def add(self, batches: Iterable[Batch], seconds: float, waited: float) -> None:
        """Adds a step: its batches, what it took, and what of that was waiting."""
        for batch in batches:
            self.images += len(batch.labels)
            self.preparing += batch.seconds.preparing
            self.computing += batch.seconds.computing
        self.seconds += seconds
        self.waited += waited

    def line(self, workers: int, cores: int) -> str:
        """What to tell people; empty where the network hardly waited, or more workers are known not to help.

        The number of workers that it names is an estimate: it takes an image to take as long as now, however
        many are prepared at once, and the network to be as fast as now while it does not wait.

        Args:
            workers: processes that prepare images for this one; 0 where it does so itself.
            cores: that the network leaves to them.
        """
        working = self.seconds - self.waited
        if self.share <= _BEARABLE or min(self.images, self.preparing, working) <= 0:
            return ""
        idle = 1 - min(1.0, self.computing / self.preparing)
        is_full = idle <= 0.5 and workers >= cores
        if is_full and not workers:
            return ""  # as it is by default where the network itself takes all cores: nothing is gained then
        speed = f"{_number(max(1, workers) * self.images / self.preparing)} a second"
        who = {0: f"without workers {speed} are prepared", 1: f"1 process prepares {speed}"}
        found = (
            f"images   the network waited {100 * self.share:.0f} % of the time for images: "
            f"{who.get(workers, f'{workers} processes prepare {speed}')}, "
            f"it takes {_number(self.images / working)}; "
        )
        needed = self.computing / working
        if is_full or needed > max(1, cores):  # a little is also done on cores that are taken
            verb = "is" if cores == 1 else "are"
            return (
                f"{found}the processor is the limit: that many take {_number(needed)} cores, "
                f"and {cores} {verb} free"
            )
        # One more at least: where they are enough on average, they come unevenly.
        enough = max(workers + 1, math.ceil(self.preparing / working))
        why = f"{100 * idle:.0f} % of preparing is waiting, for files or a core"
        return f"{found}--workers {enough} should do ({why})"


def _number(value: float) -> str:
    """A number for people, of two digits at least."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"
