"""Where the samples of a tar file lie, so that each can be read by itself.

Only headers (POSIX.1-1988, ``ustar``) and labels are read, no image. The index of a larger shard is kept
in the cache folder for as long as the shard's size and times stay.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from senet.data.source import IMAGE_ENDINGS, Names
from senet.errors import DataError
from senet.files import cache_folders, replacing

# Of the kept files; another number makes the old ones unknown.
_VERSION = 1
# Fewer samples are indexed as quickly as a kept index is read.
_KEPT_FROM = 100

_BLOCK = tarfile.BLOCKSIZE
_END = bytes(_BLOCK)
# What WebDataset's writer puts before each file, as its times have fractions: nothing that matters.
_TIMES = re.compile(rb"(\d+ [acm]time=[\d.]+\n)+")

_Member = tuple[str, int, int]


@dataclass(frozen=True)
class TarIndex:
    """The samples of one tar file: 32 bytes each, beside their names.

    Args:
        names: of the samples, without endings.
        offsets: (n,) int64, where the image begins.
        sizes: (n,) int64, the image's bytes.
        labels: (n,) int64, from 0.
    """

    names: Names
    offsets: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]


def tar_index(path: Path, num_classes: int) -> TarIndex:
    """The samples of the tar file ``path``, in their order.

    Raises:
        DataError: it is no whole tar file, or a sample is incomplete or mislabelled.
    """
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise DataError(f"reading {path}", f"the file cannot be read ({error})") from error
    try:
        state = os.fstat(handle)
        made_of = [_VERSION, state.st_size, state.st_mtime_ns, state.st_ctime_ns]
        index = _kept(path, made_of)
        if index is None:
            index = _scanned(path, handle, num_classes)
            _keep(path, made_of, index)
    finally:
        os.close(handle)
    wrong = np.flatnonzero(index.labels >= num_classes)
    if len(wrong):
        raise _no_label(path, index.names[int(wrong[0])], str(index.labels[wrong[0]]), num_classes)
    return index


def _kept(path: Path, made_of: list[int]) -> TarIndex | None:
    for folder in cache_folders():
        # Whatever is wrong with it, it can be made again. The archive has checksums.
        with contextlib.suppress(Exception), _place(folder, path).open("rb") as file:
            found: dict[str, Any] = dict(np.load(file, allow_pickle=False))
            if found.pop("made_of").tolist() == made_of:
                index = TarIndex(Names(found.pop("text"), found.pop("ends")), **found)
                if min(index.labels.min(), index.sizes.min(), index.offsets.min()) >= 0:
                    return index
    return None


def _keep(path: Path, made_of: list[int], index: TarIndex) -> None:
    if len(index.names) < _KEPT_FROM:
        return
    for folder in cache_folders():
        with contextlib.suppress(OSError):
            place = _place(folder, path)
            place.parent.mkdir(parents=True, exist_ok=True)
            with replacing(place) as temporary, temporary.open("wb") as file:
                np.savez(
                    file,
                    made_of=np.array(made_of),
                    text=index.names.text,
                    ends=index.names.ends,
                    offsets=index.offsets,
                    sizes=index.sizes,
                    labels=index.labels,
                )


def _place(folder: Path, path: Path) -> Path:
    return folder / "shards" / f"{hashlib.sha256(os.fsencode(path.absolute())).hexdigest()[:32]}.npz"


def _scanned(path: Path, handle: int, num_classes: int) -> TarIndex:
    samples: dict[str, dict[str, tuple[int, int]]] = {}
    for name, offset, size in _members(path, handle):
        folder, slash, base = name.rpartition("/")
        stem, dot, ending = base.partition(".")
        if dot:
            files = samples.setdefault(f"{folder}{slash}{stem}", {})
            ending = f".{ending.lower()}"
            if ending in files:
                raise DataError(f"reading {path}, {name}", "the name stands in the shard twice")
            files[ending] = offset, size
    rows = np.empty((3, len(samples)), np.int64)
    for number, (name, files) in enumerate(samples.items()):
        images = [ending for ending in files if ending in IMAGE_ENDINGS]
        if len(images) != 1 or ".cls" not in files:
            raise DataError(
                f"reading {path}, {name}",
                found=f"the sample has {', '.join(sorted(files))}",
                allowed="one image and its class in .cls",
            )
        offset, size = files[".cls"]
        text = os.pread(handle, min(size, 32), offset).decode("ascii", "replace").strip()
        if not text.isdigit() or int(text) >= num_classes:
            raise _no_label(path, name, text, num_classes)
        rows[:, number] = *files[images[0]], int(text)
    return TarIndex(Names.of(samples), *rows)


def _no_label(path: Path, name: str, text: str, num_classes: int) -> DataError:
    return DataError(
        f"reading {path}, {name}.cls",
        found=f"the class is {text!r}",
        allowed=f"0 to {num_classes - 1}, the lines of classes.txt",
    )


def _members(path: Path, handle: int) -> list[_Member]:
    """Name, position and bytes of all files in the tar file."""
    try:
        return list(_plain_members(handle))
    except ValueError:
        # Long names, other formats, damage: five times slower, and whatever a tar file may be.
        return _any_members(path, handle)


def _plain_members(handle: int) -> Iterator[_Member]:
    """The files of a tar file that holds nothing else; ValueError of anything else."""
    position = 0
    while (header := os.pread(handle, _BLOCK, position)) != _END:
        kind = header[156:157]
        size = int(header[124:136].partition(b"\0")[0], 8)
        checksum = sum(header) - sum(header[148:156]) + 8 * ord(" ")
        if int(header[148:156].partition(b"\0")[0], 8) != checksum or size < 0:
            raise ValueError("damaged")
        position += _BLOCK
        if kind == b"x":
            if not _TIMES.fullmatch(os.pread(handle, min(size, _BLOCK), position)):
                raise ValueError("more than times")
        elif kind == b"0" and header[257:262] == b"ustar":
            name, prefix = (part.partition(b"\0")[0] for part in (header[:100], header[345:500]))
            yield os.fsdecode(prefix + b"/" + name if prefix else name), position, size
        else:
            raise ValueError("no plain file")
        position += -(-size // _BLOCK) * _BLOCK


def _any_members(path: Path, handle: int) -> list[_Member]:
    end, found = 0, []
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                end = member.offset_data + -(-member.size // _BLOCK) * _BLOCK
                if member.isfile():
                    found.append((member.name, member.offset_data, member.size))
    except (tarfile.TarError, OSError) as error:
        reason = f"this is no whole tar file ({error})"
        raise DataError(f"reading {path}", reason, "tar, uncompressed") from error
    if os.pread(handle, _BLOCK, end) != _END:
        reason = "the tar file ends without its end mark: it was cut"
        raise DataError(f"reading {path}", reason, do="Fetch or write it again.")
    return found
