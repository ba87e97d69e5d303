"""``digits``: scikit-learn's handwritten digits, real and embedded, so nothing is downloaded.

1,797 grey images of 8×8 (UCI ML repository, Alpaydin and Kaynak 1998), in one fixed split.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from senet.data.source import Splits
from senet.errors import MissingExtraError, OptionError

SPLIT_SEED = 0


class Digits:
    """Digits held in memory.

    Args:
        images: (n, 8, 8) uint8.
        labels: (n,) of 0 to 9.
    """

    def __init__(self, images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64]) -> None:
        self.images = images
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, index: int) -> tuple[Any, int]:
        """The image (PIL, mode L) and its digit."""
        from PIL import Image

        return Image.fromarray(self.images[index]), int(self.labels[index])


def open_digits(place: str) -> Splits:
    """The digits in their fixed stratified 80/20 split; ``place`` must be empty."""
    if place:
        raise OptionError(f"data 'digits:{place}'", "the digits have no place", "digits")
    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
    except ImportError as error:
        raise MissingExtraError.of("scikit-learn", extra="train", need="the data digits") from error
    bunch = load_digits()
    # Stored as counts 0 to 16 of inked pixels; the paper's preprocessing starts from 0 to 255.
    images = np.round(bunch.images * (255 / 16)).astype(np.uint8)
    labels = bunch.target.astype(np.int64)
    train, test = train_test_split(
        np.arange(len(labels)), test_size=0.2, stratify=labels, random_state=SPLIT_SEED
    )
    return Splits(
        name="digits",
        description=(
            f"scikit-learn's handwritten digits, {len(train):,} to train on, {len(test):,} to test on "
            f"(one fixed stratified 80/20 split, random_state={SPLIT_SEED})"
        ),
        train=Digits(images[train], labels[train]),
        test=Digits(images[test], labels[test]),
        classes=tuple(str(digit) for digit in range(10)),
        channels=1,
    )
