"""Variants of a network, each trained with several seeds, side by side."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from senet.analysis.comparison.group import COSTS, ERRORS, UNKNOWN, gain_text
from senet.analysis.comparison.group import Group as Group
from senet.analysis.comparison.group import Pair as Pair
from senet.analysis.comparison.notes import notes_of
from senet.analysis.comparison.seeds import BETTER, UNDECIDED, WORSE, Gain, Slope, gains, slope
from senet.errors import OptionError, check_choice
from senet.files import filling, write_text
from senet.tables import Table

# Columns of the paper's tables, with their units.
_PRINTED = {
    "top1": "top-1 error %",
    "top5": "top-5 error %",
    "error": "error %",
    "gmacs": "GMACs",
    "mmacs": "MMACs",
    "parameters": "M params",
}
# Letters a line of a paragraph in the terminal.
_LINE = 110
# Not in the terminal, where lines are short.
_WIDE = (ERRORS["test_error5"], COSTS["peak_bytes"][0])


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Groups, and what the difference between them is; it prints itself, has rows, and saves.

    Args:
        title: of the table.
        question: what was asked, a sentence.
        name: of the grid, such as "reduction"; a file name.
        groups: in the order in which they are shown.
        baseline: the label of the group that the others are compared with; without effect where there are
            pairs.
        conditions: what all runs share, such as data, recipe and epochs.
        origin: where the printed numbers are from: table, network and data; empty for none.
        pairs: plain networks and those with SE by depth, the shallowest first; each is compared with its own.
        passport: of the process that made the table.

    Raises:
        OptionError: a label is not one line of text or stands there twice, or a group that is named is not
            there.
    """

    title: str
    question: str
    name: str
    groups: Sequence[Group]
    baseline: str = ""
    conditions: Mapping[str, str] = field(default_factory=dict)
    origin: str = ""
    pairs: Sequence[Pair] = ()
    passport: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        labels = [group.label for group in self.groups]
        for label in labels:
            if not label.strip() or label.splitlines() != [label]:
                raise OptionError(f"the label {label!r} of {self.name}", "it is not one line of text")
            if labels.count(label) > 1:
                raise OptionError(
                    f"the group {label!r} of {self.name}", "it is there twice", "each label once"
                )
        named = [name for pair in self.pairs for name in (pair.plain, pair.se)]
        for name in [*named, *([self.baseline] if self.baseline else [])]:
            check_choice(f"the group {name!r} of {self.name}", name, labels)

    @cached_property
    def opponents(self) -> dict[str, str]:
        """What each group is compared with, by label; those that nothing is compared with are not in it."""
        defined = [group.label for group in self.groups if not group.undefined]
        if self.pairs:
            others = {pair.se: pair.plain for pair in self.pairs}
        else:
            others = dict.fromkeys((label for label in defined if label != self.baseline), self.baseline)
        return {label: other for label, other in others.items() if {label, other} <= set(defined)}

    @cached_property
    def gains(self) -> dict[str, Gain]:
        """By label, how many points of test top-1 a group is better, where a seed of both is done."""
        top1 = {group.label: group.values("test_top1") for group in self.groups}
        return gains({label: (top1[label], top1[other]) for label, other in self.opponents.items()})

    @cached_property
    def slope(self) -> Slope | None:
        """How the gain changes with depth, where there are pairs and each that is defined has a gain."""
        pairs = [pair for pair in self.pairs if pair.se in self.opponents]
        if not all(pair.se in self.gains for pair in pairs):
            return None
        return slope([pair.depth for pair in pairs], [self.gains[pair.se].by_seed for pair in pairs])

    @property
    def answer(self) -> str:
        """What is found, in a sentence or two that claim no more than the intervals do."""
        base = next((group for group in self.groups if group.label == self.baseline), None)
        if base and base.undefined and not self.pairs:
            why = f"the baseline, {base.label}, is not defined for this network ({base.undefined})"
            return f"Nothing can be compared: {why}."
        if not any(group.results for group in self.groups):
            return "No run is done yet."
        if not self.gains:
            return "There is nothing to compare yet: no seed is done on both sides."
        if self.pairs:
            slope = self.slope.verdict if self.slope else "Too little is done to see how the gain changes."
            return f"{slope} With SE, {_seeds(self.gains.values())}: {self._verdicts()}"
        if len(self.opponents) > 1:
            return f"Against {self.baseline}, {_seeds(self.gains.values())}: {self._verdicts()}"
        [(label, gain)] = self.gains.items()
        return _sentence(label, self.baseline, gain)

    @cached_property
    def notes(self) -> list[str]:
        """What must be known to read the numbers."""
        return notes_of(self.groups, self.gains, self.opponents)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """A row a group for programs: plain numbers, units in the names, None where there is no number."""
        return [
            group.row(self.gains.get(group.label), self.opponents.get(group.label)) for group in self.groups
        ]

    @property
    def runs(self) -> list[dict[str, Any]]:
        """A row a run, also of those that failed or are not run yet."""
        return [run for group in self.groups for run in group.runs]

    @property
    def shown(self) -> list[dict[str, str]]:
        """A line a group for people, all cells text; columns of which nothing is known are left out."""
        lines = [group.cells(self.gains.get(group.label)) for group in self.groups]
        for label, line in zip((group.label for group in self.groups), lines, strict=True):
            if label in self.opponents.values() and not self.pairs and line["seeds"]:
                line["verdict"] = "baseline"
        known = {head for line in lines for head, cell in line.items() if cell not in ("", UNKNOWN)}
        return [{head: cell for head, cell in line.items() if head in known | {""}} for line in lines]

    @property
    def printed(self) -> list[dict[str, str]]:
        """The paper's numbers, a line a group that it has, with the printed digits."""
        groups = [group for group in self.groups if group.printed]
        columns = dict.fromkeys(column for group in groups for column in group.printed)
        return [
            {"": group.label} | {_head(key): group.printed.get(key, UNKNOWN) for key in columns}
            for group in groups
        ]

    def __str__(self) -> str:
        lines = [{head: cell for head, cell in line.items() if head not in _WIDE} for line in self.shown]
        width = max((len(group.label) for group in self.groups), default=0)
        head, *body = str(Table(_aligned(lines))).splitlines() or [""]
        body = [
            f"{group.label:{width}}  not defined: {group.undefined}" if group.undefined else line
            for group, line in zip(self.groups, body, strict=True)
        ]
        parts = [f"{self.title}\n{self.question}", _wrapped(self.answer), "\n".join([head, *body])]
        if self.printed:
            parts.append(f"{self._heading}\n\n{Table(_aligned(self.printed))}")
        parts.append("\n".join(_wrapped(f"* {note}", "  ") for note in self.notes))
        if self.conditions:
            parts.append(_wrapped("; ".join(f"{name}: {value}" for name, value in self.conditions.items())))
        return "\n\n".join(parts)

    def to_markdown(self) -> str:
        """The same in Markdown."""
        lines = self.shown
        for group, line in zip(self.groups, lines, strict=True):
            if group.undefined:
                line["seeds"] = f"not defined: {group.undefined}"
        parts = [
            f"# {_plain(self.title)}",
            _plain(self.question),
            f"**{_plain(self.answer)}**",
            _markdown(lines),
        ]
        if self.printed:
            parts += [f"## {_plain(self._heading)}", _markdown(self.printed)]
        parts += ["## Notes", "\n".join(f"- {_plain(note)}" for note in self.notes)]
        if self.conditions:
            conditions = [f"- {_plain(name)}: {_plain(value)}" for name, value in self.conditions.items()]
            parts += ["## Conditions", "\n".join(conditions)]
        return "\n\n".join(part.strip() for part in parts) + "\n"

    def save(self, folder: str | Path) -> list[Path]:
        """Writes ``table.csv`` (the rows), ``table.md`` and ``runs.csv``: all of them, or none.

        Args:
            folder: made if it is not there.

        Returns:
            Their paths.

        Raises:
            DataError: the folder cannot be written.
        """
        with filling(folder, last="table.md") as staged:
            Table(self.rows).save(staged / "table.csv")
            Table(self.runs).save(staged / "runs.csv")
            write_text(staged / "table.md", self.to_markdown())
        return [Path(folder) / name for name in ("table.csv", "runs.csv", "table.md")]

    @property
    def _heading(self) -> str:
        return f"Printed in the paper, not measured here: {self.origin}"

    def _verdicts(self) -> str:
        """The groups by their verdict."""
        found: dict[str, list[str]] = {BETTER: [], UNDECIDED: [], WORSE: []}
        for label, gain in self.gains.items():
            found[gain.verdict].append(f"{label} ({gain.estimate.mean:+z.2f})")
        return "; ".join(f"{verdict}: {', '.join(names)}" for verdict, names in found.items() if names) + "."


