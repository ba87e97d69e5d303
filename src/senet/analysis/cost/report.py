"""The cost of a network as a report: it prints itself, gives its rows to programs, and saves."""

from __future__ import annotations

import dataclasses
import json
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from senet.analysis.cost.latency import Spread
from senet.analysis.stages import stages_of
from senet.errors import check_choice
from senet.files import write_text
from senet.paper import Published
from senet.tables import Table

MIB = 2**20
# More blocks than these are shown by stage; that leaves a page for the rest.
_MOST_SHOWN = 20
_LONGEST_NAME = 34
_WIDTH = 100
_QUANTITIES = {
    "parameters": "parameters",
    "multiply_adds": "multiply-adds",
    "moved": "bytes moved",
    "saved": "bytes saved",
}

COUNTED = (
    "multiply-adds: of one image: products of convolutions and linear layers, sums of maps, SE's scaling; "
    "not norms, activations, poolings, the squeeze",
    "moved: by the batch forward, each operation by itself: the tensors and weights that it reads and "
    "writes, each once; not caches, workspaces, what fused operations leave out",
    "saved: for the backward of the batch, in training, with senet's fused operations where they are used; "
    "of SE, what the network saves less without; not gradients, an optimizer's state",
    "not counted at all: what is computed from weights alone, the data on its way to the network",
)


@dataclass(frozen=True)
class Part:
    """What a block, all blocks or the network costs.

    Args:
        name: of the block, "SE" or "network".
        channels: C of the map that a block gates, 0 for the others.
        size: its spatial size.
        parameters: learnable, each once.
        multiply_adds: of one image.
        moved: bytes that a batch moves forward.
        saved: bytes that a batch keeps for the backward; None if it is not known.
        latency: in ms, of a batch; None if it was not measured.
    """

    name: str
    channels: int
    size: tuple[int, ...]
    parameters: int
    multiply_adds: int
    moved: int
    saved: int | None
    latency: Spread | None

    @property
    def row(self) -> dict[str, Any]:
        """As a row, in numbers, bytes and milliseconds."""
        latency = self.latency
        return {
            "part": self.name,
            "channels": self.channels or None,
            "size": "x".join(str(each) for each in self.size) or None,
            **{title: getattr(self, name) for name, title in _QUANTITIES.items()},
            "latency ms": None if latency is None else latency.median,
            "low quartile ms": None if latency is None else latency.low,
            "high quartile ms": None if latency is None else latency.high,
            "runs": None if latency is None else latency.runs,
        }


