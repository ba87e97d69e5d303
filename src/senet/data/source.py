"""What a data set is to the rest of senet: labelled images by number, in two splits."""

from __future__ import annotations

import contextlib
import io
import os
import re
import warnings
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from senet.errors import DataError, MissingExtraError, did_you_mean

IMAGE_ENDINGS = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".webp")

# What a data set may call the images to test on, the first that is there.
TEST_NAMES = ("val", "test")

# What a file may hold, whatever its name ends in: Pillow also knows kinds that run other programs.
KINDS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")

# Where Pillow starts to warn of decompression bombs: 256 MiB in RGB.
MOST_PIXELS = 1024**3 // 4 // 3
# A long thin image is small, and becomes huge when its short edge is resized.
MOST_ASPECT = 200
# Of up to 16 million pixels there may be one colour only; more of them in a file this small are a bomb.
_FREE_PIXELS, _PIXELS_A_BYTE = 2**24, 4096
# Four times what the pixels of the largest image take.
_MOST_BYTES = 2**30


class Readable(Protocol):
    """Images, numbered from 0; any process may read any of them at any time."""

    def __len__(self) -> int:
        """How many images there are."""

    def read(self, index: int) -> tuple[Any, int]:
        """The image and a number that is known of it; DataError naming a broken one."""


class Source(Readable, Protocol):
    """Labelled images (PIL, mode L or RGB): the number is that of the class."""

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """The class of each image, (n,); no image is read for it."""


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


class InMemory:
    """Images that are held in memory.

    Args:
        images: (n, H, W) for grey or (n, H, W, 3) for RGB, uint8.
        labels: (n,), the class of each.
    """

    def __init__(self, images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64]) -> None:
        self.images = images
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, index: int) -> tuple[Any, int]:
        """The image (PIL) and its class."""
        return _pillow().fromarray(self.images[index]), int(self.labels[index])


@dataclass(frozen=True)
class Names:
    """Many names in two arrays: 8 bytes a name beside its own.

    Loader workers are forked. Strings would be copied in each of them, since counting references
    writes to the memory; arrays are shared.

    Args:
        text: uint8, all names without a gap.
        ends: (n,) int64, where each ends.
    """

    text: npt.NDArray[np.uint8]
    ends: npt.NDArray[np.int64]

    @classmethod
    def of(cls, names: Iterable[str]) -> Self:
        """These names, as the file system writes them."""
        text, ends = bytearray(), array("q")
        for name in names:
            text += os.fsencode(name)
            ends.append(len(text))
        return cls(np.frombuffer(bytes(text), np.uint8), np.array(ends, np.int64))

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """One after the other; there must be one."""
        before = np.cumsum([0, *(len(part.text) for part in parts[:-1])])
        ends = [part.ends + start for part, start in zip(parts, before, strict=True)]
        return cls(np.concatenate([part.text for part in parts]), np.concatenate(ends))

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> str:
        start = self.ends[index - 1] if index else 0
        return os.fsdecode(self.text[start : self.ends[index]].tobytes())


def existing_folder(asked: str, place: str, layout: str) -> Path:
    """The folder ``place``; DataError saying what is missing, and the nearest name that is there."""
    folder = Path(os.path.expanduser(place))
    if folder.is_dir():
        return folder
    missing = folder
    while not missing.parent.is_dir():
        missing = missing.parent
    near: list[str] = []
    with contextlib.suppress(OSError):
        near = [entry.name for entry in missing.parent.iterdir() if entry.is_dir()]
    found = f"{missing} is no folder" if missing.exists() else f"there is no folder {missing}"
    raise DataError(asked, found, layout, did_you_mean(missing.name, near))


