import contextlib
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tests.weights.caffe_schema import messages, network, write_caffemodel
from tests.weights.mutations import mutations

from senet.errors import WeightsError
from senet.weights.caffemodel import CaffeLayer, read_caffemodel

Layers = list[tuple[str, str, list[NDArray[Any]]]]


def _layers() -> Layers:
    rng = np.random.default_rng(0)
    return [
        ("data", "Input", []),
        ("conv1/7x7_s2", "Convolution", [rng.standard_normal((4, 3, 2, 2)), rng.standard_normal(4)]),
        ("relu", "ReLU", []),
        ("a/bn", "BatchNorm", [rng.standard_normal(4), rng.standard_normal(4), np.array([999.98])]),
        ("Ω", "InnerProduct", [rng.standard_normal((2, 4))]),
    ]


def _key(number: int, kind: int) -> bytes:
    return _varint(number << 3 | kind)


def _varint(value: int) -> bytes:
    rest, low = value >> 7, value & 0x7F
    return bytes([low | 0x80]) + _varint(rest) if rest else bytes([low])


def _message(number: int, *content: bytes) -> bytes:
    whole = b"".join(content)
    return _key(number, 2) + _varint(len(whole)) + whole


def _layer(*blob: bytes, name: bytes = b"a") -> bytes:
    return _message(100, _message(1, name), _message(2, b"Convolution"), _message(7, *blob))


def _shape(*dims: int) -> bytes:
    return _message(7, _message(1, *map(_varint, dims)))


ONE = _message(5, np.ones(1, "<f4").tobytes())


def _check_equal(read: dict[str, CaffeLayer], written: Layers, ndim: int | None = None) -> None:
    with_weights = [layer for layer in written if layer[2]]
    assert [(layer.name, layer.type) for layer in read.values()] == [layer[:2] for layer in with_weights]
    assert list(read) == [layer[0] for layer in with_weights]
    for layer, (_, _, blobs) in zip(read.values(), with_weights, strict=True):
        for found, blob in zip(layer.blobs, blobs, strict=True):
            shape = blob.shape if ndim is None else (1,) * (ndim - blob.ndim) + blob.shape
            assert found.shape == shape
            assert found.dtype == np.float32
            assert np.array_equal(found.ravel(), blob.ravel().astype(np.float32))


@pytest.mark.parametrize(
    "options", [{}, {"packed": False}, {"legacy": True}, {"double": True}, {"double": True, "packed": False}]
)
def test_what_protobuf_writes_is_read(tmp_path: Path, options: dict[str, bool]) -> None:
    write_caffemodel(tmp_path / "a.caffemodel", _layers(), **options)
    read = read_caffemodel(str(tmp_path / "a.caffemodel"))
    _check_equal(read, _layers(), 4 if options.get("legacy") else None)


def test_arrays_are_views_of_a_private_copy(tmp_path: Path) -> None:
    path = tmp_path / "a.caffemodel"
    weight = np.arange(2_000_000, dtype=np.float32).reshape(1000, 2000)
    sizes = {"": 2000, "a": 1, "ab": 2, "abc": 3}
    write_caffemodel(path, [(name, "InnerProduct", [weight[:, :size]]) for name, size in sizes.items()])
    whole = path.read_bytes()
    tracemalloc.start()
    read = read_caffemodel(path)
    assert tracemalloc.get_traced_memory()[1] < 200_000
    tracemalloc.stop()
    # Nothing aligns them, and torch takes them as they are.
    assert not all(layer.blobs[0].flags.aligned for layer in read.values())
    for name, size in sizes.items():
        tensor = torch.from_numpy(read[name].blobs[0])
        assert torch.equal(tensor, torch.from_numpy(weight[:, :size].copy()))
        x = torch.randn(3, size)
        assert torch.equal(
            torch.nn.functional.linear(x, tensor), torch.nn.functional.linear(x, tensor.clone())
        )
        tensor.zero_()
        assert not read[name].blobs[0].any()
    assert path.read_bytes() == whole


