"""``shards:DIR``: tar files in WebDataset's layout, read by position.

A sample is the files of one shard that share a name up to its first dot: an image
(``00017.png``) and its class as text (``00017.cls``). The shards are ``*train*.tar`` and
``*test*.tar`` or ``*val*.tar``; ``classes.txt`` has one class name a line.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from senet.data.source import TEST_NAMES, Splits, decode, evenly_spaced, existing_folder, is_grey
from senet.data.tar_index import tar_index
from senet.errors import DataError

# A process may often have no more than 1,024 open files, and a data set has more shards.
_MOST_OPEN = 128

_LAYOUT = "DIR/*train*.tar, DIR/*test*.tar or DIR/*val*.tar, DIR/classes.txt"


class Shards:
    """The samples of some tar files; only their positions are held in memory.

    Args:
        paths: the tar files.
        num_classes: labels are 0 to num_classes - 1.
        channels: of the images, 1 or 3.

    Raises:
        DataError: a shard is no tar file, or a sample is incomplete or mislabelled.
    """

    def __init__(self, paths: list[Path], num_classes: int, channels: int = 3) -> None:
        self.paths = paths
        self.channels = channels
        self._indexes = [tar_index(path, num_classes) for path in paths]
        # The number of the first sample of each shard, and the number of all.
        self._starts = np.cumsum([0, *(len(index.names) for index in self._indexes)])
        self._files: dict[int, int] = {}

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """The class of each image, (n,)."""
        return np.concatenate([index.labels for index in self._indexes])

    def read(self, index: int) -> tuple[Any, int]:
        """The image (PIL) and its class; DataError naming shard and sample."""
        shard, number = self._place(index)
        samples = self._indexes[shard]
        where = f"{self.paths[shard]}, {samples.names[number]}"
        try:
            data = self._bytes(shard, number)
        except OSError as error:
            raise DataError(f"reading {where}", f"the shard cannot be read ({error})") from error
        if len(data) != samples.sizes[number]:
            raise DataError(f"reading {where}", "the shard ends in the middle of the image")
        return decode(data, channels=self.channels, where=where), int(samples.labels[number])

    def channels_of_sample(self) -> int:
        """1 if all of some evenly spaced images are grey, else 3."""
        chosen = evenly_spaced(len(self), 100)
        return 1 if all(is_grey(self._bytes(*self._place(index))) for index in chosen) else 3

    def __getstate__(self) -> dict[str, Any]:
        # An open file is this process's own.
        return {**self.__dict__, "_files": {}}

    def _place(self, index: int) -> tuple[int, int]:
        shard = int(np.searchsorted(self._starts, index, side="right")) - 1
        return shard, index - int(self._starts[shard])

    def _bytes(self, shard: int, number: int) -> bytes:
        samples = self._indexes[shard]
        size, offset = int(samples.sizes[number]), int(samples.offsets[number])
        # pread keeps no position, so threads and forked workers share the open file.
        if shard in self._files:
            return os.pread(self._files[shard], size, offset)
        handle = os.open(self.paths[shard], os.O_RDONLY)
        try:
            return os.pread(handle, size, offset)
        finally:
            if len(self._files) >= _MOST_OPEN or self._files.setdefault(shard, handle) != handle:
                os.close(handle)


def open_shards(place: str) -> Splits:
    """The shards of the folder ``place``.

    Raises:
        DataError: shards or ``classes.txt`` are missing, or a shard is broken.
    """
    asked = f"data 'shards:{place}'"
    root = existing_folder(asked, place, _LAYOUT)
    tars = sorted(root.glob("*.tar"))
    train_paths = [path for path in tars if _is_of(path, "train")]
    test_paths = next(
        (found for name in TEST_NAMES if (found := [path for path in tars if _is_of(path, name)])), []
    )
    for paths, pattern in ((train_paths, "*train*.tar"), (test_paths, "*test*.tar or *val*.tar")):
        if not paths:
            raise DataError(asked, f"there is no {pattern} in it", _LAYOUT)
    both = sorted(set(train_paths) & set(test_paths))
    if both:
        raise DataError(asked, f"{both[0].name} is named for training and for testing", _LAYOUT)
    try:
        names = (root / "classes.txt").read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(asked, f"classes.txt cannot be read ({error})", _LAYOUT) from error
    classes = tuple(name.strip() for name in names if name.strip())
    train, test = (Shards(paths, len(classes)) for paths in (train_paths, test_paths))
    for paths, source in ((train_paths, train), (test_paths, test)):
        if not len(source):
            raise DataError(asked, f"{paths[0].name} and its like hold no samples", "NAME.png with NAME.cls")
    train.channels = test.channels = train.channels_of_sample()
    return Splits(
        name=f"shards:{place}",
        description=f"{len(train):,} images to train on in {len(train_paths)} shards, {len(test):,} to test "
        f"on in {len(test_paths)}, {len(classes):,} classes",
        train=train,
        test=test,
        classes=classes,
        channels=train.channels,
    )


def _is_of(path: Path, split: str) -> bool:
    # By words: "latest-train-0.tar" is no shard to test on.
    return any(word.startswith(split) for word in re.split(r"[^a-z0-9]+", path.stem.lower()))
