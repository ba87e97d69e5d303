"""The mean of several softmaxes of one image: of its views, or of the networks of an ensemble.

All in float64 and in logarithms, which are scores of the same softmax: no probability is lost to underflow.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def log_mean_softmax(scores: Tensor, dim: int) -> Tensor:
    """The logarithm of the mean of softmax probabilities.

    Args:
        scores: (..., classes), in any float dtype.
        dim: the dimension to take the mean over; not the last.

    Returns:
        float64, of the shape of ``scores`` without ``dim``.
    """
    return scores.double().log_softmax(-1).logsumexp(dim) - math.log(scores.shape[dim])


class Average:
    """The mean of the softmax of several networks, which come one after the other.

    It holds one float64 an image and class: 400 MB for ImageNet's 50,000 images and 1000 classes.
    """

    def __init__(self) -> None:
        self.networks = 0
        self._sums: list[Tensor] = []

    def add(self, scores: list[Tensor]) -> None:
        """Takes what the next network says: scores (B, classes) of the same images in the same batches."""
        more = [each.double().log_softmax(-1) for each in scores]
        pairs = zip(self._sums, more, strict=True)
        self._sums = [torch.logaddexp(total, each) for total, each in pairs] if self.networks else more
        self.networks += 1

    def scores(self) -> list[Tensor]:
        """Logarithms of the mean probabilities, float64, in these batches."""
        return [total - math.log(self.networks) for total in self._sums]
