import tracemalloc
from pathlib import Path

import pytest
from tests.weights.caffe_networks import NAMES, prototxt
from tests.weights.mutations import mutations

from senet.errors import WeightsError
from senet.weights.prototxt import PrototxtLayer, read_prototxt


def _read(folder: Path, text: str) -> tuple[PrototxtLayer, ...]:
    (folder / "a.prototxt").write_text(text, encoding="utf-8")
    return read_prototxt(str(folder / "a.prototxt"))


def test_every_form_of_the_format(tmp_path: Path) -> None:
    (layer,) = _read(
        tmp_path,
        """
        name: 'net' # a comment with { and "
        layer {
          name: "a" 'b' type: "\\"Con\\tv\\\\'", bottom: "x" top: ["y", 'z'];
          message { dim: 1 dim: 2 } message: < dim: [3] > other {}
          whole: -12 hex: 0x1F decimal: 1.5e-3 suffix: 1.f point: .5 many: [1, 2,3] none: []
          on: true off: False kind: MAX messages: [{ a: 1 }, < a: 2 >]
        }
        """,
    )
    assert (layer.name, layer.type) == ("ab", "\"Con\tv\\'")
    assert (layer.bottoms, layer.tops) == (("x",), ("y", "z"))
    assert layer.parameters == {
        "message": ({"dim": (1, 2)}, {"dim": (3,)}),
        "other": ({},),
        "whole": (-12,),
        "hex": (31,),
        "decimal": (0.0015,),
        "suffix": (1.0,),
        "point": (0.5,),
        "many": (1, 2, 3),
        "none": (),
        "on": (True,),
        "off": (False,),
        "kind": ("MAX",),
        "messages": ({"a": (1,)}, {"a": (2,)}),
    }
    assert type(layer.get("suffix")) is float
    assert type(layer.get("whole")) is int
    assert layer.values("message.dim") == (1, 2, 3)
    assert layer.get("message.dim") == 3
    assert layer.get("message.pad", 7) == layer.get("whole.pad", 7) == layer.get("none", 7) == 7


def test_layers_in_their_order(tmp_path: Path) -> None:
    layers = _read(tmp_path, prototxt("SE-ResNet-50"))
    assert len(layers) == 309
    assert layers[0] == PrototxtLayer(
        "data", "Input", (), ("data",), {"input_param": ({"shape": ({"dim": (1, 3, 224, 224)},)},)}
    )
    assert layers[1].get("convolution_param.bias_term") is False
    assert [layer.name for layer in layers[-3:]] == ["pool5/7x7_s1", "classifier", "prob"]
    (axpy,) = (layer for layer in layers if layer.name == "conv3_1")
    assert axpy.bottoms == ("conv3_1_1x1_up", "conv3_1_1x1_increase", "conv3_1_1x1_proj")


@pytest.mark.parametrize(
    "text",
    [
        'input: "a" input: "b" input_dim: [1, 3, 8, 8] input_dim: 2 input_dim: 4 input_dim: 5 input_dim: 6',
        'input: "a" input: "b" input_shape { dim: 1 dim: 3 dim: 8 dim: 8 } input_shape { dim: [2, 4, 5, 6] }',
    ],
)
def test_inputs_of_old_become_a_layer(tmp_path: Path, text: str) -> None:
    first, second = _read(tmp_path, f'layer {{ name: "c" type: "ReLU" }} {text}')
    assert (first.name, first.type, first.tops, second.name) == ("input", "Input", ("a", "b"), "c")
    assert [shape["dim"] for shape in first.values("input_param.shape")] == [(1, 3, 8, 8), (2, 4, 5, 6)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "it has no layer"),
        ('name: "net"', "it has no layer"),
        ('layer { name: "a"\n type: "b"', "line 2: the end of the file is not the name of a field"),
        ('layer { name: "a\n type: "b" }', "line 1: '\"' is not a value"),
        ("layer {\n\n name: @ }", "line 3: '@' is not a value"),
        ('layer { name: "a" type: "\\x41" }', "is not a value"),
        ('layer { name "a" }', "is not a colon or {"),
        ('layer { name: "a" type: "b" } }', "line 1: '}' is not the name of a field"),
        ('layer { name: "a" type: "b" >', "line 1: '>' is not the name of a field"),
        ('layer { name: "a" type: "b" n: [1 2] }', "line 1: '2' is not a comma or ]"),
        ('layer { name: "a" type: "b" n: [1, ] }', "line 1: ']' is not a value"),
        ('layer { name: "a" type: "b" n: 017 }', "line 1: '17' is not the name of a field"),
        ("layer { n: " + 5000 * "9" + " }", "is not a value"),
        ("# c\r\nlayer: 5", "line 2: a layer is no message"),
        ('\nlayer { type: "b" }', "line 2: a layer has no name or no type"),
        ("layer { name: 5 type: 6 }", "line 1: a layer's name, type, bottom or top is no word"),
        ("layers { name: 'a' type: CONVOLUTION }", "line 1: this is Caffe's first format, V1LayerParameter"),
        ("a {" * 1000, "nest more than 32 deep"),
        ("<!DOCTYPE html>", "line 1: '<' is not the name of a field"),
        ("a: 1 " * 200_000, "it has more than 500,000 words"),
        (" " * 10_000_001, "it has more than 10,000,000 bytes"),
    ],
    ids=range(21),
)
def test_what_is_no_network(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(WeightsError) as caught:
        _read(tmp_path, text)
    assert words in str(caught.value)
    assert str(tmp_path / "a.prototxt") in str(caught.value)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "content", [b'name: "' + b"\\n" * 1_000_000, b"a: " + b"-" * 4_000_000, b"# \n" * 1_000_000], ids=len
)
def test_long_texts_take_little(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.prototxt").write_bytes(content)
    tracemalloc.start()
    with pytest.raises(WeightsError):
        read_prototxt(tmp_path / "a.prototxt")
    assert tracemalloc.get_traced_memory()[1] < 20 * len(content)
    tracemalloc.stop()


def test_what_is_no_text_file(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none", "/dev/zero", "a\0b"):
        with pytest.raises(WeightsError, match="there is no such file"):
            read_prototxt(path)
    (tmp_path / "a.prototxt").write_bytes(b"\xff\xfe")
    with pytest.raises(WeightsError, match=r"a\.prototxt.*cannot be read as text"):
        read_prototxt(tmp_path / "a.prototxt")


def test_damaged_files_are_read_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.prototxt"
    whole = "".join(prototxt("SE-BN-Inception").partition("pool1")[:2]).encode() + b'" type: "Pooling" }'
    refused = []
    for content in mutations(whole, 2000):
        path.write_bytes(content)
        try:
            layers = read_prototxt(path)
        except WeightsError as error:
            refused.append(str(error))
        else:
            assert all(isinstance(layer.name, str) and isinstance(layer.tops, tuple) for layer in layers)
    assert 1000 < len(refused) < 1950
    assert all(str(path) in message for message in refused)


@pytest.mark.parametrize(("name", "count"), [*zip(NAMES, (309, 615, 921, 309, 615, 930, 372), strict=True)])
def test_the_released_networks(tmp_path: Path, name: str, count: int) -> None:
    layers = _read(tmp_path, prototxt(name))
    assert len(layers) == len({layer.name for layer in layers}) == count
    given: set[str] = set()
    for layer in layers:
        assert set(layer.bottoms) <= given
        given |= set(layer.tops)