def test_pieces_are_put_together(tmp_path: Path) -> None:
    path = tmp_path / "a.caffemodel"
    rest = np.arange(2, 5, dtype="<f4")
    data = ONE + _key(5, 5) + rest[:1].tobytes() + _message(5) + _message(5, rest[1:].tobytes())
    dims = _message(7, _key(1, 0), _varint(2)) + _shape(1, 2)
    # A name is the last one given; unknown fields of every kind are stepped over.
    unknown = _key(50, 0) + b"\x01" + _key(51, 1) + 8 * b"x" + _message(52, b"abc") + _key(53, 5) + 4 * b"x"
    layer = _message(100, _message(1, b"b"), unknown, _message(7, data, unknown, dims), _message(1, b"a"))
    path.write_bytes(unknown + layer)
    (read,) = read_caffemodel(path).values()
    assert (read.name, read.type) == ("a", "")
    assert read.blobs[0].tolist() == [[[1, 2]], [[3, 4]]]
    read.blobs[0][:] = 0  # What was put together is writable too.


def test_doubles_that_no_float_holds(tmp_path: Path) -> None:
    # Too large, in reach, and a NaN that signals.
    values = np.array([1e300, 0.1]).tobytes() + b"\x01\0\0\0\0\0\xf0\x7f"
    (tmp_path / "a.caffemodel").write_bytes(_layer(_shape(3), _message(8, values)))
    (blob,) = read_caffemodel(tmp_path / "a.caffemodel")["a"].blobs
    assert np.array_equal(blob, np.array([np.inf, 0.1, np.nan], np.float32), equal_nan=True)


