import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import senet
from senet.training.config import Recipe, Schedule
from senet.training.optimisation import learning_rate, optimizer_for


def test_weight_decay_spares_norms_and_biases() -> None:
    model = senet.build("se_resnet20")
    decayed, spared = optimizer_for(model, Recipe(weight_decay=0.01)).param_groups
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.01, 0.0)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert len(decayed["params"]) + len(spared["params"]) == len(names)
    for parameter in spared["params"]:
        assert "bn" in names[id(parameter)] or names[id(parameter)].endswith("bias")
    for parameter in decayed["params"]:
        assert names[id(parameter)].endswith("weight")


def test_frozen_parameters_are_left_out() -> None:
    model = torch.nn.Linear(2, 2)
    model.weight.requires_grad_(False)
    assert [len(group["params"]) for group in optimizer_for(model, Recipe()).param_groups] == [0, 1]


def test_the_step_schedule() -> None:
    recipe = Recipe(epochs=100, lr=0.6, schedule="step", milestones=(0.3, 0.6, 0.9))
    by_epoch = [learning_rate(recipe, epoch * 10, 10) for epoch in (0, 29, 30, 59, 60, 89, 90, 99)]
    assert by_epoch == pytest.approx([0.6, 0.6, 0.06, 0.06, 0.006, 0.006, 0.0006, 0.0006])


def test_the_cosine_schedule_with_warm_up() -> None:
    recipe = Recipe(epochs=10, lr=1.0, warmup=0.2)
    rates = [learning_rate(recipe, step, 10) for step in range(100)]
    assert rates[:20] == pytest.approx([(step + 1) / 20 for step in range(20)])
    assert rates[60] == pytest.approx(0.5)
    assert rates[99] == pytest.approx((1 + math.cos(math.pi * 79 / 80)) / 2)


@given(
    epochs=st.integers(1, 50),
    steps=st.integers(1, 30),
    warmup=st.floats(0, 0.99),
    schedule=st.sampled_from(["cosine", "step"]),
)
def test_the_rate_is_always_between_zero_and_lr(
    epochs: int, steps: int, warmup: float, schedule: Schedule
) -> None:
    recipe = Recipe(epochs=epochs, lr=0.3, warmup=warmup, schedule=schedule, milestones=(0.5,))
    assert all(0 < learning_rate(recipe, step, steps) <= 0.3 for step in range(epochs * steps))
