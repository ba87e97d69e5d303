from typing import Any

import torch

from senet.training.classification import Classification, prepare
from senet.training.config import Recipe, TrainConfig
from senet.training.optimisation import Plateau
from senet.training.step import Step


def _job() -> Classification:
    job = prepare(
        TrainConfig(
            recipe=Recipe(epochs=1, batch_size=100, lr=0.1, weight_decay=1e-3, ema=0.9, mixup=0.2),
            options={"dropout": 0.3},
        )
    )
    job.train_mode(0)
    return job


def test_the_state_is_all_that_a_step_changes() -> None:
    """Put into another job, it leads to the same losses and the same state."""
    job = _job()
    step = Step(job, print)
    batches = [parts for parts, _ in zip(job.steps(), range(6), strict=False)]
    for parts in batches[:3]:
        step(parts, [])
    job.state.losses = [float(step.losses)]
    tensors = {key: tensor.clone() for key, tensor in job.state.tensors().items()}
    facts = job.state.facts()
    first = [step(parts, [])[0] for parts in batches[3:]]

    again = _job()
    again.state.restore(tensors, facts)
    assert again.state.step == 3
    torch.manual_seed(123)
    following = Step(again, print)
    rest = [parts for parts, _ in zip(again.steps(), range(3), strict=False)]
    assert [following(parts, [])[0] for parts in rest] == first
    assert float(following.losses) == float(step.losses)


def test_restored_it_is_the_same_to_the_bit_and_in_memory() -> None:
    job = _job()
    step = Step(job, print)
    for parts in list(job.steps())[:2]:
        step(parts, [])
    state = job.state
    state.plateau = Plateau(lowest=0.5, waited=2, falls=1)
    state.best, state.epoch, state.skipped = 7, 0, 1
    state.broken = {3: "reading 3: broken."}
    state.history = [{"epoch": 1, "train_loss": 0.1 + 0.2}]
    again = _job().state
    again.restore({key: tensor.contiguous() for key, tensor in state.tensors().items()}, state.facts())
    assert again.facts() == state.facts()
    ours, theirs = again.tensors(), state.tensors()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert any(key.startswith("average.module.") for key in ours)
    model: Any = again.model
    parameter = model.conv1.weight
    momentum = again.optimizer.state[parameter]["momentum_buffer"]
    assert momentum.stride() == parameter.stride(), "channels last, which a file does not keep"


def test_it_can_be_written_before_the_first_step() -> None:
    state = _job().state
    again = _job().state
    again.restore(state.tensors(), state.facts())
    assert (again.step, again.plateau) == (0, Plateau())
    assert not [key for key in state.tensors() if key.startswith("optimizer.")]
