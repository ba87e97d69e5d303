"""Tables that print themselves, give their rows to programs, and save."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from senet.errors import check_choice
from senet.files import replacing, write_text


@dataclass(frozen=True)
class Table:
    """Rows of named values.

    Args:
        rows: one mapping a row; the first row's keys are the columns.
    """

    rows: Sequence[Mapping[str, Any]]

    @property
    def columns(self) -> list[str]:
        """The column names, in order."""
        return list(self.rows[0]) if self.rows else []

    def __str__(self) -> str:
        """Aligned text: words to the left, numbers to the right."""
        cells = [[_text(row.get(column)) for column in self.columns] for row in self.rows]
        lines = [self.columns, *cells]
        widths = [max(len(line[index]) for line in lines) for index in range(len(self.columns))]
        numeric = [
            all(_is_number(row.get(column)) or row.get(column) is None for row in self.rows)
            for column in self.columns
        ]
        return "\n".join(
            "  ".join(
                cell.rjust(width) if right else cell.ljust(width)
                for cell, width, right in zip(line, widths, numeric, strict=True)
            ).rstrip()
            for line in lines
        )

    def to_markdown(self) -> str:
        """The table in Markdown."""
        lines = [self.columns, ["---"] * len(self.columns)]
        lines += [[_text(row.get(column)) for column in self.columns] for row in self.rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"

    def save(self, path: str | Path) -> None:
        """Writes .csv, .json or .md, as the name ends; OptionError for another ending."""
        path = Path(path)
        check_choice(f"save({str(path)!r})", path.suffix, (".csv", ".json", ".md"))
        if path.suffix == ".csv":
            with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, self.columns)
                writer.writeheader()
                writer.writerows(self.rows)
        else:
            text = self.to_markdown() if path.suffix == ".md" else json.dumps(list(self.rows), indent=2)
            write_text(path, text)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
