"""What the tests of evaluation share: a network whose scores are the pixels, and images in memory."""

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from senet.data.preprocessing import Preprocessing
from senet.errors import DataError

CPU = torch.device("cpu")


def of_another_library() -> nn.Module:
    """Scores of ten classes for grey images of any size."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10)
    )


class Pixels(nn.Module):
    """Gives the images' pixels as scores, and refuses to run in training mode."""

    def forward(self, x: Tensor) -> Tensor:
        assert not self.training
        return x.flatten(1) * 255


class Memory:
    """Random grey images of two by two pixels, which are the scores of four classes.

    Args:
        count: how many.
        broken: the numbers of those that cannot be read.
    """

    preprocessing = Preprocessing(1, 2, 2, (0.0,), (1.0,))

    def __init__(self, count: int, broken: tuple[int, ...] = ()) -> None:
        generator = np.random.default_rng(0)
        # All scores of an image differ, so that there is one right order.
        self.pixels = np.stack([generator.permutation(200)[:4].astype(np.uint8) for _ in range(count)])
        self.labels = generator.integers(0, 4, count)
        self.broken = broken

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, index: int) -> tuple[Any, int]:
        if index in self.broken:
            raise DataError(f"reading image {index}", "it is broken")
        return Image.fromarray(self.pixels[index].reshape(2, 2)), int(self.labels[index])

    def correct1(self) -> int:
        """How many of the images that can be read have their brightest pixel at their label."""
        right = self.pixels.argmax(1) == self.labels
        return int(sum(right[index] for index in range(len(self)) if index not in self.broken))
