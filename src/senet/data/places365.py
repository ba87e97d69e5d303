"""``folder:DIR`` with ``categories_places365.txt`` in it: Places365 as its authors publish it.

A class is a path, such as ``a/airfield`` or ``a/apartment_building/outdoor``: the category without its
leading slash. Its number is the one that the categories' file gives it. The lists say which images there are
and of which class; to train on, the class folders may say so as well.
"""

from __future__ import annotations

import os
import re
from codecs import BOM_UTF8
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from senet.data.folder import CATEGORIES, ImageFiles, ImageFolder
from senet.data.source import Names, Splits, evenly_spaced
from senet.errors import DataError

# Which images to train on, by where they lie: the first that is there. An archive unpacks to a folder without
# the variant's name, which other programs then add.
_VARIANTS = ("standard", "challenge")
_SIZES = ("256", "large")
_TRAIN = (
    *(f"data_{size}_{variant}" for variant in _VARIANTS for size in _SIZES),
    *(f"data_{size}" for size in _SIZES),
    "train",
)
_VAL = (*(f"val_{size}" for size in _SIZES), "val")
_VAL_LIST = "places365_val.txt"
_LAYOUT = (
    f"DIR/{CATEGORIES}, DIR/{_TRAIN[0]}/a/airfield/*.jpg (or {', '.join(_TRAIN[1:])}), "
    f"DIR/{_VAL[0]}/*.jpg (or {', '.join(_VAL[1:])}), DIR/{_VAL_LIST}, and perhaps "
    "DIR/places365_train_standard.txt"
)
_PLAIN = f"Without {CATEGORIES} the folders train/CLASS/ and val/CLASS/ are read."

# A name and a number, which an int64 holds; a line may end as in DOS.
_LINE = re.compile(rb"^/*([^\s/\0][^\s\0]*) ([0-9]{1,9})\r?$", re.MULTILINE)
_BLOCK = 2**24


def is_places365(place: str) -> bool:
    """Whether the folder ``place`` has Places365's list of categories."""
    return os.path.isfile(os.path.join(os.path.expanduser(place), CATEGORIES))


def open_places365(place: str) -> Splits:
    """The images of Places365 under ``place``, tested on its validation images.

    Raises:
        DataError: a folder or a list is missing, a line of a list is wrong, a class has no image to train
            on, or the images are not where the list has them.
    """
    asked = f"data 'folder:{place}'"
    try:
        return _open(asked, place)
    except OSError as error:
        raise DataError(asked, f"a folder or a list cannot be read ({error})") from error


def _open(asked: str, place: str) -> Splits:
    root = Path(os.path.expanduser(place))
    classes = _categories(root / CATEGORIES)
    folder = _first_folder(asked, root, _TRAIN)
    listed = _train_list(asked, root, folder)
    train = _by_list(asked, folder, listed, classes) if listed else ImageFolder(folder, classes)
    source = f"{folder.name}/, by {listed.name if listed else 'its folders'}"
    counts = np.bincount(train.labels, minlength=len(classes))
    if not counts.all():
        raise DataError(
            asked,
            found=f"the class {classes[int(counts.argmin())]} has no images in {source}",
            allowed=f"images of each of the {len(classes):,} classes in {CATEGORIES}",
            do="Add some, or take it out and number the others anew." if len(train) else _PLAIN,
        )
    if not (root / _VAL_LIST).is_file():
        raise DataError(asked, f"there is no {_VAL_LIST} in it", _LAYOUT, _PLAIN)
    # The images to test on are best those of the same size.
    like = [f"val_{size}" for size in _SIZES if f"_{size}" in folder.name]
    held_out = _first_folder(asked, root, (*like, *_VAL))
    test = _by_list(asked, held_out, root / _VAL_LIST, classes)
    return Splits(
        name=f"folder:{place}",
        description=f"Places365: {len(train):,} images to train on ({source}), {len(test):,} to test on "
        f"({held_out.name}/, by {_VAL_LIST}), {len(classes):,} classes",
        train=train,
        test=test,
        classes=tuple(classes),
        channels=3,
    )


