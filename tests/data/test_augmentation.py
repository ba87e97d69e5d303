import pickle
import random
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from senet.data.augmentation import Augmentation, mixing, training_transform
from senet.data.preprocessing import Preprocessing
from senet.errors import OptionError

KINDS: list[dict[str, Any]] = [
    {},
    {"crop": "pad", "pad": 4, "flip": True},
    {"crop": "pad", "pad": 4, "pad_mode": "reflect", "cutout": 8},
    {"crop": "resized", "area": 0.25, "flip": True, "rotate": 10.0, "jitter": 20},
    {"crop": "resized", "trivialaugment": True, "erase": 0.5},
    {"crop": "resized", "train_size": 20},
    {"randaugment": 2, "magnitude": 15, "rotate": 5.0, "erase": 1.0},
]


def picture(height: int, width: int, channels: int = 3, value: int | None = None) -> Any:
    """A random or constant image."""
    shape = (height, width, 3) if channels == 3 else (height, width)
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    return Image.fromarray(pixels if value is None else np.full_like(pixels, value))


def preprocessing(size: int, resize: int, channels: int = 3, mean: float = 0.45) -> Preprocessing:
    return Preprocessing(channels, size, resize, (mean,) * channels, (0.22,) * channels)


def transform(size: int, *, mean: float = 0.0, channels: int = 3, **values: Any) -> Any:
    """The transform of images that have their size already."""
    return training_transform(preprocessing(size, size, channels, mean), Augmentation(**values))


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("crop", ["centre", "pad", "resized"])
def test_crop_and_flip_are_torchvisions_with_the_same_draws(crop: str, flip: bool) -> None:
    bilinear = v2.InterpolationMode.BILINEAR
    start: dict[str, list[Any]] = {
        "centre": [v2.Resize(36), v2.CenterCrop(32)],
        "pad": [v2.Resize(36), v2.RandomCrop(32, 4)],
        "resized": [v2.RandomResizedCrop(32, interpolation=bilinear)],
    }
    plain = v2.Compose([*start[crop], *([v2.RandomHorizontalFlip()] if flip else []), v2.PILToTensor()])
    values: dict[str, Any] = {"crop": crop, "pad": 4, "flip": flip}
    augment = training_transform(preprocessing(32, 36), Augmentation(**values))
    for seed in range(10):
        found = []
        for each in (plain, augment):
            torch.manual_seed(seed)
            found.append((each(picture(40, 50)), torch.rand(())))
        assert torch.equal(found[0][0], found[1][0])
        assert found[0][1] == found[1][1]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("values", KINDS)
def test_every_kind_is_a_function_of_torchs_generator_alone(values: dict[str, Any], channels: int) -> None:
    augment = training_transform(preprocessing(32, 36, channels), Augmentation(**values))
    elsewhere = pickle.loads(pickle.dumps(augment))
    size = values.get("train_size", 32)
    image = picture(45, 60, channels)
    others = random.getstate(), np.random.get_state()[1].copy()  # type: ignore[index]
    distinct = set()
    for seed in range(20):
        torch.manual_seed(seed)
        first = augment(image)
        torch.manual_seed(seed)
        assert torch.equal(elsewhere(image), first)
        assert (first.shape, first.dtype) == ((channels, size, size), torch.uint8)
        distinct.add(first.numpy().tobytes())
    assert random.getstate() == others[0]
    assert (np.random.get_state()[1] == others[1]).all()  # type: ignore[index]
    assert len(distinct) > 15 or not values


@pytest.mark.parametrize("name", ["randaugment", "trivialaugment"])
@pytest.mark.parametrize("channels", [1, 3])
def test_all_operations_of_the_policies_work(name: str, channels: int) -> None:
    values: dict[str, Any] = {name: 14 if name == "randaugment" else True}
    augment = transform(16, channels=channels, **values)
    assert len({augment(picture(16, 16, channels)).numpy().tobytes() for _ in range(150)}) > 30


