"""The order of images, and the loaders that follow it.

Which images make up step k, and how each is augmented, are pure functions of the seed: neither the
number of workers or processes nor a stop and a later start change them.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch._C import _error_if_any_worker_fails
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from senet.data.source import Readable
from senet.errors import DataError, RunError
from senet.runtime.processes import ALONE, Processes
from senet.runtime.watch import note

# The last of the numbers that a seed is made of: what it is for. An augmentation has its repeat there.
NOISE = 1
_REPLACEMENT = 2
_REPEATS = 16
# After so many broken images in a row it is the disk, and not an image.
_MOST_REPLACEMENTS = 8


class SampleKey(NamedTuple):
    """Image number ``image`` in epoch number ``epoch``, for the ``repeat``-th time."""

    epoch: int
    image: int
    repeat: int = 0


class Broken(NamedTuple):
    """An image that cannot be read: its number, and why."""

    image: int
    why: str


class Seconds(NamedTuple):
    """What images took to prepare: all of it, and the part in which the processor worked.

    In the rest it waited for files, or for other processes to leave a core.
    """

    preparing: float = 0.0
    computing: float = 0.0


class Sample(NamedTuple):
    """A prepared image, None if there is none; and what was broken on the way to it.

    It is uint8 (C, H, W), or what another task's transform gives.
    """

    image: Any
    label: int
    broken: list[Broken]
    seconds: Seconds = Seconds()


class Batch(NamedTuple):
    """Images and what is known of each, and the broken images that are not among them.

    They are uint8 (B, C, H, W) with labels (B,), or as another task collates them.
    """

    images: Any
    labels: Any
    broken: list[Broken]
    seconds: Seconds = Seconds()


class Images(Dataset[Sample]):
    """Prepared images by key.

    Args:
        source: the images.
        transform: PIL image to uint8 tensor, or as another task has it; may draw from torch's global
            generator.
        seed: of the run.
        replace: whether another image stands in for a broken one; which one is decided by seed and key.
    """

    def __init__(
        self, source: Readable, transform: Callable[[Any], Any], seed: int, *, replace: bool = False
    ) -> None:
        self.source = source
        self.transform = transform
        self.seed = seed
        self.replace = replace

    def __getitem__(self, key: SampleKey) -> Sample:
        started, computed = time.perf_counter(), time.thread_time()
        sample = self._sample(key)
        seconds = Seconds(time.perf_counter() - started, time.thread_time() - computed)
        return sample._replace(seconds=seconds)

    def _sample(self, key: SampleKey) -> Sample:
        broken: list[Broken] = []
        image = key.image
        for attempt in range(1 + self.replace * _MOST_REPLACEMENTS):
            try:
                picture, label = self.source.read(image)
            except DataError as error:
                # Names of files may be bytes that are no text.
                why = str(error).encode("utf-8", "backslashreplace").decode()
                broken.append(Broken(image, why))
                image = seed_of(self.seed, key.epoch, key.image, attempt, _REPLACEMENT) % len(self.source)
                continue
            return Sample(self._augmented(picture, key), label, broken)
        return Sample(None, -1, broken)

    def _augmented(self, picture: Any, key: SampleKey) -> Any:
        generator = torch.default_generator
        before = generator.get_state()
        # Of the seed and the key alone, and the caller's generator is untouched.
        # Not torch.manual_seed: it also queues a seeding of every GPU, each time.
        repeat = (_REPEATS + key.repeat,) if key.repeat else ()
        generator.manual_seed(seed_of(self.seed, key.epoch, key.image, *repeat))
        try:
            return self.transform(picture)
        finally:
            generator.set_state(before)


class TrainingBatches(Sampler[list[SampleKey]]):
    """The keys of every batch of a run, epoch after epoch.

    A step's images are shared out among the processes, and a process takes its share in ``parts``; the
    shares differ by one image at most. The images at the end of an epoch that do not fill a step are left
    out of it.

    Args:
        images: how many there are.
        batch_size: images a step, over all processes; all of them where there are fewer.
        epochs: of the whole run.
        seed: of the run.
        start: the step to begin with.
        parts: batches a step for each process.
        repeats: each epoch shows 1 / repeats of the images, each that often (repeated augmentation,
            Hoffer et al. 2019, arXiv 1901.09335).
        labels: for class-balanced sampling, the class of each image: every class is shown equally
            often (Shen et al. 2016, arXiv 1512.05830, section 3.3).
        processes: which shares there are, and which is this one's.
    """

    def __init__(
        self,
        images: int,
        batch_size: int,
        epochs: int,
        seed: int,
        start: int = 0,
        *,
        parts: int = 1,
        repeats: int = 1,
        labels: npt.NDArray[np.int64] | None = None,
        processes: Processes = ALONE,
    ) -> None:
        self.images = images
        self.shown = images // repeats * repeats  # an epoch
        self.batch_size = min(batch_size, self.shown)
        self.epochs = epochs
        self.seed = seed
        self.start = start
        self.parts = parts
        self.repeats = repeats
        self.labels = labels
        self.processes = processes

    @property
    def steps_per_epoch(self) -> int:
        """Steps an epoch."""
        return self.shown // self.batch_size

    def __len__(self) -> int:
        return (self.epochs * self.steps_per_epoch - self.start) * self.parts

    def __iter__(self) -> Iterator[list[SampleKey]]:
        first, skip = divmod(self.start, self.steps_per_epoch)
        shares = self.parts * self.processes.count
        for epoch in range(first, self.epochs):
            order, repeats = self._order(epoch)
            for step in range(skip, self.steps_per_epoch):
                for part in range(self.parts):
                    share = part * self.processes.count + self.processes.rank
                    begin, end = (
                        step * self.batch_size + self.batch_size * edge // shares
                        for edge in (share, share + 1)
                    )
                    chosen = zip(order[begin:end].tolist(), repeats[begin:end].tolist(), strict=True)
                    yield [SampleKey(epoch, image, repeat) for image, repeat in chosen]
            skip = 0

    def _order(self, epoch: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The images of an epoch in their order, and for the how-manieth time each stands there."""
        generator = np.random.default_rng((self.seed, epoch))
        if self.labels is not None:
            return _balanced(self.labels, generator)
        once = generator.permutation(self.images)
        if self.repeats == 1:
            return once, np.zeros_like(once)
        once = once[: self.images // self.repeats]
        # Shuffled within each step: mixing pairs neighbours, and not an image with itself.
        places = np.arange(self.shown)
        for begin in range(0, self.shown, self.batch_size):
            generator.shuffle(places[begin : begin + self.batch_size])
        return once[places // self.repeats], places % self.repeats


def _balanced(
    labels: npt.NDArray[np.int64], generator: np.random.Generator
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """As many images as there are: rounds of all classes, each with the next image of its class."""
    images = len(labels)
    shuffled = np.lexsort((generator.random(images), labels))  # class by class, at random within
    _, starts, counts = np.unique(labels[shuffled], return_index=True, return_counts=True)
    rounds = -(-images // len(counts))
    classes = generator.permuted(np.tile(np.arange(len(counts)), (rounds, 1)), axis=1).ravel()[:images]
    round_of = np.repeat(np.arange(rounds), len(counts))[:images]
    return shuffled[starts[classes] + round_of % counts[classes]], round_of // counts[classes]


class BatchesInOrder(Sampler[list[SampleKey]]):
    """Every image once, in order; of several processes each takes every so-manieth batch.

    Args:
        images: how many there are.
        batch_size: images a batch; the last may have fewer.
        processes: which batches are this process's.
    """

    def __init__(self, images: int, batch_size: int, processes: Processes = ALONE) -> None:
        self.images = images
        self.batch_size = batch_size
        self.firsts = range(processes.rank * batch_size, images, processes.count * batch_size)

    def __len__(self) -> int:
        return len(self.firsts)

    def __iter__(self) -> Iterator[list[SampleKey]]:
        for first in self.firsts:
            yield [SampleKey(0, index) for index in range(first, min(first + self.batch_size, self.images))]


def collated(samples: list[Sample]) -> Batch:
    """The batch of samples of one shape."""
    whole = [(sample.image, sample.label) for sample in samples if sample.image is not None]
    images, labels = default_collate(whole) if whole else (torch.empty(0), torch.empty(0, dtype=torch.int64))
    return Batch(images, labels, [broken for sample in samples for broken in sample.broken], spent(samples))


def spent(samples: list[Sample]) -> Seconds:
    """What these samples took, together."""
    return Seconds(
        sum(sample.seconds.preparing for sample in samples),
        sum(sample.seconds.computing for sample in samples),
    )


class Loader:
    """Batches in the order of ``batches``.

    Args:
        images: the prepared images.
        batches: which of them make up each batch.
        workers: processes that prepare images; 0 does it in this one.
        pin_memory: whether batches lie in page-locked memory, for a GPU.
        collate: makes a batch of samples.

    Raises:
        RunError: a worker has died (while iterating).
    """

    def __init__(
        self,
        images: Images,
        batches: Sampler[list[SampleKey]],
        *,
        workers: int,
        pin_memory: bool = False,
        collate: Callable[[list[Sample]], Batch] = collated,
    ) -> None:
        self._loader: DataLoader[Any] = DataLoader(
            images,
            batch_sampler=batches,
            num_workers=workers,
            pin_memory=pin_memory,
            collate_fn=collate,
            worker_init_fn=_start_worker if workers else None,
            # A worker of a server of forks would not notice that this process is gone.
            multiprocessing_context="fork" if workers else None,
        )

    def __iter__(self) -> Iterator[Batch]:
        before = signal.getsignal(signal.SIGCHLD)
        batches: Any = iter(self._loader)
        if self._loader.num_workers == 0:
            while True:
                note("prepares images")
                batch = next(batches, None)
                if batch is None:
                    return
                note("computes")
                yield batch
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCHLD, before)  # PyTorch has set its own
        # However the program ends: at its exit it would wait for workers that leave SIGTERM to the run.
        end = functools.partial(_end, batches)
        atexit.register(end)
        try:
            while True:
                note("waits for images")
                with _deaths_raise():
                    batch = next(batches, None)
                if batch is None:
                    return
                note("computes")
                yield Batch(*batch)
        except (EOFError, OSError, RuntimeError) as error:
            who = _dead_worker(error)
            if who is None:
                raise
            raise RunError(
                "preparing images",
                found=f"a process that does it has died ({who})",
                do="Killed: the machine is short of memory, so ask for fewer --workers. A training goes on "
                "from its last checkpoint with `senet train --resume RUN`.",
            ) from error
        finally:
            # Now, and not when the error is forgotten: until then PyTorch counts the dead.
            end()
            atexit.unregister(end)


def _start_worker(_worker: int) -> None:
    # The processes already share the cores; each decoding with all of them only waits.
    torch.set_num_threads(1)
    # A signal to the whole group stops the run, which then stops its workers.
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)


@contextlib.contextmanager
def _deaths_raise() -> Iterator[None]:
    """While the body waits for the workers, the death of one is an error at once.

    And at no other time: PyTorch by itself raises it at whatever line the program is.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # which takes no signals: PyTorch looks every five seconds
        return
    before = signal.signal(signal.SIGCHLD, lambda _number, _frame: _error_if_any_worker_fails())
    try:
        _error_if_any_worker_fails()
        yield
    finally:
        signal.signal(signal.SIGCHLD, before)


def _end(batches: Any) -> None:
    """Ends the workers of a loader, also one that hangs in a read."""
    batches._shutdown_workers()
    for worker in batches._workers:
        if worker.is_alive():
            worker.kill()


def _dead_worker(error: Exception) -> str | None:
    """PyTorch's words about the worker that died; None where none did, and something else is wrong."""
    for _ in range(10):
        if "DataLoader worker" in str(error):
            return str(error).splitlines()[0].strip()
        # It may have died in the middle of a message: then the message broke before the death is known.
        try:
            _error_if_any_worker_fails()
        except RuntimeError as death:
            error = death
        else:
            time.sleep(0.1)
    return None


def seed_of(*values: int) -> int:
    """One seed from several numbers, the same on every machine."""
    return int(np.random.SeedSequence(values).generate_state(1, np.uint64)[0] >> np.uint64(1))
