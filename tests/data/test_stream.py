import gc
import os
import signal
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from senet.data import open_data
from senet.data.augmentation import Augmentation, training_transform
from senet.data.preprocessing import Preprocessing, preprocessing_for
from senet.data.stream import (
    Batch,
    BatchesInOrder,
    Broken,
    Images,
    Loader,
    SampleKey,
    TrainingBatches,
    seed_of,
)
from senet.errors import DataError, RunError
from senet.runtime.processes import Processes

sizes = {
    "images": st.integers(1, 60),
    "batch_size": st.integers(1, 70),
    "epochs": st.integers(1, 4),
    "seed": st.integers(0, 1000),
}


@given(**sizes, data=st.data())
def test_training_batches(images: int, batch_size: int, epochs: int, seed: int, data: st.DataObject) -> None:
    order = TrainingBatches(images, batch_size, epochs, seed)
    batches = list(order)
    assert len(batches) == len(order) == epochs * order.steps_per_epoch
    assert {len(batch) for batch in batches} == {min(batch_size, images)}
    for epoch in range(epochs):
        keys = [key for batch in batches for key in batch if key.epoch == epoch]
        assert max(Counter(keys).values()) == 1, "an image once an epoch"
        assert all(0 <= key.image < images for key in keys)
        assert images - len(keys) < order.batch_size, "only what fills no batch is left out"
    start = data.draw(st.integers(0, len(batches)))
    assert list(TrainingBatches(images, batch_size, epochs, seed, start)) == batches[start:]


@given(**sizes, count=st.integers(1, 5), parts=st.integers(1, 4), data=st.data())
def test_a_step_is_the_same_however_it_is_shared_out(
    images: int, batch_size: int, epochs: int, seed: int, count: int, parts: int, data: st.DataObject
) -> None:
    whole = list(TrainingBatches(images, batch_size, epochs, seed))
    start = data.draw(st.integers(0, len(whole)))
    shares = [
        list(
            TrainingBatches(
                images, batch_size, epochs, seed, start, parts=parts, processes=Processes(rank, count)
            )
        )
        for rank in range(count)
    ]
    for step, wanted in enumerate(whole[start:]):
        of_step = [share[step * parts : (step + 1) * parts] for share in shares]
        found = [key for part in range(parts) for share in of_step for key in share[part]]
        assert found == wanted, "the same images in the same order"
        lengths = {len(part) for share in of_step for part in share}
        assert max(lengths) - min(lengths) <= 1
    assert {len(share) for share in shares} == {parts * (len(whole) - start)}


@given(images=st.integers(1, 80), repeats=st.integers(1, 5), batch_size=st.integers(1, 20))
def test_repeated_augmentation(images: int, repeats: int, batch_size: int) -> None:
    order = TrainingBatches(images, batch_size, 1, 0, repeats=min(repeats, images))
    keys = [key for batch in order for key in batch]
    assert len(keys) == order.steps_per_epoch * order.batch_size
    shown = Counter(key.image for key in keys)
    assert max(shown.values()) <= order.repeats
    # Only the last image of the last step may be cut short.
    assert sum(count < order.repeats for count in shown.values()) <= 1
    assert max(Counter(keys).values()) == 1, "each time with another augmentation"


