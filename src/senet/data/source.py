"""What a data set is to the rest of senet: labelled images by number, in two splits."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any, Protocol

from senet.errors import DataError, MissingExtraError

IMAGE_ENDINGS = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".webp")


# What a data set may call the images to test on, the first that is there.
TEST_NAMES = ("val", "test")


class Source(Protocol):
    """Labelled images, numbered from 0; any process may read any of them at any time."""

    def __len__(self) -> int:
        """How many images there are."""

    def read(self, index: int) -> tuple[Any, int]:
        """The image (PIL, mode L or RGB) and its class; DataError naming a broken one."""


@dataclass(frozen=True)
class Splits:
    """A data set: images to train on, images to test on, and what they are.

    Args:
        name: as the user named it.
        description: one line for people: what, how many, which split.
        train: the images to train on.
        test: the images to test on.
        classes: the class names, in the order of the labels.
        channels: of the images: 1 or 3.
    """

    name: str
    description: str
    train: Source
    test: Source
    classes: tuple[str, ...]
    channels: int


def decode(data: bytes, *, channels: int, where: str) -> Any:
    """The PIL image in ``data``, as grey (1 channel) or RGB (3); DataError names ``where``."""
    pillow = _pillow()
    try:
        with pillow.open(io.BytesIO(data)) as image:
            if image.mode.startswith("I;16"):
                # Pillow would clip 16 bits to 8 where it should scale them.
                image = image.convert("I").point(lambda value: value * (1 / 256))
            elif image.mode in ("I", "F"):
                raise ValueError(f"pixels of mode {image.mode} have no known range")
            return image.convert("L" if channels == 1 else "RGB")
    # SyntaxError is what Pillow raises of a broken PNG header.
    except (OSError, ValueError, SyntaxError, pillow.DecompressionBombError) as error:
        # Pillow's own words name the object in memory.
        reason = "of no known kind" if "cannot identify" in str(error) else error
        raise DataError(
            f"reading {where}",
            found=f"this is no whole image ({reason})",
            allowed="what Pillow decodes: PNG, JPEG, WebP, ...",
            do="Repair the file or take it out.",
        ) from error


def is_grey(data: bytes) -> bool:
    """Whether the image in ``data`` has one channel, by its header; a broken one has not."""
    pillow = _pillow()
    try:
        with pillow.open(io.BytesIO(data)) as image:
            return image.mode in ("1", "L", "LA", "I;16")
    except (OSError, ValueError, SyntaxError, pillow.DecompressionBombError):
        return False


def evenly_spaced(count: int, most: int) -> list[int]:
    """At most ``most`` of the numbers below ``count``, evenly spaced: a sample that is always the same."""
    return [index * count // min(count, most) for index in range(min(count, most))]


def _pillow() -> Any:
    try:
        # Pillow, as torchvision's own PNG decoder has crashed the process on broken files.
        from PIL import Image
    except ImportError as error:
        raise MissingExtraError.of("pillow", extra="train", need="reading images") from error
    return Image
