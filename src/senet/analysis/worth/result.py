"""What the SE blocks of a network are found to be worth: a table, a claim of the paper, a proposal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from senet.analysis.role.claims import FAILS, HOLDS, UNDECIDED
from senet.analysis.worth.outcomes import Outcome
from senet.analysis.worth.proposal import Proposal
from senet.evaluation.classification import Evaluation
from senet.tables import Table

# What gates are replaced by.
ONE, NUMBER, PROFILE = "1", "one number", "mean per channel"
REPLACEMENTS = (ONE, NUMBER, PROFILE)

_CLAIM = "The last stage's blocks can go for less than 0.1 points of top-5, and hold most of SE's parameters"
_CLAIMED_POINTS = 0.1


@dataclass(frozen=True)
class Cost:
    """What gates cost.

    Args:
        parameters: of the excitations.
        multiply_adds: of an image: the excitations, and the product with the map.
    """

    parameters: int
    multiply_adds: int

    @classmethod
    def total(cls, costs: Sequence[Cost]) -> Cost:
        """Of all together."""
        return cls(sum(each.parameters for each in costs), sum(each.multiply_adds for each in costs))


@dataclass(frozen=True)
class Variant:
    """Some blocks with constant gates.

    Args:
        what: the name of a block, of a stage, or "all blocks".
        blocks: their names.
        gates: what they are, one of ``REPLACEMENTS``, or "as proposed".
        outcome: what changes.
    """

    what: str
    blocks: tuple[str, ...]
    gates: str
    outcome: Outcome


@dataclass(frozen=True)
class Sensitivity:
    """What the SE blocks of a network are worth; it prints itself, has rows, and saves.

    Args:
        untouched: the network as it is, on the same images.
        classes: how many it tells apart.
        variants: each block, stage and all blocks, with each replacement.
        proposal: which blocks to drop or fold.
        stages: the names of the blocks of each; none where only some blocks were measured.
        costs: of each block.
        se: of all gates in the network.
        network: of the whole network.
        random: whether the weights are fresh, so that only the mechanics are seen.
    """

    untouched: Evaluation
    classes: int
    variants: tuple[Variant, ...]
    proposal: Proposal
    stages: tuple[tuple[str, ...], ...]
    costs: Mapping[str, Cost]
    se: Cost
    network: Cost
    random: bool = False

    @property
    def rows(self) -> list[dict[str, Any]]:
        """A row a variant, the proposal last: changes in points with 95 % intervals, and what it saves."""
        return [self._row(variant) for variant in (*self.variants, *self._proposed)]

    @property
    def claims(self) -> list[dict[str, Any]]:
        """What the paper says of the last stage, with gates of 1 and with the mean of each channel.

        Without those blocks less than 0.1 % of top-5 is lost, and most of the parameters that SE adds are
        saved (section 4). The paper does not say whether its network was trained so; here the gates of a
        trained one are replaced. Nothing for random weights, for one stage, or for five classes or fewer.
        """
        if self.random or len(self.stages) < 2 or self.classes <= 5:
            return []
        share = self._saved(self.stages[-1]).parameters / max(self.se.parameters, 1)
        found = []
        for variant in self.variants:
            if variant.blocks != self.stages[-1] or variant.gates == NUMBER:
                continue
            top5 = variant.outcome.top5
            within = {True: HOLDS, False: FAILS, None: UNDECIDED}[top5.within(_CLAIMED_POINTS)]
            found.append(
                {
                    "claim": _CLAIM,
                    "source": "Hu et al., arXiv 1709.01507, section 4",
                    "gates": variant.gates,
                    **top5.row("top5"),
                    "share": share,
                    "verdict": within if share > 0.5 else FAILS,
                }
            )
        return found

    def __str__(self) -> str:
        """A line for each set of blocks, the claim of the paper and the proposal."""
        found = self.untouched
        lines = [
            *(["The weights are random: only the mechanics are seen."] if self.random else []),
            f"{found.images:,} images: top-1 {found.top1:.2f} %, top-5 {found.top5:.2f} %, "
            f"loss {found.loss:.4f}",
            "Change of top-1 in points, with its 95 % interval, if gates are held at",
            "",
            str(Table(self._lines)),
            "",
        ]
        if self.claims:
            lines.append("The paper: the blocks of the last stage can go for less than 0.1 points of top-5")
            lines += [
                f"  gates {each['gates']}: top-5 {each['top5']:+.2f} "
                f"[{each['top5_low']:+.2f}, {each['top5_high']:+.2f}], {each['verdict']} "
                f"({each['share']:.0%} of SE's parameters are there)"
                for each in self.claims
            ]
            lines.append("")
        lines.append(str(self.proposal))
        for variant in self._proposed:
            saved, shares = self._saved(variant.blocks), self._shares(variant.blocks)
            lines += [
                f"  saves {saved.parameters:,} parameters, {shares['of_se']:.1%} of SE's and "
                f"{shares['of_network']:.1%} of the network's, and {saved.multiply_adds:,} multiply-adds",
                "  in Python   smaller = senet.fold_gates(model, found.proposal.gates)",
            ]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """All of it, as JSON can hold it: the untouched network, the rows, the claims, the proposal."""
        proposal = self.proposal
        return {
            "untouched": self.untouched.to_dict(),
            "random": self.random,
            "rows": self.rows,
            "claims": self.claims,
            "proposal": {
                "tolerance": proposal.tolerance,
                "chosen_with": proposal.chosen_with,
                "verdict": proposal.verdict,
                "gates": {
                    name: gates.tolist() if isinstance(gates, Tensor) else gates
                    for name, gates in proposal.gates.items()
                },
            },
        }

    def save(self, path: str | Path) -> None:
        """Writes the rows as .csv, .json or .md."""
        Table(self.rows).save(path)

    @property
    def _lines(self) -> list[dict[str, str]]:
        """For people: a row for each set of blocks, with all replacements beside each other."""
        lines: dict[str, dict[str, str]] = {}
        for variant in self.variants:
            parameters = f"{self._saved(variant.blocks).parameters:,}"
            share = f"{self._shares(variant.blocks)['of_se']:.0%}"
            line = {"gates of": variant.what, "parameters": f"{parameters} ({share})"}
            lines.setdefault(variant.what, line)[variant.gates] = str(variant.outcome.top1)
        return list(lines.values())

    @property
    def _proposed(self) -> list[Variant]:
        outcome = self.proposal.outcome
        if outcome is None:
            return []
        return [Variant("proposal", tuple(self.proposal.gates), "as proposed", outcome)]

    def _saved(self, blocks: Sequence[str]) -> Cost:
        return Cost.total([self.costs[name] for name in blocks])

    def _shares(self, blocks: Sequence[str]) -> dict[str, float]:
        saved, every = self._saved(blocks), self.se
        return {
            "of_se": saved.parameters / max(every.parameters, 1),
            "of_network": saved.parameters / max(self.network.parameters, 1),
            "multiply_adds_of_se": saved.multiply_adds / max(every.multiply_adds, 1),
            "multiply_adds_of_network": saved.multiply_adds / max(self.network.multiply_adds, 1),
        }

    def _row(self, variant: Variant) -> dict[str, Any]:
        outcome, saved = variant.outcome, self._saved(variant.blocks)
        return {
            "what": variant.what,
            "blocks": len(variant.blocks),
            "gates": variant.gates,
            "images": outcome.top1.images,
            **outcome.top1.row("top1"),
            **outcome.top5.row("top5"),
            "loss": outcome.loss,
            "loss_low": outcome.loss_interval[0],
            "loss_high": outcome.loss_interval[1],
            "parameters": saved.parameters,
            "multiply_adds": saved.multiply_adds,
            **self._shares(variant.blocks),
        }
