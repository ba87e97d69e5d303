"""``.caffemodel`` files written by Google's protobuf: the independent side of the reader's tests.

The schema is made at run time, without a compiler: the fields of ``caffe.proto`` that hold weights.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory  # type: ignore[import-untyped]
from numpy.typing import NDArray

_Field = descriptor_pb2.FieldDescriptorProto

# message: {field: (number, type, repeated, packed)}, as in caffe.proto of BVLC/caffe.
_MESSAGES: dict[str, dict[str, tuple[int, Any, bool, bool]]] = {
    "BlobShape": {"dim": (1, _Field.TYPE_INT64, True, True)},
    "BlobProto": {
        "num": (1, _Field.TYPE_INT32, False, False),
        "channels": (2, _Field.TYPE_INT32, False, False),
        "height": (3, _Field.TYPE_INT32, False, False),
        "width": (4, _Field.TYPE_INT32, False, False),
        "data": (5, _Field.TYPE_FLOAT, True, True),
        "diff": (6, _Field.TYPE_FLOAT, True, True),
        "shape": (7, "BlobShape", False, False),
        "double_data": (8, _Field.TYPE_DOUBLE, True, True),
        "double_diff": (9, _Field.TYPE_DOUBLE, True, True),
    },
    "LayerParameter": {
        "name": (1, _Field.TYPE_STRING, False, False),
        "type": (2, _Field.TYPE_STRING, False, False),
        "bottom": (3, _Field.TYPE_STRING, True, False),
        "top": (4, _Field.TYPE_STRING, True, False),
        "blobs": (7, "BlobProto", True, False),
        "phase": (10, _Field.TYPE_INT32, False, False),
    },
    "V1LayerParameter": {
        "bottom": (2, _Field.TYPE_STRING, True, False),
        "name": (4, _Field.TYPE_STRING, False, False),
        "blobs": (6, "BlobProto", True, False),
    },
    "NetParameter": {
        "name": (1, _Field.TYPE_STRING, False, False),
        "layers": (2, "V1LayerParameter", True, False),
        "layer": (100, "LayerParameter", True, False),
    },
}


def messages(*, packed: bool = True) -> dict[str, Any]:
    """The message classes by name; ``packed=False`` writes each number with a key of its own."""
    package = f"caffe_{'packed' if packed else 'unpacked'}"
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto2")
    for message, fields in _MESSAGES.items():
        described = file.message_type.add(name=message)
        for name, (number, kind, repeated, is_packed) in fields.items():
            field = described.field.add(name=name, number=number)
            field.label = _Field.LABEL_REPEATED if repeated else _Field.LABEL_OPTIONAL
            if isinstance(kind, str):
                field.type, field.type_name = _Field.TYPE_MESSAGE, f".{package}.{kind}"
            else:
                field.type = kind
            if is_packed:
                field.options.packed = packed
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}"))
        for name in _MESSAGES
    }


def network(
    layers: Iterable[tuple[str, str, Iterable[NDArray[Any]]]],
    *,
    packed: bool = True,
    legacy: bool = False,
    double: bool = False,
) -> Any:
    """A NetParameter message.

    Args:
        layers: name, type and blobs of each; a layer without blobs stands in the file too.
        packed: whether the numbers of an array are one value.
        legacy: whether shapes are num, channels, height and width, padded with ones from the left.
        double: whether the weights are written as doubles.
    """
    message = messages(packed=packed)["NetParameter"](name="net")
    for name, kind, blobs in layers:
        layer = message.layer.add(name=name, type=kind, bottom=["data"], top=[name], phase=1)
        for blob in blobs:
            written = layer.blobs.add()
            if legacy:
                extents = (1,) * (4 - blob.ndim) + blob.shape
                written.num, written.channels, written.height, written.width = extents
            else:
                written.shape.dim.extend(blob.shape)
            (written.double_data if double else written.data).extend(np.asarray(blob).ravel().tolist())
    return message


def write_caffemodel(
    path: str | Path, layers: Iterable[tuple[str, str, Iterable[NDArray[Any]]]], **options: bool
) -> None:
    """Writes a ``.caffemodel``; arguments as of ``network``."""
    Path(path).write_bytes(network(layers, **options).SerializeToString())
