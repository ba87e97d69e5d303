"""``coco:DIR``: images with boxes in COCO's format, looked through before anything is trained on them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from senet.data.source import existing_folder
from senet.detection.annotations import CocoImages, Split
from senet.errors import DataError, OptionError

SCHEME = "coco"
FORM = "coco:DIR[,year=2014][,images=N]"
_LAYOUT = "DIR/annotations/instances_{train,val}YEAR.json and DIR/{train,val}YEAR/, or under DIR/images/"
# The years of COCO's own files; where both are there, the later is taken. Its train2017 has the images that
# were trainval35k, its val2017 those that were minival; train2014 and val2014 are the 80k and the 40k.
_YEARS = ("2017", "2014")


@dataclass(frozen=True)
class CocoData:
    """Images with boxes, to train on and to test on.

    Args:
        name: as the user named them.
        description: one line for people.
        train: those with a box of a single object, as nothing is learnt from others.
        test: all of them.
        classes: the names of the categories, in the order of their numbers.
        categories: these numbers.
        faults: what is wrong in the annotations, and left out.
        missing: the files that are not there.
    """

    name: str
    description: str
    train: CocoImages
    test: CocoImages
    classes: tuple[str, ...]
    categories: tuple[int, ...]
    faults: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


def is_coco(data: str) -> bool:
    """Whether the name of data is of this form."""
    return data.partition(":")[0] == SCHEME


def open_coco(data: str) -> CocoData:
    """The images with boxes that ``data`` names.

    Args:
        data: ``coco:DIR``, with COCO's own files or others in its format; ``,year=2014`` takes the files of
            that year; ``,images=N`` the first N images of each that have boxes.

    Raises:
        OptionError: the words are not of the form, or name data of another kind.
        DataError: a file is missing or is not in COCO's format, or no box is left.
    """
    if not is_coco(data):
        raise OptionError(f"data {data!r}", "a detector needs images with boxes", FORM)
    place, year, most = _words(data)
    root = existing_folder(f"data {data!r}", place, _LAYOUT)
    years = [each for each in ((year,) if year else _YEARS) if _annotations(root, "train", each).is_file()]
    if not years:
        raise DataError(
            f"data {data!r}",
            found=f"there is no {_annotations(root, 'train', year or _YEARS[0])}",
            allowed=_LAYOUT,
        )
    train = _split(root, "train", years[0])
    held_out = _annotations(root, "val", years[0]).is_file()
    test = _split(root, "val", years[0]) if held_out else train
    if test.categories != train.categories:
        raise DataError(f"data {data!r}", "the two files name other categories", "the same in both")
    learnt = train.with_boxes[: most or None]
    tested = test.with_boxes[:most] if most else np.arange(len(test.images))
    for split in (train, test):
        if not len(split.with_boxes):
            why = f": {split.faults[0]}" if split.faults else ""
            gone = _gone(split)
            if gone:
                why = f": {len(gone):,} of its {len(split.images):,} images are not there, such as {gone[0]}"
            raise DataError(
                f"data {data!r}",
                found=f"no box is left of {split.path.name}{why}",
                allowed="boxes of single objects in images that are there",
            )
    where = f"of {test.name} to test on" if held_out else "to test on: the same, as there are no others"
    everything = np.arange(len(train.images)) if not most else learnt
    splits = [(train, everything), (test, tested)]
    without = len(train.images) - len(train.with_boxes) - len(_gone(train))
    return CocoData(
        name=data,
        description=f"{len(learnt):,} images of {train.name} to train on, {len(tested):,} {where}; "
        f"{len(train.categories)} categories; {without:,} images without boxes are left out of training",
        train=train.images.within(learnt),
        test=test.images.within(tested),
        classes=tuple(train.categories.values()),
        categories=tuple(train.categories),
        faults=tuple(dict.fromkeys(fault for split, _ in splits for fault in split.faults)),
        missing=tuple(dict.fromkeys(path for split, used in splits for path in split.missing(used))),
    )


def _words(data: str) -> tuple[str, str, int]:
    """Folder, year and number of images in ``coco:DIR,year=...,images=...``."""
    place, *changes = data.partition(":")[2].split(",")
    values = {"year": "", "images": "0"}
    for change in changes:
        key, _, value = change.partition("=")
        if key not in values or not value.isdecimal() or len(value) > 9 or int(value) < 1:
            raise OptionError(f"data {data!r}", f"{change!r} is not known", FORM)
        values[key] = value
    if not place:
        raise OptionError(f"data {data!r}", "DIR is missing", FORM)
    return place, values["year"], int(values["images"])


def _gone(split: Split) -> list[str]:
    """The images that are not there."""
    return split.missing(np.arange(len(split.images)))


def _annotations(root: Path, split: str, year: str) -> Path:
    return root / "annotations" / f"instances_{split}{year}.json"


def _split(root: Path, split: str, year: str) -> Split:
    path, name = _annotations(root, split, year), f"{split}{year}"
    folders = [folder for folder in (root / name, root / "images" / name) if folder.is_dir()]
    if not folders:
        raise DataError(f"reading {path}", f"there is no folder {root / name}", _LAYOUT)
    return Split(path, folders[0])
