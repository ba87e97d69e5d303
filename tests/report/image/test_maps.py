import numpy as np
import pytest
import torch
from PIL import Image

from senet.report.image.maps import map_over_image
from senet.report.palette import BLUE, VERMILION


def _rgb(colour: str) -> list[int]:
    return [int(colour[start : start + 2], 16) for start in (1, 3, 5)]


def test_a_number_of_the_map_is_a_square_of_its_sign_and_strength() -> None:
    image = Image.new("L", (8, 8), 255)
    found = map_over_image(torch.tensor([[2.0, -2.0], [0.0, 1.0]]), image, most=2.0, side=8)
    assert found.shape == (8, 8, 3)
    assert found.dtype == np.uint8
    quarters = [found[:4, :4], found[:4, 4:], found[4:, :4], found[4:, 4:]]
    assert all((quarter == quarter[0, 0]).all() for quarter in quarters)
    full, below, none, half = (quarter[0, 0].tolist() for quarter in quarters)
    assert (full, below, none) == (_rgb(VERMILION), _rgb(BLUE), [255, 255, 255])
    assert half == pytest.approx([(each + 255) / 2 for each in full], abs=1)


def test_the_image_is_seen_where_the_map_is_zero() -> None:
    image = Image.linear_gradient("L")
    found = map_over_image(torch.zeros(4, 4), image, most=0.0, side=16)
    assert (found[..., 0] == found[..., 1]).all()
    brightness = found[:, 0, 0].astype(int)
    assert (np.diff(brightness) > 0).all()
    assert brightness[0] > 150


def test_maps_of_one_dimension_are_a_row() -> None:
    found = map_over_image(torch.tensor([1.0, -1.0]), Image.new("RGB", (4, 4), "white"), most=1.0, side=4)
    assert found[:, 0].tolist() == [_rgb(VERMILION)] * 4
    assert found[:, 3].tolist() == [_rgb(BLUE)] * 4
