"""The original release, against two others that run its prototxts: an interpreter in float64, and OpenCV."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.weights.caffe_interpreter import random_blobs, run
from tests.weights.caffe_networks import prototxt
from tests.weights.caffe_opencv import run_in
from tests.weights.caffe_schema import write_caffemodel
from tests.weights.randomised import change

import senet
from senet import weights
from senet.errors import WeightsError
from senet.models import NetworkConfig, convert
from senet.models.resnet import IMAGENET_ROWS, ResNet
from senet.weights.agreement import differences
from senet.weights.classes import devkit_numbers
from senet.weights.layouts.caffe import LAYOUTS, PREPROCESSING
from senet.weights.prototxt import read_prototxt

RELEASED = {theirs: ours for layout in LAYOUTS for ours, theirs in layout.networks.items()}
UNITS = (1, 2, 1, 1)


class Release:
    """A prototxt, a caffemodel of random weights, and what both give for some images."""

    def __init__(self, folder: Path, theirs: str, **options: Any) -> None:
        self.text, self.file = folder / f"{theirs}.prototxt", folder / f"{theirs}.caffemodel"
        self.text.write_text(prototxt(theirs, **options))
        self.layers = read_prototxt(self.text)
        self.blobs = random_blobs(self.layers, seed=0)
        # Pixels are of order 100, and the random weights are for inputs of order 1.
        first = next(layer.name for layer in self.layers if layer.type == "Convolution")
        self.blobs[first][0][:] /= 256
        for layer in self.layers:
            if layer.type == "BatchNorm":
                # A factor that float32 divides by without rounding.
                mean, variance, factor = self.blobs[layer.name]
                exact = np.float32(1024) / factor
                self.blobs[layer.name] = (mean * exact, variance * exact, np.full(1, 1024, np.float32))
        write_caffemodel(self.file, [(e.name, e.type, self.blobs.get(e.name, ())) for e in self.layers])
        size = options.get("size", 224)
        # Images as they are in files: RGB, of 0 to 255.
        self.images = torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8)
        # As the authors fed them: BGR, the means subtracted.
        self.fed = self.images.flip(1).double() - torch.tensor([104.0, 117.0, 123.0]).view(3, 1, 1)

    def scores(self) -> torch.Tensor:
        found: torch.Tensor = run(self.layers, self.blobs, self.fed, keep=["classifier"])["classifier"]
        return found.flatten(1)


def ours_of(model: Any, images: torch.Tensor) -> torch.Tensor:
    mean, std = (
        torch.tensor(PREPROCESSING[key], dtype=torch.double).view(3, 1, 1) for key in ("mean", "std")
    )
    prepared = (images.double() / 255 - mean) / std
    with torch.inference_mode():
        scores: torch.Tensor = model.double().eval()(prepared)
    return scores


def network_of(theirs: str) -> Any:
    """Ours, in the depth of the small prototxt."""
    config = NetworkConfig(RELEASED[theirs], num_classes=10, se=senet.SEConfig(), layout="original")
    if theirs == "SE-BN-Inception":
        return config.build()
    return ResNet(dataclasses.replace(IMAGENET_ROWS[config.name.removeprefix("se_")], depths=UNITS), config)


@pytest.mark.parametrize(
    "theirs",
    ["SE-BN-Inception", "SE-ResNet-50", "SE-ResNeXt-50", pytest.param("SENet-154", marks=pytest.mark.slow)],
)
def test_parity_of_small_networks(tmp_path: Path, theirs: str) -> None:
    units = {} if theirs == "SE-BN-Inception" else {"units": UNITS}
    release = Release(tmp_path, theirs, num_classes=10, size=64, **units)
    model = network_of(theirs)
    found = weights.load(model, release.file, classes="devkit")
    assert (found.layout, found.function["layout"]) == ("caffe", "original")
    assert differences(release.layers, model) == []
    expected = release.scores()
    assert change(ours_of(model, release.images), expected) < 1e-9
    assert change(expected[:1], expected[1:]) > 1e-3  # it depends on the image
    if "SENET_OPENCV" in os.environ:
        theirs_too = run_in(
            os.environ["SENET_OPENCV"], release.text, release.file, release.fed.float().numpy(), tmp_path
        )
        probabilities = ours_of(model, release.images).softmax(1)
        assert (probabilities - torch.from_numpy(theirs_too).flatten(1)).abs().max() < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("theirs", RELEASED)
def test_the_released_networks_whole(tmp_path: Path, theirs: str) -> None:
    """Bar R24."""
    release = Release(tmp_path, theirs)
    done = convert(release.file, tmp_path / "w.safetensors", prototxt=release.text)
    assert (done.network.name, done.network.layout) == (RELEASED[theirs], "original")
    assert done.checked == len(release.layers)
    model: Any = senet.load(tmp_path / "w.safetensors")
    probabilities = ours_of(model, release.images).softmax(1)
    devkit = release.scores().softmax(1)
    expected = devkit[:, torch.tensor(devkit_numbers()) - 1]
    assert (probabilities - expected).abs().max() < 1e-12
    assert torch.equal(probabilities.argmax(1), expected.argmax(1))
    if "SENET_OPENCV" in os.environ:
        theirs_too = run_in(
            os.environ["SENET_OPENCV"], release.text, release.file, release.fed.float().numpy(), tmp_path
        )
        reordered = torch.from_numpy(theirs_too).flatten(1)[:, torch.tensor(devkit_numbers()) - 1]
        assert (probabilities - reordered).abs().max() < 1e-6


@pytest.fixture(scope="module")
def inception(tmp_path_factory: pytest.TempPathFactory) -> Release:
    """With all of ImageNet's classes."""
    return Release(tmp_path_factory.mktemp("caffe"), "SE-BN-Inception", size=64)


