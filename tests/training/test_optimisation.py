import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import senet
from senet.training.config import Recipe, Schedule
from senet.training.optimisation import Plateau, highest_rate, learning_rate, optimizer_for


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


def test_unless_the_recipe_says_otherwise() -> None:
    groups = optimizer_for(senet.build("se_resnet20"), Recipe(weight_decay=0.01, decay_all=True)).param_groups
    assert [group["weight_decay"] for group in groups] == [0.01, 0.01]


def test_frozen_parameters_are_left_out() -> None:
    model = torch.nn.Linear(2, 2)
    model.weight.requires_grad_(False)
    assert [len(group["params"]) for group in optimizer_for(model, Recipe()).param_groups] == [0, 1]


def test_the_step_schedule() -> None:
    recipe = Recipe(epochs=100, lr=0.6, schedule="step", milestones=(0.3, 0.6, 0.9))
    by_epoch = [learning_rate(recipe.lr, recipe, epoch * 10, 10) for epoch in (0, 29, 30, 59, 60, 89, 90, 99)]
    assert by_epoch == pytest.approx([0.6, 0.6, 0.06, 0.06, 0.006, 0.006, 0.0006, 0.0006])


def test_the_cosine_schedule_with_warm_up() -> None:
    recipe = Recipe(epochs=10, lr=1.0, warmup=0.2)
    rates = [learning_rate(recipe.lr, recipe, step, 10) for step in range(100)]
    assert rates[:20] == pytest.approx([(step + 1) / 20 for step in range(20)])
    assert rates[60] == pytest.approx(0.5)
    assert rates[99] == pytest.approx((1 + math.cos(math.pi * 79 / 80)) / 2)


def test_a_constant_warm_up() -> None:
    recipe = Recipe(epochs=10, lr=0.1, warmup=0.1, warmup_lr=0.01, schedule="step", milestones=(0.5,))
    rates = [learning_rate(recipe.lr, recipe, step, 10) for step in (0, 9, 10, 49, 50)]
    assert rates == pytest.approx([0.01, 0.01, 0.1, 0.1, 0.01])


def test_the_rate_grows_with_the_batch_only_when_asked() -> None:
    for batch_size in (256, 1024):
        assert highest_rate(Recipe(lr=0.1, lr_batch=256), batch_size) == pytest.approx(0.1 * batch_size / 256)
        assert highest_rate(Recipe(lr=0.1), batch_size) == 0.1


@given(
    epochs=st.integers(1, 50),
    steps=st.integers(1, 30),
    warmup=st.floats(0, 0.99),
    schedule=st.sampled_from(["cosine", "step", "plateau"]),
    falls=st.integers(0, 3),
)
def test_the_rate_is_always_between_zero_and_lr(
    epochs: int, steps: int, warmup: float, schedule: Schedule, falls: int
) -> None:
    recipe = Recipe(epochs=epochs, lr=0.3, warmup=warmup, schedule=schedule, milestones=(0.5,))
    assert all(
        0 < learning_rate(recipe.lr, recipe, step, steps, falls) <= 0.3 for step in range(epochs * steps)
    )


def test_the_rate_falls_at_each_plateau_and_the_one_after_ends_the_run() -> None:
    recipe = Recipe(lr=1.0, schedule="plateau", patience=2, plateaus=2)
    plateau = Plateau()
    rates = []
    for loss in (3.0, 2.0, 2.0, 2.5, 1.0, 1.0, 1.0, 0.5, 0.6, 0.7):
        rates.append(learning_rate(recipe.lr, recipe, 0, 1, plateau.falls))
        assert not plateau.over
        plateau.note(recipe, loss)
    assert rates == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.01])
    assert (plateau.over, plateau.falls, plateau.lowest) == (True, 2, 0.5)


def test_other_schedules_know_no_plateau() -> None:
    plateau = Plateau()
    for _ in range(20):
        plateau.note(Recipe(), 1.0)
    assert plateau == Plateau()