def test_jitter_is_uniform_bounded_and_for_each_value() -> None:
    torch.manual_seed(0)
    noise = transform(64, jitter=20)(picture(64, 64, value=100)).int() - 100
    assert not torch.equal(noise[0], noise[1])
    counts = torch.bincount((noise + 20).flatten(), minlength=41)
    assert (noise.min().item(), noise.max().item(), len(counts)) == (-20, 20, 41)
    expected = noise.numel() / 41
    assert (counts - expected).abs().max() < 5 * expected**0.5
    for value, bound, share in ((250, 255, 16 / 41), (3, 0, 18 / 41)):
        image = transform(64, jitter=20)(picture(64, 64, value=value))
        assert (image == bound).float().mean().item() == pytest.approx(share, abs=0.03)


@settings(max_examples=20, deadline=None)
@given(side=st.integers(1, 9), height=st.integers(4, 12))
def test_cutout_is_a_square_around_a_random_pixel_cut_off_at_the_border(side: int, height: int) -> None:
    augment = transform(height, cutout=side)
    found = set()
    for _ in range(150):
        hole = augment(picture(height, height, value=255)) == 0
        assert torch.equal(hole[0], hole[1])
        rows, columns = hole[0].any(1), hole[0].any(0)
        assert torch.equal(hole[0], rows[:, None] & columns)  # a rectangle ...
        for covered in (rows, columns):
            places = covered.nonzero().flatten().tolist()
            assert places == list(range(places[0], places[-1] + 1))
            found.add((places[0], len(places)))
    # ... whose edges are those of the squares around the pixels, clipped.
    allowed = set()
    for centre in range(height):
        inside = [at for at in range(centre - side // 2, centre - side // 2 + side) if 0 <= at < height]
        allowed.add((inside[0], len(inside)))
    assert found == allowed


def test_cutouts_area_is_that_of_uniform_centres() -> None:
    torch.manual_seed(0)
    augment = transform(32, cutout=16)
    areas = [(augment(picture(32, 32, value=255))[0] == 0).sum().item() for _ in range(500)]
    # A side reaches from max(0, c - 8) to min(32, c + 8): 12 to 16 in the middle, on average 14.
    side = np.mean([min(32, centre + 8) - max(0, centre - 8) for centre in range(32)])
    assert 64 <= min(areas) < max(areas) == 256
    assert np.mean(areas) == pytest.approx(side**2, rel=0.05)


def test_holes_are_the_mean_and_stay_free_of_noise() -> None:
    prepared = preprocessing(16, 16, mean=0.45)
    augment = training_transform(prepared, Augmentation(jitter=20, cutout=16, rotate=10))
    x = prepared.normalise(augment(picture(16, 16))[None])
    # Half a level of 255 is what zero is off by; the square covers a quarter at least.
    assert (x.abs() <= 0.5 / 255 / 0.22 + 1e-6).float().mean() >= 0.25
    erased = training_transform(prepared, Augmentation(erase=1.0))(picture(16, 16, value=255))
    assert set(erased.unique().tolist()) == {round(0.45 * 255), 255}


def test_erasing_happens_as_often_and_as_large_as_stated() -> None:
    torch.manual_seed(0)
    augment = transform(40, erase=0.3)
    shares = [(augment(picture(40, 40, value=255))[0] == 0).float().mean().item() for _ in range(500)]
    hit = [share for share in shares if share]
    assert len(hit) / 500 == pytest.approx(0.3, abs=0.08)
    assert 0.015 < min(hit) < 0.06
    assert 0.25 < max(hit) < 0.36


def test_rotation_is_within_its_bounds_both_ways() -> None:
    torch.manual_seed(0)
    pixels = np.zeros((101, 101, 3), dtype=np.uint8)
    pixels[49:52, 60:98] = 255  # a hand that points to the right
    angles = []
    for _ in range(200):
        image = transform(101, rotate=10.0)(Image.fromarray(pixels))[0].double()
        grid = torch.arange(101) - 50.0
        up, right = -(image.sum(1) * grid).sum(), (image.sum(0) * grid).sum()
        angles.append(torch.rad2deg(torch.atan2(up, right)).item())
    assert -10.1 < min(angles) < -9
    assert 9 < max(angles) < 10.1
    assert np.mean(angles) == pytest.approx(0, abs=1.5)


@pytest.mark.parametrize("area", [0.08, 0.5, 1.0])
def test_resized_crops_have_at_least_the_area(area: float) -> None:
    torch.manual_seed(0)
    ramp = np.broadcast_to(np.arange(200, dtype=np.uint8), (200, 200))
    image = Image.fromarray(np.stack([ramp, ramp.T, ramp], -1))  # red is x, green is y
    augment = transform(40, crop="resized", area=area)
    shares = []
    for _ in range(150):
        x, y = augment(image)[:2].double()
        # The outermost of 40 pixels lie half a pixel inside the crop.
        width, height = ((each.max() - each.min()).item() * 40 / 39 for each in (x, y))
        shares.append(width * height / 200**2)
    assert area - 0.03 < min(shares) < area + 0.1
    assert max(shares) > 0.9


def test_borders_are_black_or_mirrored() -> None:
    image = picture(12, 12)
    for mode in ("constant", "reflect"):
        padded = np.pad(np.asarray(image), ((3, 3), (3, 3), (0, 0)), mode=mode)
        crops = {
            padded[top : top + 12, left : left + 12].transpose(2, 0, 1).tobytes(): (top, left)
            for top in range(7)
            for left in range(7)
        }
        augment = transform(12, crop="pad", pad=3, pad_mode=mode)
        torch.manual_seed(0)
        found = {crops[augment(image).numpy().tobytes()] for _ in range(500)}
        assert len(found) > 45  # of 49


def test_training_images_may_have_another_size() -> None:
    augment = training_transform(preprocessing(32, 36), Augmentation(crop="pad", train_size=24))
    assert augment(picture(50, 40)).shape == (3, 24, 24)
    with pytest.raises(OptionError, match=r"train_size=40: the images' shorter edge is 36.*'resized'"):
        training_transform(preprocessing(32, 36), Augmentation(train_size=40))


def batch(size: int = 8) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(size, 3, 16, 12), torch.arange(size)


def test_without_alphas_nothing_is_mixed() -> None:
    assert mixing(Augmentation(crop="resized"), 10) is None


@pytest.mark.parametrize("seed", range(5))
def test_mixup_is_a_convex_combination_with_the_image_before(seed: int) -> None:
    mix = mixing(Augmentation(mixup=0.5), 10)
    assert mix is not None
    images, labels = batch()
    torch.manual_seed(seed)
    mixed, targets = mix(images, labels)
    own = targets[torch.arange(8), labels]
    assert own.unique().numel() == 1
    torch.testing.assert_close(targets.sum(1), torch.ones(8))
    torch.testing.assert_close(targets[torch.arange(8), labels.roll(1)], 1 - own)
    torch.testing.assert_close(mixed, own[0] * images + (1 - own[0]) * images.roll(1, 0))
    torch.manual_seed(seed)
    assert torch.equal(mix(images, labels)[0], mixed)


@pytest.mark.parametrize("seed", range(5))
def test_cutmix_labels_by_the_share_of_the_pixels(seed: int) -> None:
    mix = mixing(Augmentation(cutmix=1.0), 10)
    assert mix is not None
    images, labels = batch()
    torch.manual_seed(seed)
    mixed, targets = mix(images, labels)
    own = mixed == images
    assert (own | (mixed == images.roll(1, 0))).all()
    torch.testing.assert_close(targets.sum(1), torch.ones(8))
    torch.testing.assert_close(targets[torch.arange(8), labels], own.float().mean((1, 2, 3)))


def test_with_both_alphas_each_batch_gets_one_of_them() -> None:
    mix = mixing(Augmentation(mixup=0.2, cutmix=1.0), 10)
    assert mix is not None
    images, labels = batch()
    cut = 0
    for _ in range(200):
        mixed, _ = mix(images, labels)
        cut += bool(((mixed == images) | (mixed == images.roll(1, 0))).all())
    assert 60 < cut < 140


@pytest.mark.parametrize(
    "values",
    [
        {"crop": "center"},
        {"pad_mode": "zeros"},
        {"pad": -1},
        {"area": 0.0},
        {"area": 1.5},
        {"rotate": -1.0},
        {"rotate": 181.0},
        {"jitter": 256},
        {"randaugment": -1},
        {"magnitude": 31},
        {"trivialaugment": True, "randaugment": 2},
        {"cutout": -1},
        {"erase": 1.1},
        {"erase": float("nan")},
        {"mixup": -0.1},
        {"cutmix": float("inf")},
        {"train_size": 0},
    ],
)
def test_what_is_no_augmentation(values: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=next(iter(values))):
        Augmentation(**values)


def test_the_command_line_reads_it_without_torch() -> None:
    code = "import sys, senet.data.augmentation; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