def _first_folder(asked: str, root: Path, names: Sequence[str]) -> Path:
    found = next((root / name for name in names if (root / name).is_dir()), None)
    if found is None:
        raise DataError(asked, f"there is no folder {names[0]} in it, nor its like", _LAYOUT)
    return found


def _train_list(asked: str, root: Path, folder: Path) -> Path | None:
    """The list of the images in ``folder``, if there is one: that of the variant in its name."""
    named = [variant for variant in _VARIANTS if folder.name.endswith(variant)]
    paths = [root / f"places365_train_{variant}.txt" for variant in named or _VARIANTS]
    found = [path for path in paths if path.is_file()]
    if len(found) > 1:
        size = folder.name if folder.name != "train" else "data_256"
        raise DataError(
            asked,
            found=f"{' and '.join(path.name for path in found)} may both be the list of {folder.name}/",
            allowed="one of them",
            do=f"Take the other away, or rename the folder to {size}_standard or {size}_challenge.",
        )
    return found[0] if found else None


def _categories(path: Path) -> list[str]:
    """The names of the classes, in the order of their numbers."""
    found, numbers = _read(path)
    if not len(found) or not np.array_equal(np.sort(numbers), np.arange(len(found))):
        reason = f"the numbers are not 0 to {len(found) - 1}, each once" if len(found) else "it is empty"
        raise DataError(f"reading {path}", reason, "a line a category: /a/airfield 0")
    names = [found[int(index)] for index in np.argsort(numbers)]
    for outer, inner in pairwise(sorted(f"{name}/" for name in names)):
        if inner.startswith(outer):
            reason = f"{inner[:-1]} stands in it twice" if inner == outer else f"{inner[:-1]} is in {outer}"
            raise DataError(f"reading {path}", reason, "categories of which none is the folder of another")
    return names


def _by_list(asked: str, folder: Path, path: Path, classes: Sequence[str]) -> ImageFiles:
    """The images in ``folder`` that the list names, in its order."""
    images = ImageFiles(folder, *_read(path, len(classes)))
    some = [folder / images.names[index] for index in evenly_spaced(len(images), 100)]
    # Single images that are missing are found when they are read; here, that this is another folder.
    if not any(each.is_file() for each in some):
        found = f"none of its images is in {folder.name}/, not {images.names[0]}" if some else "it is empty"
        raise DataError(f"{asked}, {path.name}", found, _LAYOUT)
    return images


def _read(path: Path, below: int | None = None) -> tuple[Names, npt.NDArray[np.int64]]:
    """The names in a list, without leading slashes, and their numbers, (n,); empty lines are left out."""
    texts, lengths, numbers, lines = [], [], [], 0
    with path.open("rb") as file:
        if file.read(len(BOM_UTF8)) != BOM_UTF8:  # which editors of Windows write
            file.seek(0)
        # Places365-Challenge has 8 million lines: never all of them as objects.
        while block := file.read(_BLOCK) + file.readline():
            found = _LINE.findall(block)
            part = np.array([int(number) for _, number in found], np.int64)
            count = block.count(b"\n") + (not block.endswith(b"\n"))
            if len(found) != count or (below is not None and (part >= below).any()) or b".." in block:
                _check(path, block, lines, below)
            lines += count
            texts.append(b"".join(name for name, _ in found))
            lengths.append(np.array([len(name) for name, _ in found], np.int64))
            numbers.append(part)
    text = np.frombuffer(b"".join(texts), np.uint8)
    none = np.empty(0, np.int64)
    ends = np.cumsum(np.concatenate([none, *lengths]))
    return Names(text, ends), np.concatenate([none, *numbers])


def _check(path: Path, block: bytes, before: int, below: int | None) -> None:
    """Names the first line that is wrong, if one is."""
    for place, line in enumerate(block.split(b"\n"), start=before + 1):
        found = _LINE.fullmatch(line)
        if not line.strip():
            continue
        if found is None or b".." in found[1].split(b"/") or (below is not None and int(found[2]) >= below):
            allowed = "NAME NUMBER, without other spaces, of a NAME within the folder"
            raise DataError(
                f"reading {path}, line {place}",
                found=f"there is {os.fsdecode(line.strip()[:80])!a}",
                allowed=f"{allowed}, a number of 0 to {below - 1} as in {CATEGORIES}" if below else allowed,
            )
