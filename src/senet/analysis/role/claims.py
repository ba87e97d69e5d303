"""What has been said about the role of excitation, as numbers that hold or fail on any network.

A claim is a contrast: a number of some blocks minus that of others, above zero where the claim holds. Its
interval is that of the contrast itself, not one put together from those of the blocks: they see the same
images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from senet.analysis.role.measures import INTERVALS, BlockMeasures, Number, interval
from senet.analysis.stages import stages_of

HOLDS, FAILS, UNDECIDED, NOT_APPLICABLE = "holds", "does not hold", "undecided", "not applicable"

_SATURATION = ("closed", "open", "saturated")
_NONE = Number(None)


@dataclass(frozen=True)
class Claim:
    """Something that was said.

    Args:
        text: what.
        source: who said it, and where.
        number: one of ``measures.NUMBERS``.
        of: the blocks whose mean is taken, one of the parts of ``parts_of``.
        minus: the parts that it is compared with; of several, the one with the largest mean.
        above: a number that it is compared with.
    """

    text: str
    source: str
    number: str
    of: str
    minus: tuple[str, ...] = ()
    above: float = 0

    @property
    def contrast(self) -> str:
        """What is subtracted from what, in words."""
        largest = f"the larger of {' and '.join(self.minus)}" if len(self.minus) > 1 else "".join(self.minus)
        return f"{self.of} minus {largest or self.above}"


_PAPER = "Hu et al., arXiv 1709.01507, section 7.2"
_NOTES = "lecture notes on the 2017 version of the paper"

CLAIMS = (
    Claim(
        "Later blocks are more specific to classes: the class explains more of their gates",
        _PAPER,
        "class_share",
        "the last two thirds",
        ("the first third",),
    ),
    Claim(
        "Early blocks are nearly the same for all classes: the classes' profiles are more alike",
        _PAPER,
        "similarity",
        "the first third",
        ("the last two thirds",),
    ),
    Claim(
        "The second block of the last stage (SE_5_2 in the paper) is more saturated",
        _PAPER,
        "saturated",
        "the second block of the last stage",
        ("all blocks before it",),
    ),
    Claim(
        "There most gates are close to one",
        _PAPER,
        "open",
        "the second block of the last stage",
        above=0.5,
    ),
    Claim(
        "In the last block (SE_5_3 in the paper) the classes' profiles are more alike again",
        _PAPER,
        "similarity",
        "the last block",
        ("the stage before the last",),
    ),
    Claim(
        "There classes differ more by a change in scale",
        _PAPER,
        "one_scale",
        "the last block",
        ("the stage before the last",),
    ),
    Claim(
        "There most of what differs between classes is a change in scale",
        _PAPER,
        "one_scale",
        "the last block",
        above=0.5,
    ),
    Claim(
        "The images of one class differ more in later blocks",
        _PAPER,
        "within_class",
        "the last third",
        ("the first third",),
    ),
    # How much channels are reweighted against each other is how far their mean gates lie apart; it is most
    # in the middle if it is more there than at either end.
    Claim(
        "The reweighting among channels is most significant in intermediate blocks",
        _NOTES,
        "between_channels",
        "the middle third",
        ("the first third", "the last third"),
    ),
    Claim(
        "Later blocks are more saturated",
        _NOTES,
        "saturated",
        "the last third",
        ("the first two thirds",),
    ),
)


@dataclass(frozen=True)
class Finding:
    """A claim on one network.

    Args:
        claim: which.
        number: the contrast with its interval.
        verdict: "holds" or "does not hold" where the whole interval lies on one side of zero, "undecided"
            where it does not or there is none, or "not applicable".
        why: it is so, where the number does not tell, and which blocks have no such number.
    """

    claim: Claim
    number: Number
    verdict: str
    why: str

    @property
    def row(self) -> dict[str, Any]:
        """A line of a table."""
        return {
            "claim": self.claim.text,
            "source": self.claim.source,
            "number": self.claim.number,
            "contrast": self.claim.contrast,
            **self.number._asdict(),
            "verdict": self.verdict,
            "why": self.why,
            "interval": INTERVALS,
        }


def findings(measures: Sequence[BlockMeasures], *, random: bool = False) -> list[Finding]:
    """Each of ``CLAIMS`` on these blocks.

    Args:
        measures: of the blocks, in the order in which they run.
        random: whether the weights are: contrasts are then computed, and say nothing.
    """
    parts = parts_of(stages_of(measures))
    blocks = {each.name: each for each in measures}
    return [
        _judged(
            claim,
            [blocks[name] for name in parts[claim.of]],
            [[blocks[name] for name in parts[part]] for part in claim.minus],
            random,
        )
        for claim in CLAIMS
    ]


def parts_of(stages: Sequence[Sequence[str]]) -> dict[str, list[str]]:
    """The blocks of each part that claims speak of; of a network too small for it, none.

    What three does not divide is in the middle third.
    """
    blocks = [name for stage in stages for name in stage]
    third = len(blocks) // 3
    first, middle, last = (blocks[:third], blocks[third : len(blocks) - third], blocks[len(blocks) - third :])
    second = list(stages[-1][1:2]) if stages else []
    return {
        "the first third": first,
        "the middle third": middle if third else [],
        "the last third": last if third else [],
        "the first two thirds": first + middle if third else [],
        "the last two thirds": middle + last if third else [],
        "the second block of the last stage": second,
        "all blocks before it": blocks[: blocks.index(second[0])] if second else [],
        "the last block": blocks[-1:],
        "the stage before the last": list(stages[-2]) if len(stages) > 1 else [],
    }


def _judged(claim: Claim, of: list[BlockMeasures], minus: list[list[BlockMeasures]], random: bool) -> Finding:
    def finding(verdict: str, why: str = "", number: Number = _NONE) -> Finding:
        return Finding(claim, number, verdict, why)

    parts = [of, *minus]
    compared = [block for part in parts for block in part]
    if not all(parts):
        return finding(NOT_APPLICABLE, "too few blocks or stages")
    if any(block.not_numbers for block in compared):
        return finding(NOT_APPLICABLE, "some gates are NaN")
    if claim.number in _SATURATION and any(block.beyond for block in compared):
        return finding(NOT_APPLICABLE, "these gates are not bounded by 0 and 1")
    # A block whose gates do not vary has no share of variance, for example.
    without = [block.name for block in compared if not _is_defined(claim, block)]
    parts = [[block for block in part if _is_defined(claim, block)] for part in parts]
    if not all(parts):
        return finding(NOT_APPLICABLE, "there is one class or one image of each, or the gates do not vary")
    first, *others = [np.mean([block.estimates[claim.number] for block in part], 0) for part in parts]
    number = interval(first - claim.above - (np.max(others, 0) if others else 0))
    if random:
        return finding(NOT_APPLICABLE, "the weights are random", number)
    if number.low is None or number.high is None:
        return finding(UNDECIDED, "too few images for an interval", number)
    verdict = HOLDS if number.low > 0 else FAILS if number.high < 0 else UNDECIDED
    why = f"without blocks whose gates do not vary: {', '.join(without)}" if without else ""
    return finding(verdict, why, number)


def _is_defined(claim: Claim, block: BlockMeasures) -> bool:
    return bool(np.isfinite(block.estimates[claim.number]).all())
