from collections import Counter
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from senet.data import open_data
from senet.data.preprocessing import Preprocessing, preprocessing_for
from senet.data.stream import BatchesInOrder, Images, Loader, TrainingBatches
from senet.errors import DataError


@given(
    images=st.integers(1, 60),
    batch_size=st.integers(1, 70),
    epochs=st.integers(1, 4),
    seed=st.integers(0, 1000),
    data=st.data(),
)
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


def test_the_order_depends_on_seed_and_epoch() -> None:
    first, second = list(TrainingBatches(50, 50, 2, seed=0))
    (other,) = list(TrainingBatches(50, 50, 1, seed=1))
    orders = [[key.image for key in batch] for batch in (first, second, other)]
    assert len({tuple(order) for order in orders}) == 3


@given(images=st.integers(1, 40), batch_size=st.integers(1, 50))
def test_batches_in_order(images: int, batch_size: int) -> None:
    order = BatchesInOrder(images, batch_size)
    batches = list(order)
    assert len(order) == len(batches)
    assert [key.image for batch in batches for key in batch] == list(range(images))


def _batches(workers: int, seed: int = 0, start: int = 0) -> list[tuple[Tensor, Tensor]]:
    source = open_data("digits").train
    preprocessing = preprocessing_for(source, 1, image_size=None, network_size=32)
    augment = preprocessing.training(crop="pad", pad=2, flip=True)
    order = TrainingBatches(len(source), 400, 2, seed, start)
    return [
        (images, labels) for images, labels in Loader(Images(source, augment, seed), order, workers=workers)
    ]


def _equal(one: list[tuple[Tensor, Tensor]], other: list[tuple[Tensor, Tensor]]) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_do_not_depend_on_the_workers(workers: int) -> None:
    alone = _batches(0)
    assert _equal(_batches(workers), alone)
    assert not _equal(_batches(0, seed=1), alone)
    assert _equal(_batches(workers, start=4), alone[4:])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_image_is_named_whoever_reads_it(workers: int, image_folder: Path) -> None:
    (image_folder / "train" / "cat" / "1.png").write_bytes(b"broken")
    source = open_data(f"folder:{image_folder}").train
    images = Images(source, Preprocessing(3, 8, 8, (0.5,) * 3, (0.5,) * 3).evaluation(), 0)
    with pytest.raises(DataError, match=r"^reading \S+cat/1\.png: this is no whole image") as caught:
        list(Loader(images, BatchesInOrder(6, 3), workers=workers))
    assert len(str(caught.value).splitlines()) == 1


def test_augmentation_changes_with_the_epoch_and_leaves_the_generator_alone() -> None:
    source = open_data("digits").train
    augment = preprocessing_for(source, 1, image_size=None, network_size=32).training(
        crop="pad", pad=3, flip=False
    )
    images = Images(source, augment, seed=0)
    key = next(iter(TrainingBatches(5, 1, 1, 0)))[0]
    before = torch.get_rng_state()

    def version(epoch: int) -> Tensor:
        prepared = images[key._replace(epoch=epoch)]
        assert not isinstance(prepared, DataError)
        return prepared[0]

    versions = [version(epoch) for epoch in range(8)]
    assert torch.equal(torch.get_rng_state(), before)
    assert len({version.numpy().tobytes() for version in versions}) > 3
    assert torch.equal(version(key.epoch), versions[0])