def test_classes_come_in_the_usual_order_or_in_theirs(inception: Release, tmp_path: Path) -> None:
    expected = inception.scores()
    kept = convert(inception.file, tmp_path / "kept.safetensors", classes="devkit")
    usual = convert(inception.file, tmp_path / "usual.safetensors")
    assert kept.network.name == usual.network.name == "se_bn_inception"
    assert change(ours_of(senet.load(kept.out), inception.images), expected) < 1e-9
    order = torch.tensor(devkit_numbers()) - 1
    assert change(ours_of(senet.load(usual.out), inception.images), expected[:, order]) < 1e-9
    assert weights.read(usual.out)[0]["class_order"] == "synset"
    assert weights.read(kept.out)[0]["class_order"] == "devkit"
    assert weights.read(usual.out)[0]["preprocessing"]["mean"][0] == pytest.approx(123 / 255)


def test_a_prototxt_of_another_network_is_noticed(inception: Release, tmp_path: Path) -> None:
    text = inception.text.read_text()
    wrong = tmp_path / "wrong.prototxt"
    wrong.write_text(text.replace("pool: MAX", "pool: AVE", 1))
    with pytest.raises(
        WeightsError, match=r"1 things are otherwise .*pool1/3x3_s2: pool is AVE, and MAX in pool1"
    ):
        convert(inception.file, tmp_path / "w.safetensors", prototxt=wrong)
    wrong.write_text(prototxt("SE-ResNet-50"))
    with pytest.raises(WeightsError, match="things are otherwise"):
        convert(inception.file, tmp_path / "w.safetensors", prototxt=wrong)
    assert not (tmp_path / "w.safetensors").exists()


def test_a_network_of_the_other_layout_is_refused(inception: Release) -> None:
    with pytest.raises(WeightsError, match="layout original, not modern"):
        senet.build("se_bn_inception", weights=inception.file, layout="modern")
    assert senet.build("se_bn_inception", weights=inception.file).config.layout == "original"


def test_a_network_of_caffe_that_is_not_ours(tmp_path: Path) -> None:
    blobs = [torch.ones(4, 3, 1, 1).numpy()]
    write_caffemodel(tmp_path / "w.caffemodel", [("res2a_branch1", "Convolution", blobs)])
    with pytest.raises(WeightsError, match=r"1 of its 1 names are none of caffe \(res2a_branch1\.weight\)"):
        weights.recognise(tmp_path / "w.caffemodel")
    with pytest.raises(WeightsError, match="senet writes no files of Caffe"):
        weights.save(senet.build("se_resnet50", layout="original"), tmp_path / "w", layout="caffe")
