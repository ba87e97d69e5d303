"""The order of images, and the loaders that follow it.

Which images make up step k, and how each is augmented, are pure functions of the seed:
neither the number of workers nor a stop and a later start change them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from senet.data.preprocessing import Transform
from senet.data.source import Source
from senet.errors import DataError


class SampleKey(NamedTuple):
    """Image number ``image`` in epoch number ``epoch``."""

    epoch: int
    image: int


class Images(Dataset[tuple[Tensor, int] | DataError]):
    """Prepared images by key; a broken one is its error, as a value.

    Args:
        source: the images.
        transform: PIL image to uint8 tensor; may draw from torch's global generator.
        seed: of the run.
    """

    def __init__(self, source: Source, transform: Transform, seed: int) -> None:
        self.source = source
        self.transform = transform
        self.seed = seed

    def __getitem__(self, key: SampleKey) -> tuple[Tensor, int] | DataError:
        try:
            image, label = self.source.read(key.image)
        except DataError as error:
            return error
        generator = torch.default_generator
        before = generator.get_state()
        # Of the seed, the epoch and the image alone, and the caller's generator is untouched.
        # Not torch.manual_seed: it also queues a seeding of every GPU, each time.
        generator.manual_seed(seed_of(self.seed, key.epoch, key.image))
        try:
            return self.transform(image), label
        finally:
            generator.set_state(before)


class TrainingBatches(Sampler[list[SampleKey]]):
    """The keys of every batch of a run, epoch after epoch.

    The images at the end of an epoch that do not fill a batch are left out of it.

    Args:
        images: how many there are.
        batch_size: images a step; all of them where there are fewer.
        epochs: of the whole run.
        seed: of the run.
        start: the step to begin with.
    """

    def __init__(self, images: int, batch_size: int, epochs: int, seed: int, start: int = 0) -> None:
        self.images = images
        self.batch_size = min(batch_size, images)
        self.epochs = epochs
        self.seed = seed
        self.start = start

    @property
    def steps_per_epoch(self) -> int:
        """Batches an epoch."""
        return self.images // self.batch_size

    def __len__(self) -> int:
        return self.epochs * self.steps_per_epoch - self.start

    def __iter__(self) -> Iterator[list[SampleKey]]:
        first, skip = divmod(self.start, self.steps_per_epoch)
        for epoch in range(first, self.epochs):
            order = np.random.default_rng((self.seed, epoch)).permutation(self.images).tolist()
            for step in range(skip, self.steps_per_epoch):
                chosen = order[step * self.batch_size : (step + 1) * self.batch_size]
                yield [SampleKey(epoch, index) for index in chosen]
            skip = 0


class BatchesInOrder(Sampler[list[SampleKey]]):
    """Every image once, in order.

    Args:
        images: how many there are.
        batch_size: images a batch; the last may have fewer.
    """

    def __init__(self, images: int, batch_size: int) -> None:
        self.images = images
        self.batch_size = batch_size

    def __len__(self) -> int:
        return -(-self.images // self.batch_size)

    def __iter__(self) -> Iterator[list[SampleKey]]:
        for first in range(0, self.images, self.batch_size):
            yield [SampleKey(0, index) for index in range(first, min(first + self.batch_size, self.images))]


class Loader:
    """Batches of uint8 images (B, C, H, W) with labels (B,), in the order of ``batches``.

    Args:
        images: the prepared images.
        batches: which of them make up each batch.
        workers: processes that prepare images; 0 does it in this one.
        pin_memory: whether batches lie in page-locked memory, for a GPU.

    Raises:
        DataError: an image is broken (while iterating, from whichever process read it).
    """

    def __init__(
        self, images: Images, batches: Sampler[list[SampleKey]], *, workers: int, pin_memory: bool = False
    ) -> None:
        self._loader: DataLoader[Any] = DataLoader(
            images,
            batch_sampler=batches,
            num_workers=workers,
            pin_memory=pin_memory,
            collate_fn=_collate,
            # The processes already share the cores; each decoding with all of them only waits.
            worker_init_fn=_single_threaded if workers else None,
        )

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in self._loader:
            if isinstance(batch, DataError):
                raise batch
            images, labels = batch
            yield images, labels


def _collate(samples: list[tuple[Tensor, int] | DataError]) -> Any:
    # An error travels as a value: raised in a worker it would arrive as a traceback in words.
    broken = [sample for sample in samples if isinstance(sample, DataError)]
    return broken[0] if broken else default_collate(samples)


def _single_threaded(_worker: int) -> None:
    torch.set_num_threads(1)


def seed_of(*values: int) -> int:
    """One seed from several numbers, the same on every machine."""
    return int(np.random.SeedSequence(values).generate_state(1, np.uint64)[0] >> np.uint64(1))
