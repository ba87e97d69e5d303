"""``digits``: scikit-learn's handwritten digits, real and embedded, so nothing is downloaded.

1,797 grey images of 8×8 (UCI ML repository, Alpaydin and Kaynak 1998), in one fixed split.
"""

from __future__ import annotations

import numpy as np

from senet.data.source import InMemory, Splits
from senet.errors import MissingExtraError, OptionError

SPLIT_SEED = 0


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
        train=InMemory(images[train], labels[train]),
        test=InMemory(images[test], labels[test]),
        classes=tuple(str(digit) for digit in range(10)),
        channels=1,
    )