@dataclass(frozen=True)
class CostReport:
    """What ``senet.cost`` found.

    Args:
        network: its name.
        input: (C, *spatial) of an image.
        batch: images.
        blocks: the SE blocks, in the order in which they run. Their latency is that of the block alone.
        se: all SE: in bytes saved and in latency, how much less it is without.
        total: the network.
        inside: blocks that are no module which takes a map and returns it gated, so that the network
            cannot be tried without them.
        unsaved: why the bytes saved are not known, "" if they are.
        ratio: of the latency to that without SE, round by round; None if it was not measured.
        printed: what the paper prints of the network's cost.
        conditions: of the measurement.
        passport: versions and hardware.
        vs: the second network's.
        vs_ratio: of the latency to the second network's, round by round.
        lost: modules whose attention could not be told from other products of maps of one position, and is
            not counted.
    """

    network: str
    input: tuple[int, ...]
    batch: int
    blocks: tuple[Part, ...]
    se: Part
    total: Part
    inside: tuple[str, ...]
    unsaved: str
    ratio: Spread | None
    printed: tuple[Published, ...]
    conditions: Mapping[str, str]
    passport: Mapping[str, Any]
    vs: CostReport | None = None
    vs_ratio: Spread | None = None
    lost: tuple[str, ...] = ()

    def beside(self, vs: CostReport, ratio: Spread | None) -> CostReport:
        """This report with a second network's."""
        return dataclasses.replace(self, vs=vs, vs_ratio=ratio)

    def named(self, network: str, vs: str | None = None) -> CostReport:
        """This report with the names that the user gave the networks."""
        other = self.vs if self.vs is None or vs is None else self.vs.named(vs)
        return dataclasses.replace(self, network=network, vs=other)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """A row a block, one for all SE, one for the network; then those of the second network."""
        own = [{"network": self.network} | part.row for part in (*self.blocks, self.se, self.total)]
        return own if self.vs is None else own + self.vs.rows

    @property
    def share(self) -> dict[str, float | None]:
        """Of SE in the network, from 0 to 1, by quantity; None where it is not known."""
        shares: dict[str, float | None] = {}
        for name, title in _QUANTITIES.items():
            part, whole = getattr(self.se, name), getattr(self.total, name)
            shares[title] = None if part is None or whole is None else part / max(whole, 1)
        shares["latency ms"] = None if self.ratio is None else 1 - 1 / self.ratio.median
        return shares

    @property
    def compared(self) -> list[dict[str, Any]]:
        """A row a quantity: both networks, their difference and ratio; none without a second one."""
        if self.vs is None:
            return []
        own, other = self.total.row, self.vs.total.row
        rows = []
        for title in (*_QUANTITIES.values(), "latency ms"):
            a, b = own[title], other[title]
            known = a is not None and b is not None
            ratio = self.vs_ratio.median if title == "latency ms" and self.vs_ratio else None
            rows.append(
                {
                    "quantity": title,
                    self.network: a,
                    self.vs.network if self.vs.network != self.network else "the other": b,
                    "difference": a - b if known else None,
                    "ratio": ratio or (a / b if known and b else None),
                }
            )
        return rows

    def to_dict(self) -> dict[str, Any]:
        """All of it, as JSON can hold it."""
        return {
            "network": self.network,
            "input": list(self.input),
            "batch": self.batch,
            "rows": self.rows,
            "share of SE": self.share,
            "ratio to the network without SE": self.ratio and dataclasses.asdict(self.ratio),
            "vs": None if self.vs is None else self.compared,
            "the paper prints": [_said(each) for each in self.printed],
            "counted": list(COUNTED),
            "missing": self._missing,
            "conditions": dict(self.conditions),
            "passport": dict(self.passport),
        }

    def save(self, path: str | Path) -> None:
        """Writes the rows as .csv, all as .json, or what is printed, with every block, as .md."""
        path = Path(path)
        check_choice(f"save({str(path)!r})", path.suffix, (".csv", ".json", ".md"))
        if path.suffix == ".csv":
            Table(self.rows).save(path)
        elif path.suffix == ".json":
            write_text(path, json.dumps(self.to_dict(), indent=2) + "\n")
        else:
            notes = "\n".join(f"- {line}" for line in self._notes)
            tables = [Table(self._lines(self.blocks)), *([Table(_shown(self.compared))] if self.vs else [])]
            text = "\n".join(table.to_markdown() for table in tables)
            write_text(path, f"{self._headline}\n\n{text}\n{notes}\n")

    def __str__(self) -> str:
        parts = [self._headline, _aligned(self._lines(self._shown_blocks))]
        if self.vs is not None:
            parts.append(_aligned(_shown(self.compared)))
        notes = (textwrap.fill(note, _WIDTH, subsequent_indent="  ") for note in self._notes)
        return "\n\n".join([*parts, "\n".join(notes)])

    @property
    def _headline(self) -> str:
        size = " × ".join(str(each) for each in self.input)
        blocks = f"{len(self.blocks) or 'no'} SE block{'' if len(self.blocks) == 1 else 's'}"
        return f"{self.network} on {size}, a batch of {self.batch}: {blocks}"

    @property
    def _shown_blocks(self) -> Sequence[Part]:
        """The blocks, or where they are many the stages."""
        if len(self.blocks) <= _MOST_SHOWN:
            return self.blocks
        by_name = {block.name: block for block in self.blocks}
        return [_together([by_name[name] for name in stage]) for stage in stages_of(self.blocks)]

    def _lines(self, blocks: Sequence[Part]) -> list[dict[str, str]]:
        share = self.share
        parts = [*blocks, self.se, self.total] if self.blocks else [self.total]
        lines = [_line(part) for part in parts]
        if self.blocks:
            titles = dict(zip(list(lines[0])[2:], share, strict=True))
            shares = {
                key: "-" if (value := share[title]) is None else f"{100 * value:.2f} %"
                for key, title in titles.items()
            }
            if self.ratio is not None and self.ratio.low <= 1 <= self.ratio.high:
                shares[list(shares)[-1]] = "unclear"
            lines.append({"": "share of SE", "map": ""} | shares)
        return lines

    @property
    def _missing(self) -> list[str]:
        """What the report does not know, and why."""
        found = []
        if self.lost:
            named = ", ".join(each or "the network" for each in self.lost)
            found.append(
                f"SE in {named}: not counted, as on maps of one position it cannot be told from other "
                "products; give a larger input"
            )
        if self.total.latency is None:
            found.append("latency: not measured")
        if self.unsaved:
            found.append(
                f"saved: the network does not run in training, without memory, on this batch ({self.unsaved})"
            )
        if self.inside:
            found.append(
                f"latency and bytes saved of SE: {self.inside[0] or 'the network'} is no module inside it "
                "that takes a map and returns it gated, so there is no network without it to compare with"
            )
        return found

    @property
    def _notes(self) -> list[str]:
        lines = []
        if self.total.latency is not None:
            machine = self.passport["machine"]
            where = machine["gpu"] if self.conditions["device"].startswith("cuda") else machine["processor"]
            lines.append(
                f"latency: median of {self.total.latency.runs} runs in turn, quartiles "
                f"{_quartiles(self.total.latency)} ms; a block's is that of the block alone"
            )
            if self.ratio is not None:
                lines.append(
                    f"  with SE {self.ratio.median:.3f} times that without, run by run (quartiles "
                    f"{_quartiles(self.ratio)})"
                )
            if self.vs is not None and self.vs_ratio is not None:
                lines.append(
                    f"  {self.vs_ratio.median:.3f} times that of {self.vs.network}, run by run (quartiles "
                    f"{_quartiles(self.vs_ratio)})"
                )
            lines.append(
                f"  evaluation, {self.conditions['dtype']}, channels last, {self.conditions['device']} "
                f"({where}), CPU threads: {machine['threads']}, torch {self.passport['versions']['torch']}"
            )
        if self.printed:
            said = ", ".join(_said(each) for each in self.printed)
            lines.append(f'the paper prints, in the layout "original": {said}')
        return [*lines, *self._missing, *COUNTED]


