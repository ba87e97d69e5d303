import json
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from senet.data import open_data
from senet.data.preprocessing import IMAGENET_MEAN, Preprocessing, preprocessing_for, preprocessing_named
from senet.errors import OptionError, ShapeError


class Pictures:
    """Random colour images of one size."""

    def __init__(self, width: int, height: int, count: int = 5) -> None:
        self.pixels = np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)

    def __len__(self) -> int:
        return len(self.pixels)

    def read(self, index: int) -> tuple[Any, int]:
        return Image.fromarray(self.pixels[index]), 0


def test_small_images_keep_their_size_and_are_measured() -> None:
    pictures = Pictures(32, 32)
    found = preprocessing_for(pictures, 3, image_size=None, network_size=224)
    assert (found.size, found.resize) == (32, 32)
    x = found.normalise(torch.from_numpy(pictures.pixels).permute(0, 3, 1, 2))
    torch.testing.assert_close(x.mean((0, 2, 3)), torch.zeros(3), atol=1e-3, rtol=0)
    torch.testing.assert_close(x.std((0, 2, 3)), torch.ones(3), atol=1e-3, rtol=0)


def test_large_images_get_the_networks_size_by_the_papers_crop() -> None:
    found = preprocessing_for(Pictures(300, 200), 3, image_size=None, network_size=224)
    assert (found.size, found.resize, found.mean) == (224, 256, IMAGENET_MEAN)
    image = found.evaluation()(Pictures(300, 200).read(0)[0])
    assert (image.shape, image.dtype) == ((3, 224, 224), torch.uint8)


def test_a_mixed_folder_is_not_decided_by_its_first_image() -> None:
    small, large = Pictures(32, 32), Pictures(300, 300)

    class Mixed(Pictures):
        def read(self, index: int) -> tuple[Any, int]:
            return (small if index == 0 else large).read(index)

    found = preprocessing_for(Mixed(1, 1), 3, image_size=None, network_size=224)
    assert (found.size, found.resize) == (224, 256)
    assert {found.evaluation()(Mixed(1, 1).read(i)[0]).shape for i in range(5)} == {(3, 224, 224)}


@pytest.mark.parametrize("side", [(20, 20), (33, 60), (300, 40)])
def test_an_image_of_another_size_is_brought_to_size(side: tuple[int, int]) -> None:
    found = preprocessing_for(Pictures(32, 32), 3, image_size=None, network_size=32)
    picture = Pictures(*side).read(0)[0]
    assert found.evaluation()(picture).shape == (3, 32, 32)
    assert found.training(crop="pad", pad=4, flip=True)(picture).shape == (3, 32, 32)


def test_normalise_refuses_other_channels() -> None:
    found = preprocessing_for(Pictures(32, 32), 3, image_size=None, network_size=32)
    with pytest.raises(ShapeError, match=r"\(N, 3, H, W\)"):
        found.normalise(torch.zeros(2, 1, 32, 32, dtype=torch.uint8))


def test_the_size_can_be_asked_for() -> None:
    assert preprocessing_for(Pictures(300, 200), 3, image_size=96, network_size=224).size == 96
    small = preprocessing_for(Pictures(8, 8), 3, image_size=16, network_size=32)
    assert (small.size, small.resize) == (16, 16)


def test_digits_are_measured_in_grey() -> None:
    found = preprocessing_for(open_data("digits").train, 1, image_size=None, network_size=32)
    assert (found.channels, found.size) == (1, 8)
    assert 0.25 < found.mean[0] < 0.35


def test_evaluation_takes_the_centre() -> None:
    pixels = np.zeros((6, 6, 3), dtype=np.uint8)
    pixels[1:5, 1:5] = 200
    image = Preprocessing(3, 4, 6, (0.5,) * 3, (0.5,) * 3).evaluation()(Image.fromarray(pixels))
    assert (image == 200).all()


@pytest.mark.parametrize("crop", ["pad", "resized", "centre"])
@pytest.mark.parametrize("flip", [False, True])
def test_augmentations_have_the_size_and_differ(crop: str, flip: bool) -> None:
    picture = Pictures(40, 40).read(0)[0]
    augment = Preprocessing(3, 32, 36, (0.5,) * 3, (0.5,) * 3).training(crop=crop, pad=4, flip=flip)
    images = [augment(picture) for _ in range(10)]
    assert {image.shape for image in images} == {(3, 32, 32)}
    distinct = len({image.numpy().tobytes() for image in images})
    assert distinct == {("centre", False): 1, ("centre", True): 2}.get((crop, flip), distinct)
    assert distinct > 1 or crop == "centre"


def test_a_constant_image_does_not_divide_by_zero() -> None:
    pictures = Pictures(8, 8)
    pictures.pixels[:] = 7
    found = preprocessing_for(pictures, 3, image_size=None, network_size=32)
    assert torch.isfinite(found.normalise(torch.full((1, 3, 8, 8), 7, dtype=torch.uint8))).all()


def test_transforms_reach_other_processes() -> None:
    found = preprocessing_for(Pictures(32, 32), 3, image_size=None, network_size=32)
    picture = Pictures(32, 32).read(1)[0]
    for transform in (found.evaluation(), found.training(crop="centre", pad=0, flip=False)):
        assert torch.equal(pickle.loads(pickle.dumps(transform))(picture), transform(picture))


def test_it_travels_as_json() -> None:
    found = preprocessing_for(Pictures(32, 32), 3, image_size=None, network_size=32)
    assert Preprocessing.from_dict(json.loads(json.dumps(found.to_dict()))) == found


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_images_are_resized_as_the_weights_say(interpolation: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    found = Preprocessing(3, 20, 24, (0.5,) * 3, (0.5,) * 3, interpolation).evaluation()(image)
    how = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}[interpolation]
    # The shorter edge to 24, and the middle 20 × 20 of 24 × 33.
    resized = np.asarray(image.resize((33, 24), how))
    assert torch.equal(found, torch.from_numpy(resized[2:22, 6:26].copy()).permute(2, 0, 1))


def test_a_preprocessing_can_be_written_in_words() -> None:
    found = preprocessing_named("imagenet,size=288,resize=303,interpolation=bicubic")
    assert (found.size, found.resize, found.interpolation) == (288, 303, "bicubic")
    assert found.mean == (0.485, 0.456, 0.406)
    assert preprocessing_named("caffe").std[0] == pytest.approx(1 / 255)
    assert preprocessing_named("inception").resize == 333
    for text, words in (
        ("imagnet", "Did you mean 'imagenet'"),
        ("imagenet,sise=3", "Did you mean 'size'"),
        ("imagenet,size", "size=''"),
        ("imagenet,size=0", "size=0"),
        ("imagenet,interpolation=cubic", "Did you mean 'bicubic'"),
    ):
        with pytest.raises(OptionError, match=words):
            preprocessing_named(text)


@pytest.mark.parametrize(
    "changes",
    [
        {"channels": 2},
        {"size": 0},
        {"resize": 1.5},
        {"mean": (0.5,)},
        {"std": (0.0,) * 3},
        {"mean": ("a",) * 3},
    ],
)
def test_what_is_no_preprocessing(changes: dict[str, Any]) -> None:
    whole = {"channels": 3, "size": 4, "resize": 4, "mean": (0.5,) * 3, "std": (0.5,) * 3}
    assert Preprocessing.from_dict(whole).interpolation == "bilinear"
    with pytest.raises(OptionError, match=next(iter(changes))):
        Preprocessing.from_dict(whole | changes)
