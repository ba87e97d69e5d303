"""Annotations in COCO's format, read with a look at each of them: what is wrong is named and left out."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from senet.data.source import Names, read_image
from senet.errors import DataError

# No picture has as many pixels a side; NaN is not below it either.
_LARGEST = 2**40
_LONGEST = 200
# In pixels: thinner boxes have no area any more when they are rounded and resized.
_THINNEST = 0.01


class Annotated(NamedTuple):
    """An image (PIL, RGB) with boxes (K, 4), float64, as left, top, right, bottom in pixels, and labels (K,).

    Labels are numbered from 0, in the order of the classes.
    """

    image: Any
    boxes: npt.NDArray[np.float64]
    labels: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Boxes:
    """Boxes of many images in arrays, which forked processes share; those of image i are ``of(i)``.

    Args:
        starts: (n + 1,), where those of each image begin.
        corners: (m, 4), left, top, right, bottom in pixels.
        labels: (m,), of each.
        crowd: (m,), whether a box is of many objects that are not told apart.
        areas: (m,), of the objects in pixels, which COCO sorts into small, medium and large.
    """

    starts: npt.NDArray[np.int64]
    corners: npt.NDArray[np.float64]
    labels: npt.NDArray[np.int64]
    crowd: npt.NDArray[np.bool_]
    areas: npt.NDArray[np.float64]

    def of(self, image: int) -> slice:
        """The boxes of an image."""
        return slice(int(self.starts[image]), int(self.starts[image + 1]))

    def within(self, images: npt.NDArray[np.int64]) -> Boxes:
        """Those of some of the images, in this order."""
        chosen = np.concatenate(
            [np.arange(*self.of(image).indices(len(self.labels))) for image in images]
            or [np.zeros(0, np.int64)]
        )
        counts = np.diff(self.starts)[images]
        return Boxes(
            np.concatenate([[0], np.cumsum(counts)]),
            self.corners[chosen],
            self.labels[chosen],
            self.crowd[chosen],
            self.areas[chosen],
        )


@dataclass(frozen=True)
class CocoImages:
    """Images with boxes, numbered as their file has them.

    Args:
        folder: of the images.
        names: of their files.
        ids: (n,), COCO's own numbers.
        sizes: (n, 2), width and height.
        boxes: of all of them.
    """

    folder: Path
    names: Names
    ids: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    boxes: Boxes

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, index: int) -> tuple[Annotated, int]:
        """The image with the boxes of single objects, and its number.

        Raises:
            DataError: naming a file that is missing, broken, or of another size than it is said to be.
        """
        path = self.folder / self.names[index]
        image = read_image(path, channels=3)
        if image.size != tuple(self.sizes[index]):
            raise DataError(
                f"reading {path}",
                found=f"it is {image.width}x{image.height}",
                allowed=f"{self.sizes[index][0]}x{self.sizes[index][1]}, as its annotations say",
            )
        own = self.boxes.of(index)
        single = ~self.boxes.crowd[own]
        return Annotated(image, self.boxes.corners[own][single], self.boxes.labels[own][single]), index

    def within(self, images: npt.NDArray[np.int64]) -> CocoImages:
        """Some of the images, in this order."""
        return CocoImages(
            self.folder,
            Names.of(self.names[image] for image in images.tolist()),
            self.ids[images],
            self.sizes[images],
            self.boxes.within(images),
        )


class Split:
    """What one file of annotations says, and whether its images are there.

    What is wrong in it is left out, and ``faults`` names each entry.

    Args:
        path: of the annotations.
        folder: of the images.

    Raises:
        DataError: the file is not in COCO's format, or the folder cannot be listed.
    """

    def __init__(self, path: Path, folder: Path) -> None:
        self.path = path
        self.name = folder.name
        self.faults: list[str] = []
        told = self._told()
        self.categories = self._categories(told["categories"])
        self.images = self._images(folder, told)
        names = [self.images.names[number] for number in range(len(self.images))]
        there = np.array(_are_there(folder, names), bool)
        self._gone = np.flatnonzero(~there)
        boxes = self.images.boxes
        before = np.concatenate([[0], np.cumsum(~boxes.crowd)])[boxes.starts]
        # The images that are there and have a box of a single object.
        self.with_boxes = np.flatnonzero(there & (np.diff(before) > 0))

    def missing(self, images: npt.NDArray[np.int64]) -> list[str]:
        """The files that are not there, of images up to the last of some."""
        gone = self._gone[self._gone <= max(images, default=-1)]
        return [str(self.images.folder / self.images.names[number]) for number in gone]

    def _told(self) -> dict[str, list[Any]]:
        asked = f"reading {self.path}"
        try:
            told = json.loads(self.path.read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            raise DataError(asked, f"it cannot be read ({error})", "annotations in COCO's format") from error
        keys = ("images", "annotations", "categories")
        wrong = [key for key in keys if not isinstance(told, dict) or not isinstance(told.get(key), list)]
        if wrong:
            raise DataError(asked, f"it has no list {wrong[0]!r}", "annotations in COCO's format")
        return {key: told[key] for key in keys}

    def _categories(self, told: list[Any]) -> dict[int, str]:
        """Names by COCO's numbers, which have gaps, in the order of these."""
        found = self._well_formed(told, "category", {"id": _is_whole, "name": _is_text})
        if not found:
            why = f"; {self.faults[0]}" if self.faults else ""
            raise DataError(
                f"reading {self.path}", f"it names no category{why}", "annotations in COCO's format"
            )
        return {each["id"]: each["name"] for each in sorted(found, key=lambda each: int(each["id"]))}

    def _images(self, folder: Path, told: Mapping[str, list[Any]]) -> CocoImages:
        shape = {"id": _is_whole, "file_name": _is_file_name, "width": _is_side, "height": _is_side}
        images = self._well_formed(told["images"], "image", shape)
        numbers = {each["id"]: number for number, each in enumerate(images)}
        sizes = np.array([(each["width"], each["height"]) for each in images], np.int64).reshape(-1, 2)
        boxes = self._boxes(told["annotations"], numbers, sizes)
        names = Names.of(each["file_name"] for each in images)
        ids = np.array([each["id"] for each in images], np.int64)
        return CocoImages(folder, names, ids, sizes, boxes)

    def _boxes(self, told: list[Any], numbers: Mapping[int, int], sizes: npt.NDArray[np.int64]) -> Boxes:
        """Those with an area within their image, sorted by image."""
        labels = {category: label for label, category in enumerate(self.categories)}
        shape = {"id": _is_whole, "image_id": _is_whole, "category_id": _is_whole, "bbox": _is_box}
        rows = []
        for each in self._well_formed(told, "annotation", shape):
            number, label = numbers.get(each["image_id"]), labels.get(each["category_id"])
            left, top, width, height = each["bbox"]
            if number is None:
                fault = f"there is no image {each['image_id']}"
            elif label is None:
                fault = f"there is no category {each['category_id']}"
            elif not _reaches(left, width, sizes[number, 0]) or not _reaches(top, height, sizes[number, 1]):
                fault = f"its box {each['bbox']} has no area within the image"
            elif each.get("iscrowd") not in (None, 0, 1):
                fault = f"its iscrowd is {each['iscrowd']!r}, and not 0 or 1"
            else:
                area = each.get("area")
                area = area if _is_number(area) and area > 0 else width * height
                crowd = bool(each.get("iscrowd"))
                rows.append((number, left, top, left + width, top + height, label, crowd, area))
                continue
            self.faults.append(f"{self.path.name}: annotation {each['id']}: {fault}")
        table = np.array(rows, np.float64).reshape(-1, 8)
        table = table[np.argsort(table[:, 0], kind="stable")]
        counts = np.bincount(table[:, 0].astype(np.int64), minlength=len(sizes))
        return Boxes(
            np.concatenate([[0], np.cumsum(counts)]),
            table[:, 1:5],
            table[:, 5].astype(np.int64),
            table[:, 6].astype(bool),
            table[:, 7],
        )

    def _well_formed(
        self, told: Iterable[Any], what: str, shape: Mapping[str, Callable[[Any], bool]]
    ) -> list[Any]:
        """The entries whose fields are as they should be and whose id is theirs alone."""
        found: dict[int, Any] = {}
        for place, each in enumerate(told):
            broken = [
                key for key, fits in shape.items() if not isinstance(each, dict) or not fits(each.get(key))
            ]
            if broken:
                entry = each if isinstance(each, dict) else {"id": each}
                named = f"number {place}" if broken[0] == "id" else entry["id"]
                fault = f"{what} {named}: its {broken[0]} is {entry.get(broken[0])!r}"
            elif each["id"] in found:
                fault = f"{what} {each['id']}: there is one with this id before it"
            else:
                found[each["id"]] = each
                continue
            self.faults.append(f"{self.path.name}: {fault[:_LONGEST]}")
        return list(found.values())


def _are_there(folder: Path, names: Iterable[str]) -> list[bool]:
    """Which of the files exist: one listing in place of a look at each, where they lie in no subfolder."""
    try:
        listed = set(os.listdir(folder))
    except OSError as error:
        raise DataError(f"reading {folder}", f"the folder cannot be listed ({error})") from error
    return [name in listed or os.path.isfile(folder / name) for name in names]


def _reaches(begin: float, length: float, end: int) -> bool:
    """Whether a box that begins there has an extent between 0 and ``end``."""
    return min(begin + length, end) - max(begin, 0) >= _THINNEST


def _is_number(value: Any) -> bool:
    # Beyond that it is no place in an image, and may be too large for a float.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _LARGEST


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _is_side(value: Any) -> bool:
    return _is_whole(value) and 0 < value < 2**31


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _is_file_name(value: Any) -> bool:
    """Within the folder, whoever wrote the file."""
    if not _is_text(value) or os.path.isabs(value) or ".." in Path(value).parts or "\0" in value:
        return False
    try:
        os.fsencode(value)
    except UnicodeEncodeError:
        return False
    return True


def _is_box(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(_is_number(each) for each in value)
