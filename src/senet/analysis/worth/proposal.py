"""Which blocks of a network can do with constant gates.

What is chosen by some images looks better on these than it is: one half of the images chooses, and what is
told is measured on the other.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from torch import Tensor, nn

from senet.analysis.sites import GateSite
from senet.analysis.worth.outcomes import Held, Images, Outcome, compare
from senet.runtime.processes import Processes


@dataclass(frozen=True)
class Candidate:
    """A block with constant gates.

    Args:
        name: of the block.
        gates: (C,), or 1.0.
        outcome: of it alone, on the images to choose with.
        parameters: that it saves.
    """

    name: str
    gates: Tensor | float
    outcome: Outcome
    parameters: int


@dataclass(frozen=True)
class Proposal:
    """Blocks to hold constant.

    Args:
        tolerance: how many points of top-1 accuracy may be lost.
        gates: what to hold them at, by name, as ``senet.fold_gates`` takes it: 1.0, which drops the block,
            or the mean gate of each channel (C,).
        chosen_with: images.
        outcome: of all together, on the other images; None where no block is proposed.
    """

    tolerance: float
    gates: dict[str, Tensor | float]
    chosen_with: int
    outcome: Outcome | None

    @property
    def verdict(self) -> str:
        """Whether the loss of all together is within the tolerance."""
        if self.outcome is None:
            return "every block alone loses more than the tolerance"
        top1 = self.outcome.top1
        within = top1.within(self.tolerance)
        if within is None:
            needed = top1.images_for(self.tolerance)
            many = "no number of" if needed is None else f"about {100 * ceil(needed / 100):,}"
            return f"undecided: if the change is what it seems, {many} such images would tell"
        return "within the tolerance" if within else "more than the tolerance"

    def __str__(self) -> str:
        asked = f"at most {self.tolerance:g} points of top-1"
        if self.outcome is None:
            return f"Proposal: keep all blocks; {self.verdict} ({asked}, {self.chosen_with:,} images)."
        chosen = {
            what: [name for name, gates in self.gates.items() if isinstance(gates, float) == dropped]
            for what, dropped in (("drop (gate 1)", True), ("fold (mean per channel)", False))
        }
        lists = [f"{what}: {', '.join(names)}" for what, names in chosen.items() if names]
        return "\n".join(
            [
                f"Proposal, for {asked}, chosen with {self.chosen_with:,} of the images",
                *(textwrap.fill(text, 108, initial_indent="  ", subsequent_indent="    ") for text in lists),
                f"  together, on the {self.outcome.top1.images:,} others: top-1 {self.outcome.top1}, "
                f"top-5 {self.outcome.top5}",
                f"  {self.verdict}",
            ]
        )


def propose(
    model: nn.Module,
    loader: Images,
    sites: Sequence[GateSite],
    candidates: Sequence[Sequence[Candidate]],
    *,
    tolerance: float,
    processes: Processes,
) -> Proposal:
    """The blocks that together lose at most ``tolerance`` points.

    Of each block that by itself loses no more, the constant that harms less is taken. They are put in the
    order of their harm for each parameter saved; each beginning of this order is measured, and the longest
    within the tolerance stays. Harm is the rise of the loss, which shows much smaller differences than a
    count of images does.

    Args:
        model: as for ``compare``, as are loader, sites and processes.
        loader: images.
        sites: where gates are.
        candidates: of each block, the constants that it may have.
        tolerance: points of top-1 accuracy.
        processes: all that measure.
    """
    harmless = [[one for one in each if one.outcome.top1.change >= -tolerance] for each in candidates]
    order = sorted(
        (min(each, key=lambda one: one.outcome.loss) for each in harmless if each),
        # What does no harm comes first, and of that what saves most.
        key=lambda each: (max(each.outcome.loss, 0.0) / max(each.parameters, 1), -each.parameters),
    )
    chosen_with = candidates[0][0].outcome.top1.images
    if not order:
        return Proposal(tolerance, {}, chosen_with, None)
    beginnings: list[Held] = [
        {each.name: each.gates for each in order[: count + 1]} for count in range(len(order))
    ]
    together = compare(model, loader, beginnings, sites, processes=processes, what="proposing")
    # The first of them alone is within it, as it was before.
    last = max(
        (count for count in range(len(order)) if together.half(count, 0).top1.change >= -tolerance), default=0
    )
    return Proposal(tolerance, dict(beginnings[last]), chosen_with, together.half(last, 1))
