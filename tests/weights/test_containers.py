import argparse
import os
import pickle
import random
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.weights.caffe_schema import write_caffemodel
from torch import nn

import senet
from senet import weights
from senet.errors import WeightsError
from senet.weights.containers import open_weights

STATE = {"conv.weight": torch.randn(4, 3, 2, 2), "conv.bias": torch.randn(4), "steps": torch.tensor(3)}


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize(
    "wrapped",
    [
        lambda state: state,
        lambda state: OrderedDict(state),
        lambda state: {"epoch": 3, "state_dict": state, "optimizer": {"lr": 0.1}},
        lambda state: {"model": {f"module.{key}": value for key, value in state.items()}},
        lambda state: {f"module._orig_mod.{key}": value for key, value in state.items()},
        lambda state: {key: torch.nn.Parameter(value, False) for key, value in state.items()},
    ],
)
def test_state_dicts_as_people_save_them(tmp_path: Path, wrapped: Any, legacy: bool) -> None:
    # The name says nothing of the kind.
    path = tmp_path / "weights.bin"
    torch.save(wrapped(STATE), path, _use_new_zipfile_serialization=not legacy)
    found = open_weights(path)
    assert (found.kind, found.header) == ("pytorch", None)
    assert found.tensors.keys() == STATE.keys()
    assert all(torch.equal(found.tensors[key], value) for key, value in STATE.items())


def test_a_run_folder_and_a_renamed_file_of_ours(tmp_path: Path) -> None:
    model = senet.build("se_resnet20")
    weights.save(model, tmp_path / weights.LAST)
    assert open_weights(tmp_path).kind == "safetensors"
    (tmp_path / weights.LAST).rename(tmp_path / "weights.pth")
    found = open_weights(tmp_path / "weights.pth")
    assert found.header is not None
    assert found.header["network"]["name"] == "se_resnet20"


def test_layers_of_caffe_have_the_names_of_pytorch(tmp_path: Path) -> None:
    path = tmp_path / "w.caffemodel"
    blobs = {
        "conv": ("Convolution", [torch.randn(4, 3, 2, 2), torch.randn(4)]),
        # The statistics are sums; the factor divides them.
        "conv/bn": ("BatchNorm", [torch.full((4,), 6.0), torch.full((4,), 9.0), torch.tensor([3.0])]),
        "zero/bn": ("BatchNorm", [torch.full((4,), 6.0), torch.full((4,), 9.0), torch.tensor([0.0])]),
        "conv/bn/scale": ("Scale", [torch.randn(4), torch.randn(4)]),
        # As before there were shapes: always four dimensions.
        "fc": ("InnerProduct", [torch.randn(1, 1, 2, 4), torch.randn(1, 1, 1, 2)]),
    }
    layers = [(name, kind, [blob.numpy() for blob in each]) for name, (kind, each) in blobs.items()]
    write_caffemodel(path, layers)
    found = open_weights(path).tensors
    assert torch.equal(found["conv.weight"], blobs["conv"][1][0])
    assert torch.equal(found["conv/bn/scale.bias"], blobs["conv/bn/scale"][1][1])
    assert found["conv/bn.running_mean"].tolist() == [2] * 4
    assert found["conv/bn.running_var"].tolist() == [3] * 4
    assert found["zero/bn.running_var"].tolist() == [0] * 4
    assert torch.equal(found["fc.weight"], blobs["fc"][1][0][0, 0])
    assert torch.equal(found["fc.bias"], blobs["fc"][1][1].flatten())


@pytest.mark.parametrize(
    ("kind", "blobs", "words"),
    [
        ("PReLU", [(4,)], "type 'PReLU' has 1 blobs"),
        ("Convolution", [(4, 3, 2, 2), (4,), (4,)], "has 3 blobs"),
        ("BatchNorm", [(4,), (4,)], "mean, variance and one factor"),
        ("BatchNorm", [(4,), (4,), (4,)], "mean, variance and one factor"),
    ],
)
def test_layers_that_no_network_of_ours_has(
    tmp_path: Path, kind: str, blobs: list[tuple[int, ...]], words: str
) -> None:
    path = tmp_path / "w.caffemodel"
    write_caffemodel(path, [("layer", kind, [np.ones(shape, np.float32) for shape in blobs])])
    with pytest.raises(WeightsError, match=words):
        open_weights(path)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("w.pth", b"", "the file is empty"),
        ("w.safetensors", b"", "no whole safetensors file"),
        ("w.pth", b"<!DOCTYPE html><html>", "looks like a page"),
        ("w.bin", b"version https://git-lfs.github.com/spec/v1\noid", "a pointer"),
        ("w.pth", b"\x00\x01\x02\x03" * 9, "as no weights do"),
        ("w.pth", b"PK\x03\x04 and nothing more", "PyTorch reads no weights"),
        ("w.pth", b"\x80\x02 and nothing more", "PyTorch reads no weights"),
    ],
)
def test_files_that_are_something_else(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=words) as error:
        open_weights(tmp_path / name)
    assert name in str(error.value)