def read_image(path: Path, *, channels: int, upright: bool = False) -> Any:
    """The PIL image in a file; DataError naming it, see ``decode``."""
    try:
        # A pipe would be waited for, and a device has no end.
        if path.exists() and not path.is_file():
            raise OSError("it is no regular file")
        if path.stat().st_size > _MOST_BYTES:
            raise OSError(f"it has more than {_MOST_BYTES:,} bytes")
        data = path.read_bytes()
    except (OSError, ValueError) as error:  # a name can hold what no name holds
        raise DataError(f"reading {path}", f"the file cannot be read ({error})") from error
    return decode(data, channels=channels, where=str(path), upright=upright)


def decode(data: bytes, *, channels: int, where: str, upright: bool = False) -> Any:
    """The PIL image in ``data``, as grey (1 channel) or RGB (3).

    Args:
        data: of the file.
        channels: 1 or 3.
        where: for the error.
        upright: whether it is turned as the camera was held. Data sets are not, nor are networks trained so.

    Raises:
        DataError: naming ``where``. An image of more than ``MOST_PIXELS``, or long and thin, is refused by
            its header.
    """
    pillow = _pillow()
    try:
        # Pillow warns of bombs, of broken metadata, of palettes: what matters is an error here.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with pillow.open(io.BytesIO(data), formats=KINDS) as image:
                short, long = sorted(image.size)
                most = min(MOST_PIXELS, max(_FREE_PIXELS, _PIXELS_A_BYTE * len(data)))
                if 0 < short * long <= most and long <= MOST_ASPECT * short:
                    return converted(_upright(image) if upright else image, channels)
                size = f"{short * long:,} pixels, {image.width} x {image.height}, in {len(data):,} bytes"
    except pillow.DecompressionBombError as error:
        # Above twice its limit Pillow opens nothing, and tells the number in words.
        size = f"{int(re.findall(r'[0-9]+', str(error))[0]):,} pixels"
    except Exception as error:  # of hostile files Pillow raises whatever its readers stumble over
        # Pillow's own words name the object in memory.
        reason = "of no known kind" if "cannot identify" in str(error) else str(error) or type(error).__name__
        raise DataError(
            f"reading {where}",
            found=f"this is no whole image ({reason})",
            allowed=", ".join(KINDS),
            do="Repair the file or take it out.",
        ) from error
    raise DataError(
        f"reading {where}",
        found=f"by its header the image has {size}",
        allowed=f"1 to {MOST_PIXELS:,} pixels, {_PIXELS_A_BYTE:,} a byte above {_FREE_PIXELS:,}, and no side "
        f"above {MOST_ASPECT} times the other",
        do="Make it smaller or take it out.",
    )


def _upright(image: Any) -> Any:
    from PIL import ImageOps

    return ImageOps.exif_transpose(image)


def is_grey(data: bytes) -> bool:
    """Whether the image in ``data`` has one channel, by its header; a broken one has not."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with _pillow().open(io.BytesIO(data), formats=KINDS) as image:
                return image.mode in ("1", "L", "LA", "I;16")
    except MissingExtraError:
        raise
    except Exception:
        return False


def evenly_spaced(count: int, most: int) -> list[int]:
    """At most ``most`` of the numbers below ``count``, evenly spaced: a sample that is always the same."""
    return [index * count // min(count, most) for index in range(min(count, most))]


def converted(image: Any, channels: int) -> Any:
    """The PIL image as grey (1 channel) or RGB (3), 8 bits a value; ValueError if its range is not known."""
    if image.mode.startswith("I;16"):
        # Pillow would clip 16 bits to 8 where it should scale them.
        image = image.convert("I").point(lambda value: value * (1 / 256))
    elif image.mode in ("I", "F"):
        raise ValueError(f"pixels of mode {image.mode} have no known range")
    return image.convert("L" if channels == 1 else "RGB")


def _pillow() -> Any:
    try:
        # Pillow, as torchvision's own PNG decoder has crashed the process on broken files.
        from PIL import Image
    except ImportError as error:
        raise MissingExtraError.of("pillow", extra="train", need="reading images") from error
    return Image
