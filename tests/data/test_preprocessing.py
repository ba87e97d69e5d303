import json
import pickle
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from senet.data import open_data
from senet.data.preprocessing import IMAGENET_MEAN, Preprocessing, preprocessing_for, preprocessing_named
from senet.errors import DataError, OptionError, ShapeError


class Pictures:
    """Random colour images of one size."""

    def __init__(self, width: int, height: int, count: int = 5) -> None:
        self.pixels = np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        return np.zeros(len(self), dtype=np.int64)

    def read(self, index: int) -> tuple[Any, int]:
        return Image.fromarray(self.pixels[index]), 0


class Broken(Pictures):
    """The same, but those of even numbers cannot be read."""

    def read(self, index: int) -> tuple[Any, int]:
        if index % 2 == 0:
            raise DataError(f"reading image {index}", "it is broken")
        return super().read(index)


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


def test_normalise_refuses_other_channels() -> None:
    found = preprocessing_for(Pictures(32, 32), 3, image_size=None, network_size=32)
    with pytest.raises(ShapeError, match=r"\(N, 3, H, W\)"):
        found.normalise(torch.zeros(2, 1, 32, 32, dtype=torch.uint8))


def test_the_size_can_be_asked_for() -> None:
    assert preprocessing_for(Pictures(300, 200), 3, image_size=96, network_size=224).size == 96
    small = preprocessing_for(Pictures(8, 8), 3, image_size=16, network_size=32)
    assert (small.size, small.resize) == (16, 16)


@pytest.mark.parametrize("side", [8, 300])
def test_what_comes_before_the_crop_can_be_asked_for(side: int) -> None:
    found = preprocessing_for(
        Pictures(side, side), 3, image_size=299, network_size=224, resize=352, squash=True
    )
    assert (found.size, found.resize, found.squash) == (299, 352, True)
    with pytest.raises(OptionError, match="at least the size, 299"):
        preprocessing_for(Pictures(side, side), 3, image_size=299, network_size=224, resize=298)


@pytest.mark.parametrize("side", [32, 300])
def test_broken_images_decide_nothing(side: int) -> None:
    found = preprocessing_for(Broken(side, side, 5), 3, image_size=None, network_size=224)
    whole = Pictures(side, side, 5)
    whole.pixels = whole.pixels[1::2]
    assert found == preprocessing_for(whole, 3, image_size=None, network_size=224)
    with pytest.raises(DataError, match="reading image 0: it is broken"):
        preprocessing_for(Broken(side, side, 1), 3, image_size=None, network_size=224)


def test_digits_are_measured_in_grey() -> None:
    found = preprocessing_for(open_data("digits").train, 1, image_size=None, network_size=32)
    assert (found.channels, found.size) == (1, 8)
    assert 0.25 < found.mean[0] < 0.35


def test_evaluation_takes_the_centre() -> None:
    pixels = np.zeros((6, 6, 3), dtype=np.uint8)
    pixels[1:5, 1:5] = 200
    image = Preprocessing(3, 4, 6, (0.5,) * 3, (0.5,) * 3).evaluation()(Image.fromarray(pixels))
    assert (image == 200).all()


@pytest.mark.parametrize(("width", "height"), [(40, 30), (31, 30), (30, 41), (30, 30)])
def test_ten_crops_are_the_right_pixels(width: int, height: int) -> None:
    picture = Pictures(width, height).read(0)[0]
    pixels = torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1)
    preprocessing = Preprocessing(3, 24, 30, (0.5,) * 3, (0.5,) * 3)
    found = preprocessing.views((30,), 10)(picture)
    assert (found.shape, found.dtype) == ((10, 3, 24, 24), torch.uint8)
    assert torch.equal(found[0], preprocessing.evaluation()(picture)), "the centre, as for one view"
    assert torch.equal(found[1], pixels[:, :24, :24])
    assert torch.equal(found[2], pixels[:, :24, -24:])
    assert torch.equal(found[3], pixels[:, -24:, :24])
    assert torch.equal(found[4], pixels[:, -24:, -24:])
    for crop, mirrored in zip(found[:5], found[5:], strict=True):
        assert all(torch.equal(mirrored[..., column], crop[..., 23 - column]) for column in range(24))
    assert len({view.numpy().tobytes() for view in found}) == 10


def test_each_scale_is_a_view() -> None:
    picture = Pictures(50, 40).read(0)[0]
    preprocessing = Preprocessing(3, 24, 30, (0.5,) * 3, (0.5,) * 3, "bicubic")
    found = preprocessing.views((24, 40), 1)(picture)
    for view, scale in zip(found, (24, 40), strict=True):
        other = Preprocessing(3, 24, scale, (0.5,) * 3, (0.5,) * 3, "bicubic")
        assert torch.equal(view, other.evaluation()(picture))
    assert preprocessing.views((24, 40), 10)(picture).shape == (20, 3, 24, 24)
    for scales, crops, words in (((24, 23), 1, "at least the size, 24"), ((24,), 5, "1 or 10")):
        with pytest.raises(OptionError, match=words):
            preprocessing.views(scales, crops)


@pytest.mark.parametrize("side", [(50, 40), (30, 60), (50, 24), (24, 24)])
def test_a_squashed_image_is_seen_whole(side: tuple[int, int]) -> None:
    picture = Pictures(*side).read(0)[0]
    found = Preprocessing(3, 20, 24, (0.5,) * 3, (0.5,) * 3, squash=True).evaluation()(picture)
    resized = np.asarray(picture.resize((24, 24), Image.Resampling.BILINEAR))
    assert torch.equal(found, torch.from_numpy(resized[2:22, 2:22].copy()).permute(2, 0, 1))


def test_a_constant_image_does_not_divide_by_zero() -> None:
    pictures = Pictures(8, 8)
    pictures.pixels[:] = 7
    found = preprocessing_for(pictures, 3, image_size=None, network_size=32)
    assert torch.isfinite(found.normalise(torch.full((1, 3, 8, 8), 7, dtype=torch.uint8))).all()


def test_transforms_reach_other_processes() -> None:
    found = preprocessing_for(Pictures(32, 32), 3, image_size=None, network_size=32)
    picture = Pictures(32, 32).read(1)[0]
    for transform in (
        found.evaluation(),
        found.views((32, 40), 10),
    ):
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
    assert not found.squash
    assert preprocessing_named("imagenet,squash").squash
    for text, words in (
        ("imagnet", "Did you mean 'imagenet'"),
        ("imagenet,sise=3", "Did you mean 'size'"),
        ("imagenet,size", "size=''"),
        ("imagenet,size=0", "size=0"),
        ("imagenet,squash=no", "squash='no'"),
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
    old = Preprocessing.from_dict(whole)
    assert (old.interpolation, old.squash) == ("bilinear", False)
    with pytest.raises(OptionError, match=next(iter(changes))):
        Preprocessing.from_dict(whole | changes)
