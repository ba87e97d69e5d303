import json
import math
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.evaluation.networks import CPU, Memory, Pixels
from torch import Tensor, nn
from torch.multiprocessing.spawn import start_processes

from senet.data import open_data
from senet.data.preprocessing import Preprocessing
from senet.data.stream import Batch, Broken
from senet.errors import DataError
from senet.evaluation.classification import Batches, Evaluation, Scored, batches_of, count, evaluate
from senet.runtime.processes import ALONE, Processes, joined

PREPROCESSING = Memory.preprocessing


def _count_by_hand(scores: Tensor, labels: Tensor, k: int) -> int:
    correct = 0
    for row, label in zip(scores.tolist(), labels.tolist(), strict=True):
        correct += sorted(range(len(row)), key=lambda i: -row[i]).index(label) < k
    return correct


@pytest.mark.parametrize("side", [1, 2, 3])
def test_counts_are_exact_for_any_batches(side: int) -> None:
    classes = side * side
    # All scores of an image differ, so that there is one right order.
    images = torch.stack([torch.randperm(200)[:classes] for _ in range(53)]).to(torch.uint8)
    images = images.view(53, 1, side, side)
    labels = torch.randint(classes, (53,))
    found = []
    for size in (1, 7, 53):
        pairs = zip(images.split(size), labels.split(size), strict=True)
        batches = [Batch(some, theirs, []) for some, theirs in pairs]
        found.append(evaluate(Pixels(), batches, PREPROCESSING, device=CPU))
    scores = images.flatten(1).float()
    assert {(e.images, e.correct1, e.correct5) for e in found} == {
        (53, _count_by_hand(scores, labels, 1), _count_by_hand(scores, labels, 5))
    }
    loss = torch.nn.functional.cross_entropy(scores.double(), labels).item()
    assert all(math.isclose(e.loss, loss, rel_tol=1e-5) for e in found)


class Gathering(Processes):
    """A process without a group, which notes what it would have told the others."""

    def total(self, tensor: Tensor) -> Tensor:
        self.said.append(tensor.clone())
        return tensor

    def gather(self, value: Any) -> list[Any]:
        self.said.append(value)
        return [value]

    @property
    def said(self) -> list[Any]:
        return self.__dict__.setdefault("_said", [])  # type: ignore[no-any-return]


@settings(max_examples=50)
@given(
    images=st.integers(1, 40),
    batch_size=st.integers(1, 12),
    processes=st.sampled_from([1, 2, 3, 5]),
    data=st.data(),
)
def test_the_shares_of_any_number_of_processes_are_the_whole(
    images: int, batch_size: int, processes: int, data: st.DataObject
) -> None:
    broken = data.draw(st.lists(st.integers(0, images - 1), unique=True, max_size=images - 1))
    source = Memory(images, tuple(broken))

    def found(share: Processes) -> Evaluation | None:
        batches = batches_of(source, PREPROCESSING, batch_size=batch_size, processes=share)
        try:
            return evaluate(Pixels(), batches, PREPROCESSING, device=CPU, processes=share)
        except DataError:  # it has none of its own that can be read
            return None

    whole = found(ALONE)
    assert whole is not None
    assert (whole.images, whole.correct1) == (images, source.correct1())
    assert whole.correct5 == images - len(broken), "there are only four classes"
    assert whole.broken == tuple(f"reading image {each}: it is broken." for each in sorted(broken))
    shares = [Gathering(rank, processes) for rank in range(processes)]
    for share in shares:
        found(share)
    counts = sum(share.said[0] for share in shares)
    assert counts.tolist() == [whole.correct1, whole.correct5, images - len(broken)]
    unread = sorted(each for share in shares for each in share.said[1])
    assert [each.image for each in unread] == sorted(broken)
    loss = sum(share.said[2].item() for share in shares if len(share.said) > 2) / (images - len(broken))
    assert math.isclose(loss, whole.loss, rel_tol=1e-9)


def _share(rank: int, number: int, port: int, folder: Path) -> None:
    """What one of so many processes does: evaluates its share, and writes down what it found."""
    torch.set_num_threads(1)
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": number, "RANK": rank}
    os.environ.update({name: str(value) for name, value in where.items()})
    source = Memory(23, broken=(5, 17))
    with joined(CPU) as processes:
        batches = batches_of(source, PREPROCESSING, batch_size=4, processes=processes)
        found = evaluate(Pixels(), batches, PREPROCESSING, device=CPU, processes=processes)
    values = [found.images, found.correct1, found.correct5, found.loss, found.broken]
    (folder / f"{rank}.json").write_text(json.dumps(values))


