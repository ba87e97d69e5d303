"""What all tasks have in common, by the one that classifies."""

from typing import Any

import pytest
import torch

from senet.data.stream import Batch
from senet.errors import RunError
from senet.runtime.processes import Processes
from senet.training.classification import prepare
from senet.training.config import Recipe, TrainConfig


def config(**values: Any) -> TrainConfig:
    return TrainConfig(recipe=Recipe(**{"epochs": 2, "batch_size": 100, **values}))


def test_a_checkpoint_of_other_images_is_refused() -> None:
    job = prepare(config())
    facts = job.state.facts() | job.identity()
    job.restore(job.state.tensors(), facts)
    with pytest.raises(RunError, match="the images of digits are not those that the run began with"):
        job.restore(job.state.tensors(), facts | {"images": 7})
    with pytest.raises(RunError, match="of another run"):
        job.restore({}, facts)


def test_the_shares_of_processes_are_one_step() -> None:
    alone = prepare(config(batch_size=101))
    shares = [alone.order().__class__(1437, 101, 1, 0, processes=Processes(rank, 3)) for rank in range(3)]
    whole = next(iter(alone.order()))
    assert [key for share in shares for key in next(iter(share))] == whole


def test_what_is_drawn_is_of_the_seed_the_step_and_the_part() -> None:
    job = prepare(config())

    def drawn(part: int, step: int) -> float:
        job.state.step = step
        job.seed(part)
        return float(torch.rand(()))

    numbers = [drawn(part, step) for part in (0, 1) for step in (0, 1)]
    assert len(set(numbers)) == 4
    assert drawn(1, 0) == numbers[2]


def test_batches_are_put_together_to_steps() -> None:
    job = prepare(config(accumulate=3))
    batches = [Batch(torch.zeros(1), torch.full((1,), number), []) for number in range(7)]
    steps = [[int(batch.labels) for batch in step] for step in job.in_parts(batches)]
    assert steps == [[0, 1, 2], [3, 4, 5], [6]]


def test_the_rate_is_that_of_the_batch_that_there_is() -> None:
    """Of 24 images a batch of 1,024 has 24."""
    recipe = Recipe(epochs=1, batch_size=1024, lr=0.1, lr_batch=256, schedule="step")
    job = prepare(TrainConfig(model="resnet20", data="fake:3x8x8,images=24,classes=2", recipe=recipe))
    assert job.learning_rate(0) == pytest.approx(0.1 * 24 / 256)
    assert any("batch 24, lr 0.009375 step" in line for line in job.description())
