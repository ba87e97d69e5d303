"""The paper's tables: what the authors and others printed, every number with its source.

Nothing in this room is measured by us. ``tables.yaml`` holds the numbers and says how to read it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Decimal
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from senet.errors import check_choice
from senet.tables import Table

# Whose word ``published`` gives, by the version of a table.
_BY = {"journal": "paper", "repository": "released"}


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a table, and every number of it, is from.

    Args:
        key: the table's name here.
        where: its place in the source, such as "Table 2".
        version: journal, conference, repository or third party.
        certainty: read twice, read once, computed or from memory.
        source: what it was read from.
        data: the images, such as ImageNet.
        setting: how the numbers came about.
    """

    key: str
    where: str
    version: str
    certainty: str
    source: str
    data: str
    setting: str


@dataclass(frozen=True, kw_only=True)
class Published(Origin):
    """One printed number of a network; ``str`` gives the printed digits.

    Args:
        column: what it is, such as top1, top5, error, gmacs, parameters, ap.
        unit: such as "% error".
        value: the number.
        decimals: as printed.
        by: paper (the authors' own), original (the network's own paper) or released.
    """

    column: str
    unit: str
    value: float
    decimals: int
    by: str

    def __str__(self) -> str:
        return f"{self.value:.{self.decimals}f}"

    def agrees(self, value: float) -> bool:
        """Whether ``value``, in the same unit, rounds to the printed digits (exactly, halves up)."""
        printed = Decimal(str(self))
        return Decimal(value).quantize(printed, ROUND_HALF_UP) == printed


@dataclass(frozen=True)
class Column:
    """A column: its key, its unit, and the most decimals that a value of it is printed with."""

    key: str
    unit: str
    decimals: int

    @property
    def side(self) -> str:
        """original, plain or se, where the key says whose value of the row it is; else empty."""
        first = self.key.partition("_")[0]
        return first if first in ("original", "plain", "se") else ""


@dataclass(frozen=True)
class Row:
    """A row: label and values as printed ("-" for none), and its network in the registry, if any.

    Where the columns have sides, ``network`` is the plain name; the se_ columns are its twin's.
    """

    label: str
    printed: Mapping[str, str] = field(hash=False)
    network: str | None

    @property
    def values(self) -> dict[str, int | float | None]:
        """The numbers by column, None where a dash is printed."""
        return {key: _number(text) for key, text in self.printed.items()}


@dataclass(frozen=True, kw_only=True)
class PaperTable(Origin):
    """One table, with a title of ours and notes of theirs and ours: it prints itself, has rows, saves."""

    title: str
    notes: tuple[str, ...]
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]

    def row(self, label: str) -> Row:
        """The row of that label; OptionError, naming the nearest, if there is none."""
        rows = {row.label: row for row in self.rows}
        check_choice(f"table({self.key!r}).row({label!r})", label, rows)
        return rows[label]

    def __str__(self) -> str:
        lines = []
        for row in self.rows:
            line = {"": row.label}
            for key, text in row.printed.items():
                width = max(len(key), *(len(each.printed[key]) for each in self.rows))
                line[key.rjust(width)] = text.rjust(width)
            lines.append(line)
        units: dict[str, list[str]] = {}
        for column in self.columns:
            units.setdefault(column.unit, []).append(column.key)
        return "\n".join(
            (
                self.title,
                f"{self.where} ({self.version}; {self.certainty}): {self.source}",
                f"{self.data}: {self.setting}\n\n{Table(lines)}\n",
                *(f"{unit}: {', '.join(keys)}" for unit, keys in units.items()),
                *(f"* {note}" for note in self.notes),
            )
        )

    def save(self, path: str | Path) -> None:
        """Writes .csv or .json (numbers), or .md (the printed digits), each row with its source."""
        source = {name: getattr(self, name) for name in ("where", "version", "certainty", "source")}
        as_printed = Path(path).suffix == ".md"
        rows = ((row.label, row.printed if as_printed else row.values) for row in self.rows)
        Table([{"row": label, **values, **source} for label, values in rows]).save(path)


@cache
def tables() -> Mapping[str, PaperTable]:
    """All tables by key: the paper's in order, then the repository's, others' and the conference's."""
    text = Path(__file__).with_name("tables.yaml").read_text(encoding="utf-8")
    # This loader makes text of every scalar, and nothing else, so 24.80 keeps its zero.
    entries: dict[str, dict[str, Any]] = yaml.BaseLoader(text).get_single_data()
    return MappingProxyType({key: _table(key, **entry) for key, entry in entries.items()})


def table(key: str) -> PaperTable:
    """The table of that key, such as "imagenet"; OptionError, naming the nearest, if there is none."""
    check_choice(f"table({key!r})", key, tables())
    return tables()[key]


def published(network: str) -> tuple[Published, ...]:
    """What the journal version and the README of the released models print of a network.

    A number that several tables repeat under one setting is given once, with the first of them.

    Args:
        network: a name of the registry, such as "se_resnet50"; one that the paper lacks has no numbers.
    """
    return _published().get(network, ())


@cache
def _published() -> dict[str, tuple[Published, ...]]:
    found: dict[str, dict[Any, Published]] = {}
    for each in tables().values():
        if each.version in _BY and each.certainty.startswith("read"):
            for network, number in _numbers(each):
                same = (number.column, number.value, number.by, number.data, number.setting)
                found.setdefault(network, {}).setdefault(same, number)
    return {network: tuple(numbers.values()) for network, numbers in found.items()}


def _numbers(table: PaperTable) -> Iterator[tuple[str, Published]]:
    """The numbers of a table, each after the registry's name of its network."""
    origin = {each.name: getattr(table, each.name) for each in dataclasses.fields(Origin)}
    for row, column in ((row, column) for row in table.rows for column in table.columns):
        value = row.values[column.key]
        if row.network is not None and value is not None:
            number = Published(
                **origin,
                column=column.key.removeprefix(f"{column.side}_"),
                unit=column.unit,
                value=value,
                decimals=_decimals(row.printed[column.key]),
                by="original" if column.side == "original" else _BY[table.version],
            )
            yield f"se_{row.network}" if column.side == "se" else row.network, number


def _table(
    key: str, *, columns: Any, rows: Any, networks: Any = None, notes: Any = (), **said: Any
) -> PaperTable:
    read = []
    for label, texts in rows.items():
        printed = ("-" if text == "null" else text.replace("_", ",") for text in texts)
        read.append(Row(label, dict(zip(columns, printed, strict=True)), (networks or {}).get(label)))
    heads = tuple(
        Column(name, unit, max(_decimals(row.printed[name]) for row in read))
        for name, unit in columns.items()
    )
    return PaperTable(key=key, columns=heads, rows=tuple(read), notes=tuple(notes), **said)


def _decimals(printed: str) -> int:
    return len(printed.partition(".")[2])


def _number(printed: str) -> int | float | None:
    if printed == "-":
        return None
    return float(printed) if "." in printed else int(printed.replace(",", ""))
