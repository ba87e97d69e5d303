from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageColor
from torch import nn

from senet.detection.predicting import Object, detect, drawn
from senet.report.palette import line_colour


class Two(nn.Module):
    """Says two boxes of what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, images: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
        (image,) = images
        assert image.shape == (3, 40, 60)
        assert image.max() == 1
        boxes = torch.tensor([[1.0, 2, 30, 39], [5, 6, 50, 20]])
        return [{"boxes": boxes, "labels": torch.tensor([2, 1]), "scores": torch.tensor([0.9, 0.4])}]


def image() -> Any:
    return Image.fromarray(np.full((40, 60, 3), 255, np.uint8))


@pytest.mark.parametrize(("threshold", "count"), [(0.5, 1), (0.3, 2), (0.95, 0)])
def test_what_is_sure_enough_is_found(threshold: float, count: int) -> None:
    model: Any = Two()
    found = detect(model, image(), ["cat", "dog"], threshold=threshold)
    assert [(each.label, each.box) for each in found] == [
        ("dog", (1, 2, 30, 39)),
        ("cat", (5, 6, 50, 20)),
    ][:count]
    assert [each.score for each in found] == pytest.approx([0.9, 0.4][:count])


def test_boxes_are_drawn_in_a_copy() -> None:
    before = image()
    objects = [Object("dog", 0.9, (20.0, 20.0, 55.0, 38.0)), Object("cat", 0.4, (-5.0, -3.0, 90.0, 60.0))]
    after = drawn(before, objects)
    assert (np.asarray(before) == 255).all()
    assert after.size == before.size
    colours = {tuple(pixel) for pixel in np.asarray(after).reshape(-1, 3).tolist()}
    assert ImageColor.getrgb(line_colour(0)) in colours
    assert ImageColor.getrgb(line_colour(1)) in colours
    assert tuple(np.asarray(after)[38, 40]) == ImageColor.getrgb(line_colour(0))


def test_nothing_is_drawn_where_nothing_is() -> None:
    assert (np.asarray(drawn(image(), [])) == 255).all()
