"""The names and shapes of tensors in one library and in another, as rows of a table that reads both ways."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

Tensors = dict[str, Tensor]

# What a template leaves open: {u} is a number and {u+1} that number plus one; {M}, a capital, is letters and
# digits, and {*} a word with underscores too, such as "running_mean". Both sides of a row have the same.
_OPEN = re.compile(r"\{(\w|\*)([+-]\d+)?\}")
# A file of 100,000 other names shall not take 100,000 times as long.
_PATIENCE = 100
_NUMBER = r"(0|[1-9]\d{0,3})"


@dataclass(frozen=True)
class Row:
    """One rule, such as ``conv{s+1}_{u+1}_1x1_up.{*}`` for what is ``layer{s}.{u}.se.fc2.{*}`` here.

    Args:
        theirs: the template of the other library.
        ours: the template of senet.
        kernel: where theirs is a convolution (O, I, kernel, kernel) that covers all of its input, and
            ours the linear layer (O, I · kernel²) that computes the same; 0 where both are alike.
    """

    theirs: str
    ours: str
    kernel: int = 0

    def to_ours(self, key: str, tensor: Tensor) -> tuple[str, Tensor] | None:
        """Our name for their tensor, and it in our shape; None where the row says nothing of it."""
        name = self._their_template.rename(key, self._our_template)
        if self.kernel and tensor.ndim > 1:
            if tensor.shape[2:] != (self.kernel, self.kernel):
                return None
            tensor = tensor.flatten(1)
        return None if name is None else (name, tensor)

    def to_theirs(self, key: str, tensor: Tensor) -> tuple[str, Tensor] | None:
        """Their name for our tensor, and it in their shape; None where the row says nothing of it."""
        name = self._our_template.rename(key, self._their_template)
        if name is not None and self.kernel and tensor.ndim == 2:
            tensor = tensor.reshape(len(tensor), -1, self.kernel, self.kernel)
        return None if name is None else (name, tensor)

    @cached_property
    def _their_template(self) -> _Template:
        return _Template(self.theirs)

    @cached_property
    def _our_template(self) -> _Template:
        return _Template(self.ours)


def same(*templates: str) -> tuple[Row, ...]:
    """Rows for what is alike in both libraries."""
    return tuple(Row(template, template) for template in templates)


def to_ours(rows: Iterable[Row], tensors: Mapping[str, Tensor]) -> tuple[Tensors, list[str]]:
    """Their tensors as ours, and keys that no row knows, or that come out under a name twice: up to 100."""
    return _translated([row.to_ours for row in rows], tensors)


def to_theirs(rows: Iterable[Row], tensors: Mapping[str, Tensor]) -> tuple[Tensors, list[str]]:
    """Our tensors as theirs, and keys that no row knows, or that come out under a name twice: up to 100."""
    return _translated([row.to_theirs for row in rows], tensors)


def _translated(
    ways: list[Callable[[str, Tensor], tuple[str, Tensor] | None]], tensors: Mapping[str, Tensor]
) -> tuple[Tensors, list[str]]:
    translated: Tensors = {}
    unknown = []
    for key, tensor in tensors.items():
        found = next((each for way in ways if (each := way(key, tensor)) is not None), None)
        if found is None or found[0] in translated:
            unknown.append(key)
            if len(unknown) == _PATIENCE:
                break
        else:
            translated[found[0]] = found[1]
    return translated, unknown


class _Template:
    def __init__(self, text: str) -> None:
        self._parts = _OPEN.split(text)  # literal, letter, offset, literal, ..., literal
        pattern = ""
        for literal, letter in zip(self._parts[::3], [*self._parts[1::3], None], strict=True):
            pattern += re.escape(literal)
            if letter is not None:
                # Without leading zeros, or two keys could be one number.
                pattern += r"(\w+)" if letter == "*" else "([0-9a-z]+)" if letter.isupper() else _NUMBER
        self._pattern = re.compile(pattern, re.ASCII)
        self._letters = [
            (letter, int(offset or 0))
            for letter, offset in zip(self._parts[1::3], self._parts[2::3], strict=True)
        ]

    def rename(self, key: str, other: _Template) -> str | None:
        """What the other template calls that which is ``key`` here; None where it is nothing here."""
        found = self._pattern.fullmatch(key)
        if found is None:
            return None
        values = {
            letter: text if letter == "*" or letter.isupper() else int(text) - offset
            for (letter, offset), text in zip(self._letters, found.groups(), strict=True)
        }
        if any(isinstance(value, int) and value < 0 for value in values.values()):
            return None
        return other._filled(values)

    def _filled(self, values: Mapping[str, str | int]) -> str:
        text = self._parts[0]
        for (letter, offset), literal in zip(self._letters, self._parts[3::3], strict=True):
            value = values[letter]
            text += (value if isinstance(value, str) else str(value + offset)) + literal
        return text