# 23 images in batches of 4 are six batches, the last of three. Of two processes, the first has image 17.
@pytest.mark.parametrize("number", [2, 3, 5])
def test_real_processes_find_what_one_finds(number: int, tmp_path: Path) -> None:
    source = Memory(23, broken=(5, 17))
    batches = batches_of(source, PREPROCESSING, batch_size=4)
    alone = evaluate(Pixels(), batches, PREPROCESSING, device=CPU)
    assert alone.correct1 == source.correct1()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # Forked, as the workers of a loader are: what this process has imported, they have.
    start_processes(_share, (number, port, tmp_path), number, start_method="fork")
    every = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(number)]
    assert all(each == every[0] for each in every), "all have the same evaluation"
    *counts, loss, broken = every[0]
    assert counts == [23, alone.correct1, alone.correct5]
    assert math.isclose(loss, alone.loss, rel_tol=1e-12)
    assert (
        tuple(broken)
        == alone.broken
        == (
            "reading image 5: it is broken.",
            "reading image 17: it is broken.",
        )
    )


def test_the_loss_is_that_of_the_images_that_can_be_read() -> None:
    whole, source = Memory(10), Memory(10, broken=(3, 4))
    found = evaluate(Pixels(), batches_of(source, PREPROCESSING, batch_size=2), PREPROCESSING, device=CPU)
    read = [index for index in range(10) if index not in (3, 4)]
    scores = torch.from_numpy(whole.pixels[read]).double()
    loss = torch.nn.functional.cross_entropy(scores, torch.from_numpy(whole.labels[read])).item()
    assert math.isclose(found.loss, loss, rel_tol=1e-5)
    assert found.to_dict()["broken"] == 2


def test_all_images_broken_is_an_error() -> None:
    source = Memory(3, broken=(0, 1, 2))
    with pytest.raises(DataError, match="none of the 3 images can be read; reading image 0: it is broken"):
        evaluate(Pixels(), batches_of(source, PREPROCESSING), PREPROCESSING, device=CPU)


class Failing:
    """Batches, the first of which raises an error."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __iter__(self) -> Iterator[Batch]:
        raise self.error


def test_the_mode_comes_back_even_after_an_error() -> None:
    model = Pixels().train()
    with pytest.raises(ZeroDivisionError):
        evaluate(model, Failing(ZeroDivisionError()), PREPROCESSING, device=CPU)
    assert model.training
    part = nn.Sequential(model, nn.Dropout()).train()
    model.eval()
    batch = Batch(torch.zeros(1, 1, 2, 2), torch.zeros(1).long(), [])
    evaluate(part, [batch], PREPROCESSING, device=CPU)
    assert (part.training, model.training) == (True, False), "a part that was frozen stays so"


def test_per_cent() -> None:
    found = Evaluation(images=200, correct1=150, correct5=199, loss=0.5).to_dict()
    assert (found["top1"], found["top5"], found["broken"]) == (75.0, 99.5, 0)


class Brightness(nn.Module):
    """Scores of two classes that are not linear in the pixels, of any number of them."""

    def forward(self, x: Tensor) -> Tensor:
        bright = x.mean((1, 2, 3)) * 3
        return torch.stack([bright, 1 - bright**2], 1)


def _views(image_folder: Path, **views: Any) -> tuple[Batches, Batches, Preprocessing]:
    preprocessing = Preprocessing(3, 24, 30, (0.5,) * 3, (0.5,) * 3)
    source = open_data(f"folder:{image_folder}").test
    return batches_of(source, preprocessing), batches_of(source, preprocessing, **views), preprocessing


def test_the_softmax_of_views_is_averaged(image_folder: Path) -> None:
    _, batches, preprocessing = _views(image_folder, scales=(24, 36), crops=10, batch_size=45)
    kept: list[Scored] = []
    evaluate(Brightness(), batches, preprocessing, device=CPU, keep=kept)
    assert [len(batch.labels) for batch in kept] == [2, 2], "45 holds two images of twenty views"
    for batch, scored in zip(batches, kept, strict=True):
        for views, scores in zip(batch.images, scored.scores, strict=True):
            assert views.shape == (20, 3, 24, 24)
            each = Brightness()(preprocessing.normalise(views)).double().softmax(1)
            torch.testing.assert_close(scores.exp(), each.mean(0), atol=1e-7, rtol=0)
            assert scores.exp().sum().item() == pytest.approx(1, abs=1e-12)


def test_one_view_is_evaluated_as_ever(image_folder: Path) -> None:
    plain, one, preprocessing = _views(image_folder, scales=(30,), crops=1)
    found = [evaluate(Brightness(), each, preprocessing, device=CPU) for each in (plain, one)]
    assert found[0] == found[1]
    (batch,) = plain
    scores = Brightness()(preprocessing.normalise(batch.images))
    assert (
        found[0].loss == torch.nn.functional.cross_entropy(scores, batch.labels, reduction="sum").item() / 4
    )
    _, other, _ = _views(image_folder, scales=(36,), crops=1)
    (resized,) = other
    assert resized.images.shape == (4, 3, 24, 24)
    assert not torch.equal(resized.images, batch.images)


def test_what_is_kept_counts_to_the_same() -> None:
    source = Memory(9, broken=(8,))
    kept: list[Scored] = []
    batches = batches_of(source, PREPROCESSING, batch_size=4)
    found = evaluate(Pixels(), batches, PREPROCESSING, device=CPU, keep=kept)
    assert [each.broken for each in kept] == [[], [], [Broken(8, "reading image 8: it is broken.")]]
    assert count(kept, device=CPU) == found
