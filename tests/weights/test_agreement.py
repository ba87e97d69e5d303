"""The released networks, from their texts, against ours; the parity itself is in layouts/test_caffe.py."""

from pathlib import Path

import pytest
import torch
from tests.weights.caffe_networks import prototxt

import senet
from senet.weights.agreement import differences
from senet.weights.layouts.caffe import LAYOUTS
from senet.weights.prototxt import PrototxtLayer, read_prototxt

RELEASED = {theirs: ours for layout in LAYOUTS for ours, theirs in layout.networks.items()}
QUICK = ("SE-ResNet-50", "SE-ResNeXt-50")


def compared(folder: Path, text: str, ours: str, layout: str) -> list[str]:
    (folder / "a.prototxt").write_text(text)
    with torch.device("meta"):
        return differences(read_prototxt(folder / "a.prototxt"), senet.build(ours, layout=layout))


@pytest.mark.parametrize(
    "theirs", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in RELEASED]
)
def test_every_released_network_is_ours_in_the_original_layout(tmp_path: Path, theirs: str) -> None:
    assert compared(tmp_path, prototxt(theirs), RELEASED[theirs], "original") == []
    modern = compared(tmp_path, prototxt(theirs), RELEASED[theirs], "modern")
    assert "pool1/3x3_s2: rounds up is True, and False in" in " ".join(modern)
    # Only in ResNet does the stride move.
    moved = any("1x1_reduce: stride is (2, 2), and (1, 1)" in sentence for sentence in modern)
    assert moved == theirs.startswith("SE-ResNet-")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            "kernel_size: 7",
            "kernel_h: 7\n kernel_w: 5",
            "conv1/7x7_s2: kernel is (7, 5), and (7, 7) in conv1",
        ),
        ("num_output: 64", "num_output: 63", "conv1/7x7_s2: outputs is 63, and 64 in conv1"),
        ("bias_term: false", "bias_term: true", "conv1/7x7_s2: bias is True, and False in conv1"),
        ("pad: 3", "pad: 3\n dilation: 2", "conv1/7x7_s2: dilation is 2, and 1 in conv1"),
        ("use_global_stats: true", "eps: 0.001", "conv1/7x7_s2/bn: eps is 0.001, and 1e-05 in bn1"),
        ("num_output: 1000", "num_output: 10", "classifier: outputs is 10, and 1000 in fc"),
        ('name: "conv2_1_3x3"', 'name: "extra"', "layer1.0.conv2 is no layer of the prototxt"),
    ],
)
def test_what_differs_is_said(tmp_path: Path, old: str, new: str, words: str) -> None:
    text = prototxt("SE-ResNet-50")
    assert old in text
    assert words in compared(tmp_path, text.replace(old, new, 1), "se_resnet50", "original")


def test_poolings_and_layers_that_are_not_ours() -> None:
    model = torch.nn.Sequential()
    last = PrototxtLayer("pool5", "Pooling", parameters={"pooling_param": ({"pool": ("MAX",)},)})
    other = PrototxtLayer("norm", "LRN")
    assert differences([last, other], model) == [
        "pool5: it takes the MAX, and the network the mean",
        "norm, a LRN, is nothing in the network",
    ]
