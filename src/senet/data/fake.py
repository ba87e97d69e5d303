"""``fake:CxHxW``: random images, to measure speed without a disk and without decoding."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from senet.data.source import InMemory, Splits
from senet.errors import OptionError, check_options, require

FORM = "fake:CxHxW[,images=N][,classes=K]"

_POOL = 16
_LARGEST = 2_048


class Fake:
    """As many images as wanted, out of a few.

    Args:
        pool: the few, PIL.
        count: how many there seem to be.
        classes: image i is of class i % classes.
    """

    def __init__(self, pool: list[Any], count: int, classes: int) -> None:
        self.pool = pool
        self.labels = np.arange(count) % classes

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, index: int) -> tuple[Any, int]:
        """The image (PIL) and its class."""
        # A copy, as whoever gets it may draw on it.
        return self.pool[index % len(self.pool)].copy(), int(self.labels[index])


def open_fake(place: str) -> Splits:
    """Random images, the same each time.

    Args:
        place: ``CxHxW``, C being 1 or 3; then ``images=`` to train on (10,000; a tenth as many to test
            on) and ``classes=`` (1,000, or as many as there are images).

    Raises:
        OptionError: the text has another form.
    """
    asked = f"data 'fake:{place}'"
    shape, *settings = (part.strip() for part in place.split(","))
    sides = re.fullmatch(r"(\d+)x(\d+)x(\d+)", shape)
    if not sides:
        raise OptionError(asked, f"{shape!r} is no CxHxW", FORM, "For example fake:3x224x224.")
    channels, height, width = map(int, sides.groups())
    require("C", channels, channels in (1, 3), "1 or 3")
    for name, side in (("H", height), ("W", width)):
        require(name, side, 1 <= side <= _LARGEST, f"1 to {_LARGEST:,}")
    given = dict(setting.partition("=")[::2] for setting in settings)
    check_options("fake", given, ("images", "classes"))
    for name, text in given.items():
        require(name, text, text.isdecimal() and int(text) >= 1, f"an integer of at least 1, as in {FORM}")
    images = int(given.get("images", 10_000))
    classes = int(given.get("classes", min(images, 1_000)))
    require("classes", classes, classes <= images, f"at most images={images}: each class has one")

    form = (_POOL, height, width) if channels == 1 else (_POOL, height, width, channels)
    pixels = np.random.default_rng(0).integers(0, 256, form, dtype=np.uint8)
    few = InMemory(pixels, np.arange(_POOL))
    pool = [few.read(index)[0] for index in range(_POOL)]
    train, test = (Fake(pool, count, classes) for count in (images, max(1, images // 10)))
    return Splits(
        name=f"fake:{place}",
        description=f"random images of {height} × {width}, {len(train):,} to train on, {len(test):,} to test "
        f"on, {classes:,} classes",
        train=train,
        test=test,
        classes=tuple(f"class {number}" for number in range(classes)),
        channels=channels,
    )