@given(labels=st.lists(st.integers(0, 6), min_size=1, max_size=80).map(np.asarray), seed=st.integers(0, 100))
def test_balanced_sampling_shows_every_class_equally_often(labels: npt.NDArray[np.int64], seed: int) -> None:
    (batch,) = TrainingBatches(len(labels), len(labels), 1, seed, labels=labels)
    classes = Counter(int(labels[key.image]) for key in batch)
    assert max(classes.values()) - min(classes.values()) <= 1
    assert set(classes) == set(labels.tolist()) or len(batch) < len(set(labels.tolist()))
    assert max(Counter(batch).values()) == 1, "a repeat has another augmentation"
    for name, count in classes.items():
        shown = Counter(key.image for key in batch if labels[key.image] == name)
        assert max(shown.values()) - min(shown.values()) <= 1 or count < len(shown)
        assert max(shown.values()) <= -(-count // int((labels == name).sum()))


def test_the_order_depends_on_seed_and_epoch() -> None:
    first, second = list(TrainingBatches(50, 50, 2, seed=0))
    (other,) = list(TrainingBatches(50, 50, 1, seed=1))
    orders = [[key.image for key in batch] for batch in (first, second, other)]
    assert len({tuple(order) for order in orders}) == 3


@given(images=st.integers(1, 40), batch_size=st.integers(1, 50), count=st.integers(1, 5))
def test_batches_in_order(images: int, batch_size: int, count: int) -> None:
    shares = [BatchesInOrder(images, batch_size, Processes(rank, count)) for rank in range(count)]
    batches = [list(share) for share in shares]
    assert [len(share) for share in shares] == [len(share) for share in batches]
    together = [share[index] for index in range(len(batches[0])) for share in batches if index < len(share)]
    assert [key.image for batch in together for key in batch] == list(range(images))
    assert together == list(BatchesInOrder(images, batch_size))


def _batches(workers: int, seed: int = 0, start: int = 0) -> list[Batch]:
    source = open_data("digits").train
    preprocessing = preprocessing_for(source, 1, image_size=None, network_size=32)
    augment = training_transform(preprocessing, Augmentation(crop="pad", pad=2, flip=True))
    order = TrainingBatches(len(source), 400, 2, seed, start)
    return list(Loader(Images(source, augment, seed), order, workers=workers))


def _equal(one: list[Batch], other: list[Batch]) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels)
        for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_do_not_depend_on_the_workers(workers: int) -> None:
    alone = _batches(0)
    assert _equal(_batches(workers), alone)
    assert not _equal(_batches(0, seed=1), alone)
    assert _equal(_batches(workers, start=4), alone[4:])


class Numbers:
    """Images whose every pixel is their number; those that ``broken`` has cannot be read."""

    def __init__(self, count: int, broken: set[int]) -> None:
        self.labels = np.arange(count)
        self.broken = broken

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, index: int) -> tuple[Any, int]:
        if index in self.broken:
            raise DataError(f"reading {index}.png", "it is broken")
        return Image.new("L", (2, 2), index), index


class Slow(Numbers):
    """Images that come as over a slow link."""

    def read(self, index: int) -> tuple[Any, int]:
        time.sleep(0.02)
        return super().read(index)


EVALUATION = Preprocessing(1, 2, 2, (0.5,), (0.5,)).evaluation()


@pytest.mark.parametrize("workers", [0, 1])
def test_without_replacement_a_broken_image_is_left_out_and_named(workers: int) -> None:
    source = Numbers(6, {1, 4, 5})
    first, second, third = Loader(Images(source, EVALUATION, 0), BatchesInOrder(6, 2), workers=workers)
    assert first.labels.tolist() == [0]
    assert first.images.shape == (1, 1, 2, 2)
    assert first.broken == [Broken(1, "reading 1.png: it is broken.")]
    assert second.labels.tolist() == [2, 3]
    assert (len(third.images), len(third.labels)) == (0, 0)
    assert [each.image for each in third.broken] == [4, 5]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_batch_knows_what_it_took_to_prepare(workers: int) -> None:
    (batch,) = Loader(Images(Slow(3, {2}), EVALUATION, 0), BatchesInOrder(3, 3), workers=workers)
    assert batch.seconds.preparing >= 3 * 0.02
    assert batch.seconds.computing <= batch.seconds.preparing - 3 * 0.015


def test_a_broken_image_is_replaced_by_one_that_seed_and_key_decide() -> None:
    broken = {1, 4, 5, 7, 8}
    images = Images(Numbers(12, broken), EVALUATION, 3, replace=True)
    stands_in = {}
    for epoch in range(4):
        for image in range(12):
            sample = images[SampleKey(epoch, image)]
            assert sample.image is not None
            assert int(sample.image[0, 0, 0]) == sample.label
            if image not in broken:
                assert (sample.label, sample.broken) == (image, [])
                continue
            assert sample.broken[0].image == image
            assert {each.image for each in sample.broken} <= broken
            stands_in[epoch, image] = sample.label
            assert images[SampleKey(epoch, image)].label == sample.label
    assert set(stands_in.values()) & broken == set()
    assert len(set(stands_in.values())) > 3, "not always the same"


