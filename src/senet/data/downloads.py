"""``cifar10:DIR``, ``cifar100:DIR``, ``fashion-mnist:DIR``: data sets that torchvision fetches and checks.

Their splits, class names, addresses and MD5 sums are torchvision's. CIFAR's files are pickles: each is
read only if its sum is the known one.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from senet.data.source import InMemory, Splits
from senet.errors import DataError, MissingExtraError


@dataclass(frozen=True)
class _DataSet:
    """A class of ``torchvision.datasets``, the shape of its images, and where its files lie in DIR."""

    name: str
    shape: tuple[int, ...]
    files: str
    fetched: str


# CIFAR: Krizhevsky 2009. Fashion-MNIST: Xiao, Rasul and Vollgraf 2017 (arXiv 1708.07747).
DOWNLOADS = {
    "cifar10": _DataSet(
        "CIFAR10", (32, 32, 3), "cifar-10-batches-py/data_batch_1 and so on", "cifar-10-python.tar.gz"
    ),
    "cifar100": _DataSet(
        "CIFAR100", (32, 32, 3), "cifar-100-python/train and so on", "cifar-100-python.tar.gz"
    ),
    "fashion-mnist": _DataSet(
        "FashionMNIST",
        (28, 28),
        "FashionMNIST/raw/train-images-idx3-ubyte and so on",
        "FashionMNIST/raw/train-images-idx3-ubyte.gz and so on",
    ),
}


def open_download(scheme: str, place: str) -> Splits:
    """The data set ``scheme`` in the folder ``place``; what is missing there is fetched.

    Raises:
        DataError: the files are missing or broken, and cannot be fetched.
    """
    try:
        from torchvision import datasets
    except ImportError as error:
        raise MissingExtraError.of("torchvision", extra="train", need=f"the data {scheme}") from error
    wanted, root = DOWNLOADS[scheme], Path(os.path.expanduser(place))
    opened = getattr(datasets, wanted.name)
    # Broken files end in any kind of exception.
    try:
        train, test = _splits(opened, root, download=False)
    except Exception:
        try:
            with _alone_in(root):
                train, test = _splits(opened, root, download=True)
        except Exception as error:
            urls = ", ".join(getattr(opened, "mirrors", None) or [opened.url])
            raise DataError(
                f"data '{scheme}:{place}'",
                found=f"its files are missing or broken, and fetching them from {urls} failed "
                f"({' '.join(str(error).split())})",
                allowed=f"{root}/{wanted.files}, whole, or to unpack them from {root}/{wanted.fetched}",
                do="Put them there and remove broken ones; folder:DIR and shards:DIR need no network either.",
            ) from error
    sources = [_in_memory(scheme, split, wanted, root) for split in (train, test)]
    return Splits(
        name=f"{scheme}:{place}",
        description=f"{wanted.name}, {len(train):,} images to train on, {len(test):,} to test on (the "
        f"official split), {len(train.classes)} classes",
        train=sources[0],
        test=sources[1],
        classes=tuple(train.classes),
        channels=3 if len(wanted.shape) == 3 else 1,
    )


def _splits(opened: Any, root: Path, *, download: bool) -> tuple[Any, Any]:
    return opened(root, train=True, download=download), opened(root, train=False)


def _in_memory(scheme: str, split: Any, wanted: _DataSet, root: Path) -> InMemory:
    images, labels = np.asarray(split.data), np.asarray(split.targets, np.int64)
    classes = len(split.classes)
    # Fashion-MNIST's unpacked files have no sums.
    if images.shape != (len(labels), *wanted.shape) or images.dtype != np.uint8:
        found = f"{len(labels)} labels and images of the shape {images.shape}"
    elif not len(labels) or labels.min() < 0 or labels.max() >= classes:
        found = f"labels that are not 0 to {classes - 1}"
    else:
        return InMemory(images, labels)
    raise DataError(
        f"data '{scheme}:{root}'",
        f"its files hold {found}",
        do=f"Remove {root}/{wanted.files} and try again.",
    )


@contextlib.contextmanager
def _alone_in(root: Path) -> Iterator[None]:
    """Makes the folder; other processes that fetch into it wait until this one is done."""
    import fcntl

    root.mkdir(parents=True, exist_ok=True)
    handle = os.open(root, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