def _together(blocks: Sequence[Part]) -> Part:
    """Several blocks of one stage, as one row."""
    first = blocks[0]
    if len(blocks) == 1:
        return first
    saved = [block.saved for block in blocks if block.saved is not None]
    times = [block.latency for block in blocks if block.latency is not None]
    median, low, high = (sum(getattr(each, name) for each in times) for name in ("median", "low", "high"))
    return Part(
        f"{first.name} + {len(blocks) - 1} more",
        first.channels if len({block.channels for block in blocks}) == 1 else 0,
        first.size,
        sum(block.parameters for block in blocks),
        sum(block.multiply_adds for block in blocks),
        sum(block.moved for block in blocks),
        sum(saved) if len(saved) == len(blocks) else None,
        Spread(median, low, high, times[0].runs) if len(times) == len(blocks) else None,
    )


def _line(part: Part) -> dict[str, str]:
    """For people: millions and MiB."""
    name = part.name if len(part.name) <= _LONGEST_NAME else f"…{part.name[1 - _LONGEST_NAME :]}"
    sizes = (part.channels, *part.size) if part.channels else part.size
    return {
        "": name,
        "map": "×".join(str(each) for each in sizes),
        "parameters": f"{part.parameters:,}",
        "M mult-adds": f"{part.multiply_adds / 1e6:,.2f}",
        "moved MiB": f"{part.moved / MIB:,.2f}",
        "saved MiB": "-" if part.saved is None else f"{part.saved / MIB:,.3f}",
        "latency ms": "-" if part.latency is None else f"{part.latency.median:,.3f}",
    }


def _shown(compared: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """The comparison for people."""
    lines = []
    for quantity, *numbers in (row.values() for row in compared):
        texts = [
            "-" if each is None else f"{each:,}" if isinstance(each, int) else f"{each:,.4f}"
            for each in numbers
        ]
        lines.append(dict(zip(compared[0], [quantity, *texts], strict=True)))
    return lines


def _aligned(lines: Sequence[Mapping[str, str]]) -> str:
    """A table whose numbers end below each other."""
    padded = []
    for line in lines:
        cells = {}
        for key, text in line.items():
            width = max(len(key), *(len(each[key]) for each in lines))
            words = key in ("", "quantity")
            cells[key if words else key.rjust(width)] = text if words else text.rjust(width)
        padded.append(cells)
    return str(Table(padded))


def _quartiles(spread: Spread) -> str:
    return f"{spread.low:.3f} to {spread.high:.3f}"


def _said(number: Published) -> str:
    unit = {"gmacs": " G multiply-adds", "mmacs": " M multiply-adds", "parameters": " M parameters"}
    return f"{number}{unit[number.column]} ({number.where})"
