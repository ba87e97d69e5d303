"""One variant of a comparison: its runs, and what they give as numbers and as text."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from senet.analysis.comparison.result import RunResult
from senet.analysis.comparison.seeds import Estimate, Gain, Spread, estimate, spread

# Over seeds: columns of the table and of its rows, by the name in RunResult.
ERRORS = {"test_error": "test error %", "test_error5": "top-5 error %", "train_error": "train error %"}
# What a run costs: column, unit, and how its number is written; the lower median over seeds.
COSTS = {
    "parameters": ("M params", 1e6, ".3f"),
    "macs": ("M MACs", 1e6, ",.1f"),
    "seconds_per_step": ("ms/step", 1e-3, ",.1f"),
    "saved_bytes": ("MiB/image", 2**20, ",.2f"),
    "peak_bytes": ("GPU MiB", 2**20, ",.0f"),
}
UNKNOWN = "–"


class Pair(NamedTuple):
    """Two groups of one depth: their labels, and how many layers they have."""

    plain: str
    se: str
    depth: int


@dataclass(frozen=True, kw_only=True)
class Group:
    """One variant.

    Args:
        label: its name in the table; every group has another.
        network: what was built.
        undefined: why the variant has no meaning on this network; empty where it has one.
        results: of the runs that are done, by seed.
        curves: the rows of their ``metrics.csv``, by seed.
        failed: why, by seed.
        missing: the seeds that are not done yet.
        printed: the paper's numbers of it, the printed digits by the columns of ``senet.paper``, perhaps with
            their data ("top1, ImageNet"); {} for none.
    """

    label: str
    network: str
    undefined: str = ""
    results: Mapping[int, RunResult] = field(default_factory=dict)
    curves: Mapping[int, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    failed: Mapping[int, str] = field(default_factory=dict)
    missing: Sequence[int] = ()
    printed: Mapping[str, str] = field(default_factory=dict)

    @property
    def seeds(self) -> str:
        """How many are done, of how many."""
        done, asked = len(self.results), len(self.results) + len(self.failed) + len(self.missing)
        return str(done) if done == asked else f"{done} of {asked}"

    @property
    def short(self) -> str:
        """What failed and why, and what is not run yet; empty where all is done."""
        failed = [f"seed {seed} failed ({_first_line(why)})" for seed, why in sorted(self.failed.items())]
        missing = [f"{len(self.missing)} not run yet"] if self.missing else []
        parts = ", ".join(failed + missing)
        return f"{self.seeds} seeds done, {parts}" if parts else ""

    def values(self, name: str) -> dict[int, float]:
        """A value of the results, by seed in their order."""
        return {seed: getattr(run, name) for seed, run in sorted(self.results.items())}

    def spread(self, name: str) -> Spread | None:
        """Mean and standard deviation over seeds of a value of the results; None where no run is done."""
        values = self.values(name)
        return spread(list(values.values())) if values else None

    def mean(self, name: str) -> Estimate | None:
        """The mean over seeds of a value of the results, with the interval that it would have unpaired."""
        values = self.values(name)
        return estimate(list(values.values())) if values else None

    def median(self, name: str) -> float | None:
        """The (lower) median of the seeds for which it is known; None where it is not for any."""
        values = [getattr(run, name) for run in self.results.values()]
        known = [value for value in values if value is not None]
        return statistics.median_low(known) if known else None

    def cells(self, gain: Gain | None) -> dict[str, str]:
        """A line of the table for people; all cells but the label are empty where it is not defined."""
        cells = {"": self.label, "seeds": self.seeds}
        cells |= {head: _mean_and_deviation(self.spread(name)) for name, head in ERRORS.items()}
        cells |= {
            "gain": gain_text(gain),
            "wins": f"{gain.wins} of {len(gain.by_seed)}" if gain else UNKNOWN,
            "p": p_text(gain.p if gain else None),
            "verdict": gain.verdict if gain else UNKNOWN,
        }
        cells |= {head: self.cost(name) for name, (head, _, _) in COSTS.items()}
        return dict.fromkeys(cells, "") | {"": self.label} if self.undefined else cells

    def cost(self, name: str) -> str:
        """One of ``COSTS`` as text, without its unit."""
        value, (_, unit, form) = self.median(name), COSTS[name]
        return UNKNOWN if value is None else format(value / unit, form)

    def row(self, gain: Gain | None, against: str | None) -> dict[str, Any]:
        """The same for programs: plain numbers, None where there are none, units in the names."""
        row: dict[str, Any] = {
            "label": self.label,
            "network": self.network,
            "not_defined": self.undefined or None,
            "seeds_done": len(self.results),
            "seeds_failed": len(self.failed),
            "seeds_missing": len(self.missing),
        }
        for name in ERRORS:
            found = self.spread(name)
            row[f"{name}_percent"], row[f"{name}_percent_std"] = found or (None, None)
        estimate = gain.estimate if gain else None
        return row | {
            "against": against,
            "gain_points": estimate and estimate.mean,
            "gain_points_low": estimate and estimate.low,
            "gain_points_high": estimate and estimate.high,
            "gain_seeds": len(gain.by_seed) if gain else None,
            "gain_wins": gain.wins if gain else None,
            "p": estimate and estimate.p,
            "p_holm": gain.p if gain else None,
            "verdict": gain.verdict if gain else None,
            "parameters": self.median("parameters"),
            "macs_per_image": self.median("macs"),
            "seconds_per_step": self.median("seconds_per_step"),
            "saved_bytes_per_image": self.median("saved_bytes"),
            "peak_gpu_bytes": self.median("peak_bytes"),
            "seconds_per_run": self.median("seconds"),
        }

    @property
    def runs(self) -> list[dict[str, Any]]:
        """A row a seed: what became of it, and all that its run gave."""
        blank = dict.fromkeys(RunResult.__annotations__)
        rows = [
            *((seed, "done", None, run.to_dict()) for seed, run in self.results.items()),
            *((seed, "failed", why, blank) for seed, why in self.failed.items()),
            *((seed, "not run yet", None, blank) for seed in self.missing),
        ]
        return [
            {
                "label": self.label,
                "network": self.network,
                "seed": seed,
                "status": status,
                "why": why,
                **values,
            }
            for seed, status, why, values in sorted(rows, key=lambda row: row[0])
        ]


def gain_text(gain: Gain | None) -> str:
    """Points with the 95 % interval, where there is one."""
    if gain is None:
        return UNKNOWN
    mean, low, high, *_ = gain.estimate
    return f"{mean:+z.2f}" + (f" [{low:+z.2f}, {high:+z.2f}]" if low is not None else "")


def p_text(p: float | None) -> str:
    """To three digits."""
    if p is None:
        return UNKNOWN
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _mean_and_deviation(found: Spread | None) -> str:
    if found is None:
        return UNKNOWN
    return f"{found.mean:.2f}" + (f" ± {found.std:.2f}" if found.std is not None else "")


def _first_line(text: str) -> str:
    return next(iter(text.splitlines()), "")
