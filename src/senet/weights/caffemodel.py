"""``.caffemodel`` files read without Caffe: the wire format of its NetParameter.

A message is a row of fields; a field is a key (its number and its kind of value) and a value. The
fields that hold weights are read, the others stepped over. Weights are not copied: the arrays are
views of the file.

Sources: Protocol Buffers, "Encoding"; ``caffe.proto`` and ``Blob::FromProto`` of BVLC/caffe.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from senet.errors import WeightsError

# The kinds of values that Caffe writes, and the bytes of those that have a fixed number.
_VARINT, _EIGHT, _COUNTED, _FOUR = 0, 1, 2, 5
_FIXED = {_EIGHT: 8, _FOUR: 4}

# The fields read of each message: number, name, and the kinds it may have. Repeated numbers are
# packed into one counted value, or stand alone.
_Schema = dict[int, tuple[str, tuple[int, ...]]]
_NET: _Schema = {2: ("layers", (_COUNTED,)), 100: ("layer", (_COUNTED,))}
_LAYER: _Schema = {1: ("name", (_COUNTED,)), 2: ("type", (_COUNTED,)), 7: ("blobs", (_COUNTED,))}
_BLOB: _Schema = {
    1: ("num", (_VARINT,)),
    2: ("channels", (_VARINT,)),
    3: ("height", (_VARINT,)),
    4: ("width", (_VARINT,)),
    5: ("data", (_COUNTED, _FOUR)),
    7: ("shape", (_COUNTED,)),
    8: ("double_data", (_COUNTED, _EIGHT)),
}
_SHAPE: _Schema = {1: ("dim", (_COUNTED, _VARINT))}
_NUMBERS: dict[str, np.dtype[Any]] = {"data": np.dtype("<f4"), "double_data": np.dtype("<f8")}

# A file may not take long because it has many small fields. SENet-154 has about 12,000.
_MOST_FIELDS = 300_000
_MOST_AXES = 32  # Caffe's own bound.
_LONGEST_NAME = 1000

# What is found under this name, by its first bytes; no NetParameter begins with them.
_OTHERS = {
    b"<!": "a web page",
    b"<html": "a web page",
    b"<?xml": "a web page",
    b"version https://git-lfs": "a pointer of git-lfs, not the file it stands for",
    b"name:": "text, as of a .prototxt",
    b"\x89HDF": "HDF5, Caffe's other format",
    b"PK\x03\x04": "a zip archive",
    b"\x1f\x8b": "compressed with gzip",
}


@dataclass(frozen=True, eq=False)
class CaffeLayer:
    """A layer that has weights.

    Args:
        name: such as "conv1/7x7_s2".
        type: such as "Convolution".
        blobs: its arrays, in Caffe's order. Convolution: weight (out, in / groups, height, width), bias.
            InnerProduct: weight (out, in), bias. BatchNorm: mean, variance, and the factor that
            both are to be divided by. Scale: scale, bias. Old files pad shapes to four axes.
    """

    name: str
    type: str
    blobs: tuple[NDArray[np.float32], ...]


def read_caffemodel(path: str | Path) -> dict[str, CaffeLayer]:
    """The layers of a ``.caffemodel`` file that have weights.

    The arrays are views of the file, which is read when they are: who cuts it short meanwhile kills the
    process. They can be written to, and the file stays as it is. They need not begin at a multiple of
    four bytes; NumPy and torch read them all the same.

    Args:
        path: the file.

    Returns:
        The layers by name, in the order of the file.

    Raises:
        WeightsError: there is no such file, it is no whole one, or its layers contradict themselves.
    """
    path = Path(path)
    asked = f"read_caffemodel({str(path)!r})"
    try:
        if not path.is_file():
            raise WeightsError(asked, found="there is no such file", allowed="a .caffemodel file")
        with path.open("rb") as file:
            content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
    except (OSError, ValueError) as error:  # mmap calls an empty file a ValueError.
        raise WeightsError(asked, found=f"the file cannot be read ({error})") from error
    try:
        return _network(content, asked)
    except _MalformedError as error:
        start = content[:100].tobytes().lstrip()
        other = next((what for first, what in _OTHERS.items() if start.startswith(first)), None)
        raise WeightsError(
            asked,
            found=f"this is {other}" if other else f"this is no whole .caffemodel file ({error})",
            allowed="Caffe's binary NetParameter, with weights",
            do="Fetch the file again, or write it with a newer Caffe.",
        ) from error


class _MalformedError(Exception):
    """What is wrong with the bytes."""


def _network(message: memoryview, asked: str) -> dict[str, CaffeLayer]:
    fields = _Fields()
    layers: dict[str, CaffeLayer] = {}
    for name, value in fields(message, _NET):
        if name == "layers":
            raise WeightsError(
                asked,
                found="its layers are of Caffe's first format, V1LayerParameter",
                allowed="LayerParameter",
                do="Renew the file with Caffe's upgrade_net_proto_binary.",
            )
        layer = _layer(value, fields)
        if layer.blobs and layer.name in layers:
            raise _MalformedError(f"two layers are named {layer.name!r}")
        if layer.blobs:
            layers[layer.name] = layer
    if not layers:
        raise _MalformedError("no layer has weights")
    return layers


def _layer(message: memoryview, fields: _Fields) -> CaffeLayer:
    words = {"name": "", "type": ""}
    blobs: list[NDArray[np.float32]] = []
    for name, value in fields(message, _LAYER):
        if name == "blobs":
            try:
                blobs.append(_blob(value, fields))
            except _MalformedError as error:
                raise _MalformedError(f"blob {len(blobs)} of layer {words['name']!r}: {error}") from error
        else:
            words[name] = _word(value)
    return CaffeLayer(words["name"], words["type"], tuple(blobs))


def _word(value: memoryview) -> str:
    if len(value) > _LONGEST_NAME:
        raise _MalformedError(f"a name has {len(value):,} bytes")
    try:
        return str(value, "utf-8")
    except UnicodeDecodeError as error:
        raise _MalformedError(f"a name is no UTF-8: {error.reason}") from error


def _blob(message: memoryview, fields: _Fields) -> NDArray[np.float32]:
    shape: list[int] = []
    extents: dict[str, int] = {}
    values: dict[str, memoryview | bytearray] = {name: memoryview(b"") for name in _NUMBERS}
    for name, value in fields(message, _BLOB):
        if name == "shape":
            shape += _dims(value, fields)
            _check_axes(shape)
        elif name not in _NUMBERS:
            extents[name] = _signed(value)
        elif len(value) % _NUMBERS[name].itemsize:
            raise _MalformedError(f"its {name} ends in the middle of a number")
        else:
            values[name] = _joined(values[name], value)
    # As Caffe does: four extents before a shape, doubles before floats.
    if extents:
        shape = [extents.get(axis, 0) for axis in ("num", "channels", "height", "width")]
    name = "double_data" if len(values["double_data"]) else "data"
    numbers = np.frombuffer(values[name], _NUMBERS[name])
    if min(shape, default=1) < 1 or math.prod(shape) != numbers.size:
        raise _MalformedError(f"its shape is {tuple(shape)}, and it has {numbers.size:,} values")
    with np.errstate(over="ignore", invalid="ignore"):
        return numbers.astype(np.float32, copy=False).reshape(shape)


def _joined(first: memoryview | bytearray, second: memoryview) -> memoryview | bytearray:
    """Both, one after the other; copied only where there are two."""
    if not len(first):
        return second
    joined = first if isinstance(first, bytearray) else bytearray(first)
    joined += second
    return joined


def _dims(message: memoryview, fields: _Fields) -> list[int]:
    dims: list[int] = []
    for _, value in fields(message, _SHAPE):
        if isinstance(value, int):
            dims.append(_signed(value))
        else:
            position = 0
            while position < len(value):
                dim, position = _varint(value, position)
                dims.append(_signed(dim))
                _check_axes(dims)
    return dims


def _check_axes(shape: list[int]) -> None:
    if len(shape) > _MOST_AXES:
        raise _MalformedError(f"its shape has more than {_MOST_AXES} axes")


class _Fields:
    """The fields of messages, one after the other; of a file, not more than so many."""

    def __init__(self) -> None:
        self._left = _MOST_FIELDS

    def __call__(self, message: memoryview, schema: _Schema) -> Iterator[tuple[str, Any]]:
        """Name and value of the fields in the schema: an int, or the bytes of any other kind."""
        position = 0
        while position < len(message):
            self._left -= 1
            if self._left < 0:
                raise _MalformedError(f"it has more than {_MOST_FIELDS:,} fields")
            key, position = _varint(message, position)
            number, kind = key >> 3, key & 7
            name, kinds = schema.get(number, ("", (_VARINT, _EIGHT, _COUNTED, _FOUR)))
            if kind not in kinds or not number:
                raise _MalformedError(f"field {name or number} is of the kind {kind}")
            value: int | memoryview
            if kind == _VARINT:
                value, position = _varint(message, position)
            else:
                value, position = _bytes(message, position, kind)
            if name:
                yield name, value


def _bytes(message: memoryview, position: int, kind: int) -> tuple[memoryview, int]:
    """The bytes of a value, and the position behind it."""
    size = _FIXED.get(kind)
    if size is None:
        size, position = _varint(message, position)
    if size > len(message) - position:
        raise _MalformedError("it ends in the middle of a field")
    return message[position : position + size], position + size


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    """A number of seven bits a byte, lowest first, and the position behind it."""
    value = 0
    for shift in range(0, 70, 7):
        if position == len(message):
            raise _MalformedError("it ends in the middle of a number")
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise _MalformedError("a number has more than ten bytes")


def _signed(value: int) -> int:
    """The 64 bits of a varint as a number that may be negative."""
    value %= 1 << 64
    return value - (1 << 64) if value >> 63 else value
