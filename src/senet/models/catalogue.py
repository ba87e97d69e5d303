"""The networks in a table: what they cost, counted here, beside what the paper prints of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from senet.models.registry import ModelInfo
from senet.paper import Published
from senet.tables import Table

# What a classifier is trained on.
_CLASSIFIED = ("ImageNet", "CIFAR-10", "CIFAR-100")

# In units of one, by the columns of the paper's tables.
_UNITS = {"gmacs": 1e9, "mmacs": 1e6, "parameters": 1e6}
_LETTERS = {"gmacs": "G", "mmacs": "M", "parameters": "M"}


@dataclass(frozen=True)
class Catalogue:
    """A line a network; it prints itself, has rows, and saves.

    Args:
        networks: what the registry knows of each.
    """

    networks: Sequence[ModelInfo]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Numbers of ours, and those of the paper, None where it prints none."""
        return [_row(info) for info in self.networks]

    @property
    def differences(self) -> list[str]:
        """A sentence for each number of ours that does not round to what the paper prints."""
        return [sentence for info in self.networks for sentence in differences(info)]

    def __str__(self) -> str:
        counting = tqdm(self.networks, "counting", leave=False, disable=None)
        table = Table([_line(info) for info in counting])
        notes = [f"  {sentence}" for sentence in self.differences]
        if notes:
            notes = ["", "≠ does not round to what the paper prints (docs/paper.md has the reasons)", *notes]
        return "\n".join([str(table), *notes])

    def save(self, path: str | Path) -> None:
        """Writes the rows as .csv, .json or .md."""
        Table(self.rows).save(path)


def differences(info: ModelInfo) -> list[str]:
    """A sentence for each count of a network that does not round to what the paper prints."""
    found = []
    for number in (_printed(info, "parameters"), _printed(info, "gmacs", "mmacs")):
        if number is not None and not _agrees(info, number):
            what = "parameters" if number.column == "parameters" else "multiply-adds"
            ours = _short(_ours(info, number) / _UNITS[number.column], number)
            printed = f"{number} {_LETTERS[number.column]}"
            found.append(f"{info.name}: {ours} {what}, {number.where} prints {printed}")
    return found


def published_errors(info: ModelInfo) -> str:
    """The errors that the paper prints, in percent, with their tables: "ImageNet 23.29 / 6.62 (Table 2)"."""
    return _errors(info, "paper") or _errors(info, "original")


def _row(info: ModelInfo) -> dict[str, Any]:
    parameters, macs = _printed(info, "parameters"), _printed(info, "gmacs", "mmacs")
    return {
        "network": info.name,
        "family": info.family,
        "input": "x".join(str(size) for size in info.input_size),
        "classes": info.classes,
        "SE": info.se,
        "parameters": info.parameters,
        "parameters printed": _number(parameters),
        "multiply-adds": info.multiply_adds.total,
        "multiply-adds printed": _number(macs),
        "agrees": None if parameters is macs is None else not differences(info),
        "published errors": published_errors(info) or None,
        "released errors": _errors(info, "released") or None,
    }


def _line(info: ModelInfo) -> dict[str, Any]:
    """The row for people: narrower, with a mark where the paper differs."""
    macs = info.multiply_adds.total
    return {
        "network": info.name,
        "parameters": info.parameters,
        "printed": _marked(info, "parameters"),
        "multiply-adds": f"{macs / 1e9:.3f} G" if macs >= 1e9 else f"{macs / 1e6:.1f} M",
        "as printed": _marked(info, "gmacs", "mmacs"),
        "% error, top-1 / top-5, as published": published_errors(info) or None,
    }


def _marked(info: ModelInfo, *columns: str) -> str | None:
    number = _printed(info, *columns)
    if number is None:
        return None
    return f"{number} {_LETTERS[number.column]}{'' if _agrees(info, number) else ' ≠'}"


def _printed(info: ModelInfo, *columns: str) -> Published | None:
    """The first number that the paper itself prints in one of these columns."""
    own = (number for number in info.published if number.by == "paper" and number.column in columns)
    return next(own, None)


def _number(printed: Published | None) -> int | None:
    return None if printed is None else round(printed.value * _UNITS[printed.column])


def _ours(info: ModelInfo, number: Published) -> int:
    return info.parameters if number.column == "parameters" else info.multiply_adds.total


def _agrees(info: ModelInfo, number: Published) -> bool:
    return number.agrees(_ours(info, number) / _UNITS[number.column])


def _short(value: float, number: Published) -> str:
    """With one digit more than printed."""
    return f"{value:.{number.decimals + 1}f} {_LETTERS[number.column]}"


def _errors(info: ModelInfo, by: str) -> str:
    """The errors of the first table for each kind of image that is classified."""
    found: dict[str, tuple[str, list[str]]] = {}
    for number in info.published:
        asked = number.column in ("top1", "top5", "error") and number.data in _CLASSIFIED
        if number.by == by and asked:
            where, errors = found.setdefault(number.data, (number.where, []))
            if where == number.where and len(errors) < 2:
                errors.append(str(number))
    if not found:
        return ""
    said = ", ".join(f"{data} {' / '.join(errors)}" for data, (_, errors) in found.items())
    tables = ", ".join(where for where, _ in found.values())
    return f"{said} ({tables}{'; from the original papers' if by == 'original' else ''})"


def described(info: ModelInfo) -> str:
    """One network for people: what it costs, its structure, and every number that is printed of it."""
    macs = info.multiply_adds
    size = " × ".join(str(each) for each in info.input_size)
    lines = [
        f"{info.name}: {info.parameters:,} parameters with {info.classes} classes",
        f"{macs.total:,} multiply-adds for an image of {size}: {macs.products:,} in convolutions and",
        f"linear layers, {macs.sums:,} in sums, {macs.scales:,} where SE scales",
        f"options: {', '.join(info.options) or 'none of its own'}",
        "",
        str(info.structure),
    ]
    together: dict[tuple[str, ...], list[str]] = {}
    for each in info.published:
        origin = (each.where, each.by, each.data, each.setting)
        together.setdefault(origin, []).append(f"{each.column} {each}")
    for (where, by, data, setting), numbers in together.items():
        lines += ["", f"{where} ({by}, {data}): {', '.join(numbers)}", f"  {setting}"]
    notes = [f"≠ {sentence}" for sentence in differences(info)]
    return "\n".join([*lines, *([""] if notes else []), *notes, *_weights(info)])


def _weights(info: ModelInfo) -> list[str]:
    """The weights that others have published, for people."""
    rows = [
        {
            "published weights": weights.name,
            "layout": weights.layout,
            "top-1 / top-5 %": f"{weights.top1} / {weights.top5}",
            "images": f"{weights.preprocessing['size']} of {weights.preprocessing['resize']}, "
            f"{weights.preprocessing['interpolation']}",
            "licence": weights.licence,
        }
        for weights in info.weights
    ]
    notes = dict.fromkeys(weights.note for weights in info.weights if weights.note)
    return ["", str(Table(rows)), *(f"  {note}" for note in notes)] if rows else []
