"""The interpreter against what Caffe's layers compute, by hand; it judges what is imported from Caffe."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.weights.caffe_interpreter import Arrays, random_blobs, run
from tests.weights.caffe_networks import NAMES, prototxt
from tests.weights.caffe_opencv import run_in
from tests.weights.caffe_schema import write_caffemodel
from torch import Tensor

from senet.weights.caffemodel import read_caffemodel
from senet.weights.prototxt import read_prototxt

# BGR-like planes of 1 image: channel 0 is 0..5 in 2 rows, channel 1 is ten times that.
X = torch.arange(6.0).reshape(1, 1, 2, 3) * torch.tensor([1.0, 10.0]).reshape(1, 2, 1, 1)


def _run(folder: Path, text: str, blobs: Arrays | None = None, x: Tensor = X) -> Tensor:
    (folder / "a.prototxt").write_text('layer { name: "x" type: "Input" top: "x" }' + text)
    (result,) = run(read_prototxt(folder / "a.prototxt"), blobs or {}, x).values()
    assert result.dtype == torch.float64
    return result


def _layer(kind: str, options: str = "", bottoms: str = 'bottom: "x"') -> str:
    return f'layer {{ name: "y" type: "{kind}" {bottoms} top: "y" {options} }}'


def test_convolution(tmp_path: Path) -> None:
    weight = np.array([[[[1.0, 2.0]]], [[[3.0, 0.0]]]])
    options = (
        "convolution_param { num_output: 2 group: 2 kernel_h: 1 kernel_w: 2 stride: 2 pad_w: 1 pad_h: 0 }"
    )
    y = _run(tmp_path, _layer("Convolution", options), {"y": [weight, np.array([[[[100.0, 0.0]]]])]})
    assert y.tolist() == [[[[100, 105]], [[0, 30]]]]


def test_batch_norm_divides_its_statistics_by_the_factor(tmp_path: Path) -> None:
    options = "batch_norm_param { use_global_stats: true eps: 1 }"
    blobs = {"y": [np.array([4.0, 20.0]), np.array([12.0, 32.0]), np.array([4.0])]}
    y = _run(tmp_path, _layer("BatchNorm", options), blobs)
    assert y[0, 0].tolist() == [[-0.5, 0, 0.5], [1, 1.5, 2]]
    assert torch.equal(y[0, 1], (X[0, 1] - 5).double() / 3)
    # Statistics that were never taken have the factor 0, and count as 0.
    y = _run(tmp_path, _layer("BatchNorm", options), {"y": [*blobs["y"][:2], np.array([0.0])]})
    assert torch.equal(y, X.double())
    y = _run(tmp_path, _layer("BatchNorm"), {"y": [np.zeros(2), np.zeros(2), np.ones(1)]})
    torch.testing.assert_close(y, X.double() / 1e-5**0.5)


def test_scale(tmp_path: Path) -> None:
    y = _run(
        tmp_path, _layer("Scale", "scale_param { bias_term: true }"), {"y": [np.array([2, 3]), np.ones(2)]}
    )
    assert torch.equal(y, X.double() * torch.tensor([2, 3]).reshape(1, 2, 1, 1) + 1)
    images = torch.cat([X, X])
    gates = (
        _layer("Pooling", "pooling_param { pool: AVE global_pooling: true }")
        + 'layer { name: "r" type: "Reshape" bottom: "y" top: "r" reshape_param { shape { dim: 0 dim: 0 } } }'
        + 'layer { name: "s" type: "Scale" bottom: "x" bottom: "r" top: "s" scale_param { axis: 0 } }'
    )
    assert torch.equal(
        _run(tmp_path, gates, x=images), images.double() * torch.tensor([2.5, 25]).reshape(1, 2, 1, 1)
    )


def test_pooling_counts_windows_that_hang_over(tmp_path: Path) -> None:
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    y = _run(tmp_path, _layer("Pooling", "pooling_param { pool: MAX kernel_size: 3 stride: 2 }"), x=x)
    assert y.tolist() == [[[[10, 11], [14, 15]]]]
    y = _run(tmp_path, _layer("Pooling", "pooling_param { pool: AVE kernel_size: 3 stride: 2 }"), x=x)
    assert y.tolist() == [[[[5, 6.5], [11, 12.5]]]]


def test_pooling_pads(tmp_path: Path) -> None:
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    # An average counts the padding, but not what lies behind it: windows of 9, 9 and 6 places.
    y = _run(tmp_path, _layer("Pooling", "pooling_param { pool: AVE kernel_size: 3 stride: 2 pad: 1 }"), x=x)
    assert y.shape == (1, 1, 3, 3)
    assert y[0, 0, 0].tolist() == pytest.approx([10 / 9, 24 / 9, 10 / 6])
    assert y[0, 0, 2, 2] == 15 / 4
    # A maximum never takes it.
    y = _run(tmp_path, _layer("Pooling", "pooling_param { kernel_size: 3 stride: 1 pad: 1 }"), x=x - 100)
    assert y[0, 0, 0].tolist() == [-95, -94, -93, -93]
    # A last window that would start in the padding is left out.
    y = _run(
        tmp_path, _layer("Pooling", "pooling_param { kernel_size: 2 stride: 2 pad: 1 }"), x=x[:, :, :3, :3]
    )
    assert y.tolist() == [[[[0, 2], [8, 10]]]]


def test_layers_without_weights(tmp_path: Path) -> None:
    x = X.double()
    assert torch.equal(_run(tmp_path, _layer("ReLU"), x=X - 3), (x - 3).clamp(min=0))
    y = _run(tmp_path, _layer("ReLU", "relu_param { negative_slope: 0.5 }"), x=X - 3)
    assert y[0, 0].tolist() == [[-1.5, -1, -0.5], [0, 1, 2]]
    assert torch.equal(_run(tmp_path, _layer("Sigmoid")), 1 / (1 + torch.exp(-x)))
    torch.testing.assert_close(_run(tmp_path, _layer("Softmax")), x.exp() / x.exp().sum(1, keepdim=True))
    assert torch.equal(_run(tmp_path, _layer("Dropout", "dropout_param { dropout_ratio: 0.2 }")), x)
    assert _run(tmp_path, _layer("Flatten")).tolist() == [X.flatten().tolist()]
    assert _run(tmp_path, _layer("Reshape", "reshape_param { shape { dim: 0 dim: 3 dim: -1 } }")).shape == (
        1,
        3,
        4,
    )


def test_inner_product(tmp_path: Path) -> None:
    weight = np.arange(24.0).reshape(1, 1, 2, 12)  # As files of old shape it.
    y = _run(
        tmp_path,
        _layer("InnerProduct", "inner_product_param { num_output: 2 }"),
        {"y": [weight, np.array([1, 2])]},
    )
    torch.testing.assert_close(
        y, X.double().flatten(1) @ torch.from_numpy(weight).reshape(2, 12).T + torch.tensor([1, 2])
    )


def test_layers_of_several_bottoms(tmp_path: Path) -> None:
    pool = "pooling_param { pool: AVE global_pooling: true }"
    half = f'layer {{ name: "h" type: "Pooling" bottom: "x" top: "h" {pool} }}'
    three = 'bottom: "h" bottom: "x" bottom: "x"'
    y = _run(tmp_path, half + _layer("Axpy", bottoms=three))
    assert torch.equal(y, torch.tensor([2.5, 25]).reshape(1, 2, 1, 1) * X.double() + X.double())
    two = 'bottom: "x" bottom: "x"'
    assert torch.equal(_run(tmp_path, _layer("Concat", bottoms=two)), torch.cat([X, X], 1).double())
    for options, factor in (
        ("", 2),
        ("eltwise_param { operation: SUM coeff: 1 coeff: -3 }", -2),
        ("eltwise_param { operation: MAX }", 1),
    ):
        assert torch.equal(_run(tmp_path, _layer("Eltwise", options, two)), factor * X.double())
    assert torch.equal(
        _run(tmp_path, _layer("Eltwise", "eltwise_param { operation: PROD }", two)), X.double() ** 2
    )


def test_what_it_does_not_know_it_refuses(tmp_path: Path) -> None:
    for layer in (
        _layer("Pooling", "pooling_param { kernel_size: 2 round_mode: FLOOR }"),
        _layer("ReLU", "include { phase: TRAIN }"),
        _layer("ReLU", "pooling_param { kernel_size: 2 }"),
    ):
        with pytest.raises(AssertionError, match="is not known"):
            _run(tmp_path, layer)
    with pytest.raises(KeyError):
        _run(tmp_path, _layer("LRN"))


def test_outputs(tmp_path: Path) -> None:
    (tmp_path / "a.prototxt").write_text(prototxt("SE-ResNet-50", units=(1, 1, 1, 1), num_classes=5, size=32))
    layers = read_prototxt(tmp_path / "a.prototxt")
    blobs = random_blobs(layers, seed=0)
    outputs = run(layers, blobs, torch.randn(2, 3, 32, 32), keep=["classifier", "conv5_1"])
    assert {top: tuple(output.shape) for top, output in outputs.items()} == {
        "classifier": (2, 5),
        "conv5_1": (2, 2048, 1, 1),
        "prob": (2, 5),
    }
    torch.testing.assert_close(outputs["prob"], outputs["classifier"].softmax(1))
    assert outputs["conv5_1"].min() == 0  # Behind the ReLU in place.
    # Of order 1, and no statistic has no effect.
    assert 0.1 < outputs["classifier"].std(1).min() < 10
    assert all(len(arrays) == 3 and arrays[2] > 900 for name, arrays in blobs.items() if name.endswith("/bn"))


# Floats of the released files: reference counts, and 4 bytes each are the published sizes.
@pytest.mark.parametrize(("name", "floats"), [("SE-ResNet-50", 28_141_197), ("SE-BN-Inception", 11_951_723)])
def test_the_sizes_of_the_released_networks(tmp_path: Path, name: str, floats: int) -> None:
    (tmp_path / "a.prototxt").write_text(prototxt(name))
    blobs = random_blobs(read_prototxt(tmp_path / "a.prototxt"), seed=0)
    assert sum(array.size for arrays in blobs.values() for array in arrays) == floats


@pytest.mark.skipif("SENET_OPENCV" not in os.environ, reason="SENET_OPENCV names no Python with OpenCV 4")
@pytest.mark.parametrize("name", NAMES)
def test_opencv_agrees(tmp_path: Path, name: str) -> None:
    units = None if name == "SE-BN-Inception" else (1, 1, 1, 1)
    (tmp_path / "a.prototxt").write_text(prototxt(name, units=units, num_classes=10, size=64))
    layers = read_prototxt(tmp_path / "a.prototxt")
    blobs = random_blobs(layers, seed=0)
    write_caffemodel(tmp_path / "a.caffemodel", [(x.name, x.type, blobs.get(x.name, ())) for x in layers])
    images = np.random.default_rng(0).standard_normal((2, 3, 64, 64)).astype(np.float32)
    theirs = run_in(
        os.environ["SENET_OPENCV"], tmp_path / "a.prototxt", tmp_path / "a.caffemodel", images, tmp_path
    )
    read = {name: layer.blobs for name, layer in read_caffemodel(tmp_path / "a.caffemodel").items()}
    ours = run(layers, read, torch.from_numpy(images))["prob"]
    assert np.abs(ours.numpy() - theirs).max() < 1e-6
    assert np.abs(theirs[0] - theirs[1]).max() > 1e-3
