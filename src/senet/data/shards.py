"""``shards:DIR``: tar files in WebDataset's layout, read by position.

A sample is the files of one shard that share a name up to its first dot: an image
(``00017.png``) and its class as text (``00017.cls``). The shards are ``*train*.tar`` and
``*test*.tar`` or ``*val*.tar``; ``classes.txt`` has one class name a line.
"""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from senet.data.source import IMAGE_ENDINGS, TEST_NAMES, Splits, decode, evenly_spaced, is_grey
from senet.errors import DataError


@dataclass(frozen=True)
class _Sample:
    shard: int
    name: str
    offset: int
    size: int
    label: int


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
        self.samples = [
            sample for shard, path in enumerate(paths) for sample in _index(shard, path, num_classes)
        ]
        self._files: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self.samples)

    def read(self, index: int) -> tuple[Any, int]:
        """The image (PIL) and its class; DataError naming shard and sample."""
        sample = self.samples[index]
        data = self._bytes(sample)
        where = f"{self.paths[sample.shard]}, {sample.name}"
        if len(data) != sample.size:
            raise DataError(f"reading {where}", "the shard ends in the middle of the image")
        return decode(data, channels=self.channels, where=where), sample.label

    def channels_of_sample(self) -> int:
        """1 if all of some evenly spaced images are grey, else 3."""
        chosen = evenly_spaced(len(self), 100)
        return 1 if all(is_grey(self._bytes(self.samples[index])) for index in chosen) else 3

    def __getstate__(self) -> dict[str, Any]:
        # An open file is this process's own.
        return {**self.__dict__, "_files": {}}

    def _bytes(self, sample: _Sample) -> bytes:
        # pread keeps no position, so threads and forked workers share the open file.
        if sample.shard not in self._files:
            self._files[sample.shard] = os.open(self.paths[sample.shard], os.O_RDONLY)
        return os.pread(self._files[sample.shard], sample.size, sample.offset)


def open_shards(place: str) -> Splits:
    """The shards of the folder ``place``.

    Raises:
        DataError: shards or ``classes.txt`` are missing, or a shard is broken.
    """
    root = Path(place)
    asked = f"data 'shards:{place}'"
    layout = "DIR/*train*.tar, DIR/*test*.tar or DIR/*val*.tar, DIR/classes.txt"
    tars = sorted(root.glob("*.tar"))
    train_paths = [path for path in tars if _is_of(path, "train")]
    test_paths = next(
        (found for name in TEST_NAMES if (found := [path for path in tars if _is_of(path, name)])), []
    )
    for paths, pattern in ((train_paths, "*train*.tar"), (test_paths, "*test*.tar or *val*.tar")):
        if not paths:
            raise DataError(asked, f"there is no {pattern} in it", layout)
    both = sorted(set(train_paths) & set(test_paths))
    if both:
        raise DataError(asked, f"{both[0].name} is named for training and for testing", layout)
    try:
        names = (root / "classes.txt").read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(asked, f"classes.txt cannot be read ({error})", layout) from error
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


def _index(shard: int, path: Path, num_classes: int) -> Iterator[_Sample]:
    samples: dict[str, dict[str, tuple[int, int]]] = {}
    end = 0
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                end = member.offset_data + -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
                folder, _, base = member.name.rpartition("/")
                stem, dot, ending = base.partition(".")
                if member.isfile() and dot:
                    files = samples.setdefault(f"{folder}/{stem}" if folder else stem, {})
                    if f".{ending.lower()}" in files:
                        raise DataError(
                            f"reading {path}, {member.name}", "the name stands in the shard twice"
                        )
                    files[f".{ending.lower()}"] = (member.offset_data, member.size)
    except (tarfile.TarError, OSError) as error:
        found = f"this is no whole tar file ({error})"
        raise DataError(f"reading {path}", found, "tar, uncompressed") from error

    with path.open("rb") as file:
        file.seek(end)
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            found = "the tar file ends without its end mark: it was cut"
            raise DataError(f"reading {path}", found, do="Fetch or write it again.")
        for name, files in samples.items():
            images = [ending for ending in IMAGE_ENDINGS if ending in files]
            if len(images) != 1 or ".cls" not in files:
                raise DataError(
                    f"reading {path}, {name}",
                    found=f"the sample has {', '.join(sorted(files))}",
                    allowed="one image and its class in .cls",
                )
            offset, size = files[".cls"]
            file.seek(offset)
            text = file.read(min(size, 32)).decode("ascii", "replace").strip()
            if not text.isdigit() or int(text) >= num_classes:
                raise DataError(
                    f"reading {path}, {name}.cls",
                    found=f"the class is {text!r}",
                    allowed=f"0 to {num_classes - 1}, the lines of classes.txt",
                )
            yield _Sample(shard, name, *files[images[0]], int(text))