def test_of_a_pickled_network_the_class_is_named(tmp_path: Path) -> None:
    torch.save(nn.Sequential(nn.Linear(2, 2)), tmp_path / "w.pth")
    with pytest.raises(
        WeightsError, match=r"it holds torch\.nn\.modules\.container\.Sequential, which"
    ) as error:
        open_weights(tmp_path / "w.pth")
    assert "save its state dict" in str(error.value)
    assert str(error.value).isprintable()


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"there is no file w\.pth"):
        open_weights(tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"there is no file last\.safetensors in the folder"):
        open_weights(tmp_path)


@pytest.mark.parametrize(
    ("saved", "words"),
    [
        ([1, 2], "it holds a list"),
        ({}, "it holds a dict"),
        ({"a": 1}, "'a' is a int, not a tensor"),
        ({1: torch.ones(2)}, "'1' is no name of a tensor"),
        ({"a": torch.ones(2, device="meta")}, "has no data"),
        ({"a": torch.ones(2).to_sparse()}, "sparse or quantized"),
        # 4 bytes in the file, 4 TB in memory.
        ({"a": torch.ones(1).expand(1 << 40)}, "larger than what is stored"),
        (torch.nn.Linear(2, 2), "save its state dict"),
    ],
)
def test_what_is_no_state_dict(tmp_path: Path, saved: Any, words: str) -> None:
    torch.save(saved, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=words):
        open_weights(tmp_path / "w.pth")


def test_a_packed_archive_is_refused(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "w.pth")
    with (
        zipfile.ZipFile(tmp_path / "w.pth") as plain,
        zipfile.ZipFile(tmp_path / "packed.pth", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    with pytest.raises(WeightsError, match="the archive is compressed"):
        open_weights(tmp_path / "packed.pth")


class Gadget:
    """Pickles as a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def gadgets(flag: Path) -> dict[str, Any]:
    touch = f"open({str(flag)!r}, 'w').close()"
    return {
        "os.system": Gadget(os.system, f"touch {flag}"),
        "os.popen": Gadget(os.popen, f"touch {flag}"),
        "os.mkdir": Gadget(os.mkdir, str(flag)),
        "eval": Gadget(eval, touch),
        "exec": Gadget(exec, touch),
        "open": Gadget(open, str(flag), "w"),
        "compile": Gadget(compile, touch, "", "exec"),
        "getattr": Gadget(getattr, Gadget(__import__, "os"), "system"),
        "import": Gadget(__import__, "this"),
        "Path.touch": Gadget(Path.touch, flag),
        "nested": {"state_dict": {"w": Gadget(os.system, f"touch {flag}")}},
        "torch.load": Gadget(torch.load, str(flag)),
        "module": torch.nn.Sequential(torch.nn.Linear(1, 1)),
        "namespace": argparse.Namespace(w=Gadget(os.system, f"touch {flag}")),
    }


@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle"])
@pytest.mark.parametrize("name", list(gadgets(Path())))
def test_no_file_is_executed(tmp_path: Path, name: str, kind: str) -> None:
    """Bar R13."""
    flag, path = tmp_path / "executed", tmp_path / "w.pth"
    saved = {"w": torch.ones(2), "hostile": gadgets(flag)[name]}
    if kind == "pickle":
        path.write_bytes(pickle.dumps(saved["hostile"]))
    else:
        torch.save(saved, path, _use_new_zipfile_serialization=kind == "zip")
    for loader in (
        lambda: senet.load(path),
        lambda: senet.build("resnet18", weights=path),
        lambda: weights.load(torch.nn.Linear(1, 1), path),
        lambda: weights.recognise(path),
    ):
        with pytest.raises(WeightsError, match=r"w\.pth"):
            loader()
    assert not flag.exists()


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_a_damaged_file_ends_in_an_error_that_names_it(tmp_path: Path, kind: str) -> None:
    """Bar R12, on a small file: 2,000 mutations, and nothing but the weights or a WeightsError."""
    whole = tmp_path / "whole"
    if kind == "safetensors":
        weights.save(torch.nn.Conv2d(3, 4, 2), whole)
    else:
        torch.save(STATE, whole, _use_new_zipfile_serialization=kind == "zip")
    content = whole.read_bytes()
    random.seed(0)
    path = tmp_path / "mutated.bin"
    refused = whole_enough = 0
    for _ in range(2_000):
        path.write_bytes(mutated(content))
        try:
            open_weights(path)
        except WeightsError as error:
            refused += "mutated.bin" in str(error)
        else:
            whole_enough += 1
    assert refused + whole_enough == 2_000
    assert refused > 300


def mutated(content: bytes) -> bytes:
    data = bytearray(content)
    kind = random.randrange(4)
    place = random.randrange(len(data))
    if kind == 0:
        del data[place:]
    elif kind == 1:
        del data[place : place + random.randrange(1, 9)]
    else:
        for _ in range(random.randrange(1, 9)):
            place = random.randrange(len(data))
            data[place] = random.randrange(256) if kind == 2 else data[place] ^ 1 << random.randrange(8)
    return bytes(data)
