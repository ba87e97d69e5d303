"""``folder:DIR``: ``train/`` and ``val/`` (or ``test/``), each with one folder of images a class.

With ``categories_places365.txt`` in it, it is another layout: ``places365.py``.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from senet.data.source import IMAGE_ENDINGS, TEST_NAMES, Names, Splits, existing_folder, read_image
from senet.errors import DataError

_LAYOUT = "DIR/train/CLASS/*.jpg and DIR/val/CLASS/*.jpg"

# Places365's list of its categories.
CATEGORIES = "categories_places365.txt"
_AS_PLACES365 = f"If this is Places365, put its {CATEGORIES} and places365_val.txt into DIR."


class ImageFiles:
    """Images in files, each read when asked for; only their names are held in memory.

    Args:
        folder: what the names start from.
        names: of the files.
        labels: (n,) int64, the class of each.
    """

    def __init__(self, folder: Path, names: Names, labels: npt.NDArray[np.int64]) -> None:
        self.folder = folder
        self.names = names
        self.labels = labels

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int) -> tuple[Any, int]:
        """The image (PIL, RGB) and its class; DataError naming the file."""
        path = self.folder / self.names[index]
        return read_image(path, channels=3), int(self.labels[index])


class ImageFolder(ImageFiles):
    """Images in class folders, numbered class by class, and in a class by the parts of their paths.

    Args:
        folder: holds the class folders.
        classes: their names, in the order of the labels; one that is not there has no images.

    Attributes:
        others: how many files beside the images end in what.

    Raises:
        OSError: a folder cannot be listed.
    """

    def __init__(self, folder: Path, classes: list[str]) -> None:
        self.others: Counter[str] = Counter()
        by_class = [Names.of(_below(str(folder), name, self.others)) for name in classes]
        labels = np.repeat(np.arange(len(classes)), [len(names) for names in by_class])
        super().__init__(folder, Names.joined(by_class), labels)


def open_folder(place: str) -> Splits:
    """The images under ``place``; classes are the folders of ``train/``, sorted.

    Raises:
        DataError: a folder is missing or empty, or the splits' classes differ.
    """
    asked = f"data 'folder:{place}'"
    try:
        return _open(asked, place)
    except OSError as error:
        raise DataError(asked, f"a folder cannot be listed ({error})") from error


def _open(asked: str, place: str) -> Splits:
    root = existing_folder(asked, place, _LAYOUT)
    held_out = next((root / name for name in TEST_NAMES if (root / name).is_dir()), None)
    if not (root / "train").is_dir() or held_out is None:
        missing = "train/" if held_out else "train/ with val/"
        places = any(root.glob("data_256*")) or any(root.glob("data_large*"))
        raise DataError(asked, f"there is no {missing} in it", _LAYOUT, _AS_PLACES365 if places else "")
    classes = _class_names(root / "train")
    if not classes:
        raise DataError(asked, f"{root / 'train'} holds no class folders", _LAYOUT)
    if _are_initials(root / "train", classes):
        found = f"the folders of train/ are initials, {classes[0]} to {classes[-1]}, of folders in them"
        raise DataError(asked, found, _LAYOUT, _AS_PLACES365)
    unknown = sorted(set(_class_names(held_out)) - set(classes))
    if unknown:
        raise DataError(
            asked,
            found=f"{held_out.name}/ has classes that train/ lacks: {', '.join(unknown[:5])}",
            allowed="the classes of train/",
        )
    train, test = (ImageFolder(folder, classes) for folder in (root / "train", held_out))
    endings = f"files ending in {', '.join(IMAGE_ENDINGS)}"
    for source in (train, test):
        if not len(source):
            raise DataError(asked, f"{source.folder} holds no images", endings)
    counts = np.bincount(train.labels, minlength=len(classes))
    if not counts.all():
        raise DataError(
            asked,
            found=f"the class {classes[int(counts.argmin())]} has no images in train/",
            allowed=endings,
            do="Add some, or remove its folder.",
        )
    return Splits(
        name=f"folder:{place}",
        description=f"{len(train):,} images to train on, {len(test):,} in {held_out.name}/ to test on, "
        f"{len(classes):,} classes{_left_out(train.others + test.others)}",
        train=train,
        test=test,
        classes=tuple(classes),
        channels=3,
    )


def _left_out(others: Counter[str]) -> str:
    """Of the files that are no images by their endings, for people; empty where there are none."""
    if not others:
        return ""
    named = ", ".join(f"{count:,} {ending}" for ending, count in others.most_common(3))
    return f"; left out: {named}{', ...' if len(others) > 3 else ''}"


def _class_names(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        # Folders with a dot are a tool's, such as .ipynb_checkpoints.
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def _are_initials(folder: Path, classes: list[str]) -> bool:
    """Whether the classes are letters that only hold folders which begin with them (a/airfield)."""
    return all(len(name) == 1 and _only_begins_with(name, folder / name) for name in classes)


def _only_begins_with(letter: str, folder: Path) -> bool:
    with os.scandir(folder) as entries:
        own = (entry for entry in entries if not entry.name.startswith("."))
        # The first image ends it: a class may have millions.
        found = (entry.is_dir() and entry.name.startswith(letter) for entry in own)
        return next(found, False) and all(found)


def _below(root: str, within: str, others: Counter[str]) -> Iterator[str]:
    """The images in a folder of ``root``, by their paths in ``root``; none if there is no such folder.

    Other files are counted by their endings.
    """
    if not os.path.isdir(f"{root}/{within}"):
        return
    with os.scandir(f"{root}/{within}") as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        # The entries know what they are; only links are followed, to a file, never to a folder.
        if entry.name.startswith("."):
            continue  # a system's or a tool's: macOS writes ._NAME.jpg beside NAME.jpg
        if entry.is_dir(follow_symlinks=False):
            yield from _below(root, f"{within}/{entry.name}", others)
        elif entry.is_file():
            ending = os.path.splitext(entry.name)[1].lower()
            if ending in IMAGE_ENDINGS:
                yield f"{within}/{entry.name}"
            else:
                others[ending or "without an ending"] += 1
