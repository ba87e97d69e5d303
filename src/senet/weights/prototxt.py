"""``.prototxt`` files: Protocol Buffers' text format, as far as descriptions of networks use it.

There is no schema, and one rule: a field is the tuple of the values given for it, in the order of the
file. A value is a number, a bool, a word (quoted, or an enum's) or a message, which is fields again.

Sources: Protocol Buffers, "Text Format Language Specification"; ``caffe.proto`` of BVLC/caffe.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from senet.errors import WeightsError

Message = Mapping[str, tuple[Any, ...]]

# A file may not take long because it is large or deep. SENet-154's has 0.2 MB and 4 levels.
_MOST_BYTES = 10_000_000
_MOST_TOKENS = 500_000
_MOST_LEVELS = 32
_LONGEST_NUMBER = 100

_TOKEN = re.compile(
    r"""(?P<space>(?:\s|\#[^\n]*+)++)
    |(?P<text>"(?:[^"\\\n]++|\\[nrt\\"'])*+"|'(?:[^'\\\n]++|\\[nrt\\"'])*+')
    |(?P<number>-?(?:0[xX][0-9a-fA-F]++|(?:(?:0|[1-9]\d*+)(?:\.\d*+)?+|\.\d++)(?:[eE][+-]?\d++)?+[fF]?+))
    |(?P<name>[A-Za-z_]\w*+)
    |(?P<mark>[\s\S])""",
    re.VERBOSE | re.ASCII,
)
_ENDS = {"{": "}", "<": ">"}
_BOOLS = {"true": True, "True": True, "false": False, "False": False}
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}


@dataclass(frozen=True)
class PrototxtLayer:
    """A layer of a network.

    Args:
        name: such as "conv1/7x7_s2".
        type: such as "Convolution".
        bottoms: the names of what enters it.
        tops: the names of what leaves it; where it works in place, what enters it.
        parameters: its other fields.
    """

    name: str
    type: str
    bottoms: tuple[str, ...] = ()
    tops: tuple[str, ...] = ()
    parameters: Message = field(default_factory=dict)

    def values(self, path: str) -> tuple[Any, ...]:
        """Every value at a path such as "input_param.shape.dim"; none if there is no such field."""
        found: tuple[Any, ...] = (self.parameters,)
        for name in path.split("."):
            inside = [value.get(name, ()) for value in found if isinstance(value, Mapping)]
            found = tuple(value for values in inside for value in values)
        return found

    def get(self, path: str, default: Any = None) -> Any:
        """The last value at a path such as "convolution_param.stride", or the default."""
        return (default, *self.values(path))[-1]


def read_prototxt(path: str | Path) -> tuple[PrototxtLayer, ...]:
    """The layers of a ``.prototxt`` file, in its order.

    Inputs that the network itself names, as files of old do, become a first layer of the type "Input".

    Args:
        path: the file.

    Raises:
        WeightsError: there is no such file, it is malformed, or it describes no layer.
    """
    path = Path(path)
    asked = f"read_prototxt({str(path)!r})"
    try:
        if not path.is_file():
            raise WeightsError(asked, found="there is no such file", allowed="a .prototxt file")
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
        text = content.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise WeightsError(asked, found=f"the file cannot be read as text ({error})") from error
    try:
        if len(content) > _MOST_BYTES:
            raise _MalformedError(f"it has more than {_MOST_BYTES:,} bytes")
        return _layers(_Parser(text))
    except _MalformedError as error:
        raise WeightsError(
            asked,
            found=f"this is no description of a network ({error})",
            allowed="Protocol Buffers' text format, with layer { name: ... type: ... }",
        ) from error


class _MalformedError(Exception):
    """What is wrong with the text, and in which line."""


def _layers(parser: _Parser) -> tuple[PrototxtLayer, ...]:
    layers: list[PrototxtLayer] = []
    inputs: dict[str, list[Any]] = {"input": [], "input_shape": [], "input_dim": []}
    while parser.token.kind != "end":
        line = parser.token.line
        name, values = parser.field()
        if name == "layers":
            raise _MalformedError(f"line {line}: this is Caffe's first format, V1LayerParameter")
        if name == "layer":
            layers += [_layer(value, line) for value in values]
        elif name in inputs:
            inputs[name] += values
    if inputs["input"]:
        layers.insert(0, _input(**inputs))
    if not layers:
        raise _MalformedError("it has no layer")
    return tuple(layers)


def _layer(message: Any, line: int) -> PrototxtLayer:
    if not isinstance(message, dict):
        raise _MalformedError(f"line {line}: a layer is no message")
    words = {name: message.pop(name, ()) for name in ("name", "type", "bottom", "top")}
    if not all(isinstance(word, str) for values in words.values() for word in values):
        raise _MalformedError(f"line {line}: a layer's name, type, bottom or top is no word")
    if not (words["name"] and words["type"]):
        raise _MalformedError(f"line {line}: a layer has no name or no type")
    return PrototxtLayer(words["name"][-1], words["type"][-1], words["bottom"], words["top"], message)


def _input(input: list[Any], input_shape: list[Any], input_dim: list[Any]) -> PrototxtLayer:
    """The layer that Caffe, too, makes of a network's own inputs: four extents each, or a shape."""
    shapes = input_shape or [
        {"dim": tuple(input_dim[first : first + 4])} for first in range(0, len(input_dim), 4)
    ]
    tops = tuple(str(name) for name in input)
    return PrototxtLayer("input", "Input", (), tops, {"input_param": ({"shape": tuple(shapes)},)})


class _Token(NamedTuple):
    kind: str
    text: str
    line: int


class _Parser:
    """The fields of a text, one after the other, with one token of foresight."""

    def __init__(self, text: str) -> None:
        self._tokens = _tokens(text)
        self.token = next(self._tokens)

    def field(self, level: int = 0) -> tuple[str, list[Any]]:
        """A field's name, and the values given for it here."""
        if self.token.kind != "name":
            raise self._unexpected("the name of a field")
        name = self._take()
        colon = self._skip(":")
        values: list[Any] = []
        if self._skip("["):
            while not self._skip("]"):
                if values and not self._skip(","):
                    raise self._unexpected("a comma or ]")
                values.append(self._value(level))
        elif colon or self.token.text in _ENDS:
            values.append(self._value(level))
        else:
            raise self._unexpected("a colon or {")
        if not self._skip(","):
            self._skip(";")
        return name, values

    def _value(self, level: int) -> Any:
        kind, text, _ = self.token
        if text in _ENDS:
            return self._message(level + 1)
        if kind == "text":
            # Neighbours are one text.
            words = []
            while self.token.kind == "text":
                words.append(_unquoted(self._take()))
            return "".join(words)
        if kind == "name":
            self._take()
            return _BOOLS.get(text, text)
        number = _number(text) if kind == "number" and len(text) <= _LONGEST_NUMBER else None
        if number is None:
            raise self._unexpected("a value")
        self._take()
        return number

    def _message(self, level: int) -> Message:
        if level > _MOST_LEVELS:
            raise _MalformedError(f"line {self.token.line}: messages nest more than {_MOST_LEVELS} deep")
        end = _ENDS[self._take()]
        fields: dict[str, list[Any]] = {}
        while not self._skip(end):
            name, values = self.field(level)
            fields.setdefault(name, []).extend(values)
        return {name: tuple(values) for name, values in fields.items()}

    def _take(self) -> str:
        text = self.token.text
        self.token = next(self._tokens)
        return text

    def _skip(self, mark: str) -> bool:
        found = self.token.text == mark
        if found:
            self._take()
        return found

    def _unexpected(self, wanted: str) -> _MalformedError:
        found = repr(self.token.text[:50]) if self.token.text else "the end of the file"
        return _MalformedError(f"line {self.token.line}: {found} is not {wanted}")


def _tokens(text: str) -> Iterator[_Token]:
    line = 1
    for count, match in enumerate(_TOKEN.finditer(text)):
        if count == _MOST_TOKENS:
            raise _MalformedError(f"line {line}: it has more than {_MOST_TOKENS:,} words")
        if match.lastgroup == "space":
            line += match[0].count("\n")
        else:
            yield _Token(str(match.lastgroup), match[0], line)
    yield _Token("end", "", line)


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", lambda escape: _ESCAPES.get(escape[1], escape[1]), text[1:-1])


def _number(text: str) -> int | float | None:
    for read in (lambda: int(text, 0), lambda: float(text.rstrip("fF"))):
        with contextlib.suppress(ValueError):
            return read()
    return None