def _head(key: str) -> str:
    """The column of a printed number, with its unit: "top-1 error %, ImageNet"."""
    column, *data = key.split(", ", 1)
    return ", ".join([_PRINTED.get(column, column), *data])


def _sentence(label: str, other: str, gain: Gain) -> str:
    """The verdict on one comparison."""
    mean, low, high, *_ = gain.estimate
    seeds = _seeds([gain])
    if gain.verdict == UNDECIDED:
        return f"Undecided: {label} against {other}: {gain_text(gain)} points of test top-1, {seeds}."
    ends = sorted(abs(end) for end in (low, high) if end is not None)
    interval = ", ".join(f"{end:.2f}" for end in ends)
    by = f"{abs(mean):.2f} points of test top-1 [{interval}]"
    return f"{label} is {gain.verdict} than {other} by {by}, {seeds}."


def _seeds(gains: Iterable[Gain]) -> str:
    """How many seeds are behind them."""
    counts = [len(gain.by_seed) for gain in gains]
    least, most = min(counts), max(counts)
    return f"{least} to {most} seeds" if least < most else f"{most} seed{'s' if most > 1 else ''}"


def _wrapped(text: str, indent: str = "") -> str:
    """A paragraph for the terminal; paths and names stay whole."""
    return textwrap.fill(
        text, _LINE, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def _aligned(lines: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """All but the first column to the right."""
    widths = {
        head: max(len(head), *(len(line[head]) for line in lines)) for head in (lines[0] if lines else ())
    }
    return [
        {
            (head.rjust(widths[head]) if head else head): (cell.rjust(widths[head]) if head else cell)
            for head, cell in line.items()
        }
        for line in lines
    ]


def _markdown(lines: Sequence[Mapping[str, str]]) -> str:
    return Table([{head: _plain(cell) for head, cell in line.items()} for line in lines]).to_markdown()


def _plain(text: str) -> str:
    """Text that is no markup in Markdown, nor ends a cell."""
    # Within a word, as in se_resnet20, _ is none.
    escaped = re.sub(r"[\\`*\[\]|~$&]|(?<!\w)_|_(?!\w)", r"\\\g<0>", text)
    return " ".join(escaped.replace("<", "&lt;").split())