def test_a_source_that_is_gone_is_no_endless_search() -> None:
    sample = Images(Numbers(5, set(range(5))), EVALUATION, 0, replace=True)[SampleKey(0, 2)]
    assert sample.image is None
    assert sample.broken[0].image == 2


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_file_is_named_whoever_reads_it(workers: int, image_folder: Path) -> None:
    (image_folder / "train" / "cat" / "1.png").write_bytes(b"broken")
    source = open_data(f"folder:{image_folder}").train
    images = Images(source, Preprocessing(3, 8, 8, (0.5,) * 3, (0.5,) * 3).evaluation(), 0)
    (found,) = [
        each for batch in Loader(images, BatchesInOrder(6, 3), workers=workers) for each in batch.broken
    ]
    assert found.why.startswith(f"reading {image_folder}/train/cat/1.png: this is no whole image")


def test_augmentation_changes_with_the_key_and_leaves_the_generator_alone() -> None:
    source = open_data("digits").train
    preprocessing = preprocessing_for(source, 1, image_size=None, network_size=32)
    augment = training_transform(preprocessing, Augmentation(crop="pad", pad=3))
    images = Images(source, augment, seed=0)
    before = torch.get_rng_state()

    def version(epoch: int, repeat: int = 0) -> bytes:
        prepared = images[SampleKey(epoch, 7, repeat)].image
        assert prepared is not None
        return bytes(prepared.numpy().tobytes())

    assert len({version(epoch) for epoch in range(8)}) > 3
    assert len({version(0, repeat) for repeat in range(8)}) > 3
    assert version(2, 1) == version(2, 1)
    assert torch.equal(torch.get_rng_state(), before)


def test_seeds_for_different_ends_differ() -> None:
    """Numbers that end in zeros would be the same seed as without them: no end has the number zero."""
    assert seed_of(1, 2, 3) == seed_of(1, 2, 3, 0)
    assert len({seed_of(1, 2, 3, end) for end in (0, 1, 2, 17, 18)}) == 5


def _killed(pid_file: Path) -> Iterator[Batch]:
    class Dying(Numbers):
        def read(self, index: int) -> tuple[Any, int]:
            if index == 9:
                pid_file.write_text(str(os.getpid()))
                os.kill(os.getpid(), signal.SIGKILL)
            return super().read(index)

    yield from Loader(Images(Dying(20, set()), EVALUATION, 0), BatchesInOrder(20, 2), workers=2)


@pytest.fixture
def half_made_sockets() -> Iterator[None]:
    """A death can be raised between the making of PyTorch's socket and the block that closes it."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.mark.usefixtures("half_made_sockets")
def test_a_worker_that_dies_is_named_and_the_others_end(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    with pytest.raises(RunError, match=r"a process that does it has died \(DataLoader worker") as caught:
        list(_killed(pid_file))
    assert pid_file.read_text() in str(caught.value)
    assert "--resume" in str(caught.value)
    assert not torch.multiprocessing.active_children()
    # The dead are forgotten, though the error is not.
    images = Images(Numbers(4, set()), EVALUATION, 0)
    assert len(list(Loader(images, BatchesInOrder(4, 2), workers=1))) == 2


@pytest.mark.usefixtures("half_made_sockets")
def test_a_death_is_noticed_where_images_are_asked_for_and_nowhere_else(tmp_path: Path) -> None:
    batches = _killed(tmp_path / "pid")
    first = next(batches)
    while not (tmp_path / "pid").exists():
        time.sleep(0.01)
    os.system("true")  # another child that ends
    assert first.labels.tolist() == [0, 1]
    with pytest.raises(RunError, match="has died"):
        list(batches)


def _signalled() -> Iterator[Batch]:
    class Slow(Numbers):
        def read(self, index: int) -> tuple[Any, int]:
            # A signal to the whole group, as a terminal or a scheduler sends it.
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)
            return super().read(index)

    yield from Loader(Images(Slow(6, set()), EVALUATION, 0), BatchesInOrder(6, 2), workers=2)


def test_workers_leave_signals_to_the_run() -> None:
    assert [label for batch in _signalled() for label in batch.labels.tolist()] == list(range(6))