@pytest.mark.parametrize(
    ("content", "words"),
    {
        "empty": (b"", "cannot be read"),
        "no weights": (_message(1, b"net"), "no layer has weights"),
        "cut in a layer": (_layer(_shape(1), ONE)[:-1], "ends in the middle of a field"),
        "cut in a number": (_layer(ONE) + b"\xa2", "ends in the middle of a number"),
        "past the end": (_key(100, 2) + _varint(2**63) + b"abc", "ends in the middle of a field"),
        "endless number": (b"\xff" * 20, "more than ten bytes"),
        "field 0": (b"\x00" * 20, "field 0"),
        "group": (_key(100, 3) * 1000 + _key(100, 4) * 1000, "field layer is of the kind 3"),
        "unknown group": (_key(99, 3) + _key(99, 4), "field 99 is of the kind 3"),
        "number for a message": (_key(100, 0) + b"\x01", "field layer is of the kind 0"),
        "shape of 2^62": (_layer(_shape(2**62), ONE), r"layer 'a': its shape is \(4611686018427387904,\)"),
        "shape of 2^62 each": (_layer(_shape(*[2**62] * 32), ONE), "it has 1 values"),
        "negative": (_layer(_shape(2**64 - 1, 2**64 - 1), ONE), r"its shape is \(-1, -1\)"),
        "zero": (_layer(_shape(0, 2**62)), r"its shape is \(0, 4611686018427387904\)"),
        "too few values": (_layer(_shape(2, 3), ONE), r"its shape is \(2, 3\), and it has 1 values"),
        "no values": (_layer(_shape(2, 3)), r"its shape is \(2, 3\), and it has 0 values"),
        "half a value": (_layer(_shape(1), _message(5, b"abc")), "ends in the middle of a number"),
        "no shape": (_layer(_message(5, bytes(8))), r"its shape is \(\), and it has 2 values"),
        "many axes": (_layer(_shape(*[1] * 1_000_000), ONE), "more than 32 axes"),
        "many shapes": (_layer(_shape(1) * 100, ONE), "more than 32 axes"),
        "legacy": (_layer(_key(1, 0) + _varint(2**64 - 1), ONE), r"its shape is \(-1, 0, 0, 0\)"),
        "two of a name": (_layer(ONE) + _layer(ONE), "two layers are named 'a'"),
        "no UTF-8": (_layer(ONE, name=b"\xff\xfe"), "a name is no UTF-8"),
        "long name": (_layer(ONE, name=b"n" * 5_000_000), "a name has 5,000,000 bytes"),
        "web page": (b"\n<!DOCTYPE html><html>", "this is a web page"),
        "git-lfs": (b"version https://git-lfs.github.com/spec/v1\n", "this is a pointer of git-lfs"),
        "prototxt": (b'name: "SE-ResNet-50"\n', r"this is text, as of a \.prototxt"),
        "HDF5": (b"\x89HDF\r\n\x1a\n", "HDF5"),
        "zip": (b"PK\x03\x04\x14\x00", "a zip archive"),
        "gzip": (b"\x1f\x8b\x08", "compressed with gzip"),
    }.values(),
)
def test_what_is_no_caffemodel(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "the file.caffemodel"
    path.write_bytes(content)
    tracemalloc.start()
    start = time.perf_counter()
    with pytest.raises(WeightsError, match=words) as caught:
        read_caffemodel(path)
    took, peak = time.perf_counter() - start, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 2000
    assert peak < 4_000_000
    assert took < 1  # A tenth of a millisecond on an idle machine.


def test_nesting_is_not_followed(tmp_path: Path) -> None:
    path = tmp_path / "a.caffemodel"
    for number in (7, 100):
        deep = b""
        for _ in range(1000):
            deep = _message(number, deep)
        path.write_bytes(_message(100, deep) if number == 7 else deep)
        with pytest.raises(WeightsError, match=r"it has 0 values|no layer has weights"):
            read_caffemodel(path)


@pytest.mark.parametrize(
    "content", [_message(100) * 400_000, _layer(ONE * 400_000)], ids=["layers", "pieces of data"]
)
def test_a_file_of_crumbs_ends_soon(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.caffemodel"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"more than 300,000 fields"):
        read_caffemodel(path)


def test_the_first_format(tmp_path: Path) -> None:
    message = messages()["NetParameter"](name="net")
    message.layers.add(name="conv1")
    (tmp_path / "a.caffemodel").write_bytes(message.SerializeToString())
    with pytest.raises(WeightsError, match=r"a\.caffemodel.*V1LayerParameter.*upgrade_net_proto_binary"):
        read_caffemodel(tmp_path / "a.caffemodel")


def test_what_is_no_file(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none", "/dev/zero", "a\0b"):
        with pytest.raises(WeightsError, match="there is no such file"):
            read_caffemodel(path)


def test_every_cut_is_seen_but_between_layers(tmp_path: Path) -> None:
    path = tmp_path / "a.caffemodel"
    whole = network(_layers()).SerializeToString()
    layers = []
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with contextlib.suppress(WeightsError):
            layers.append(len(read_caffemodel(path)))
    assert layers == [1, 1, 2]


def test_damaged_files_are_refused_or_read_as_protobuf_reads_them(tmp_path: Path) -> None:
    path = tmp_path / "a.caffemodel"
    whole = network(_layers()).SerializeToString()
    net = messages()["NetParameter"]
    refused = []
    for content in mutations(whole, 2000):
        path.write_bytes(content)
        try:
            layers = read_caffemodel(path)
        except WeightsError as error:
            refused.append(str(error))
            continue
        theirs = {layer.name: layer for layer in net.FromString(content).layer if layer.blobs}
        assert layers.keys() == theirs.keys()
        for name, layer in layers.items():
            assert layer.type == theirs[name].type
            for ours, blob in zip(layer.blobs, theirs[name].blobs, strict=True):
                values = blob.double_data or blob.data
                with np.errstate(over="ignore"):
                    assert np.array_equal(ours.ravel(), np.array(values, np.float32), equal_nan=True)
    assert 1000 < len(refused) < 1900
    assert all(str(path) in message for message in refused)
