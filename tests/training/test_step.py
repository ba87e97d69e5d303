import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.together import together
from torch import Tensor, nn
from torch.nn import functional as F

from senet import weights
from senet.errors import OptionError, RunError
from senet.runtime.processes import joined
from senet.training.classification import Classification, prepare
from senet.training.config import Recipe, TrainConfig
from senet.training.step import Step


@pytest.fixture
def _float64() -> Any:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def _job(recipe: dict[str, Any] | None = None, **values: Any) -> Classification:
    how = {"epochs": 1, "batch_size": 60, "lr": 0.05, "schedule": "step", **(recipe or {})}
    job = prepare(TrainConfig(**{"model": "resnet20", "recipe": Recipe(**how), **values}))
    job.train_mode(0)
    return job


@pytest.mark.usefixtures("_float64")
def test_a_step_is_sgd_on_the_mean_loss() -> None:
    job = _job({"label_smoothing": 0.1, "clip": 0.5, "weight_decay": 0.01})
    plain = _job()
    (batch,) = next(iter(job.steps()))
    loss, flag = Step(job, print)([batch], [], lambda: True)
    x, target = plain.inputs(batch, 0)
    wanted = F.cross_entropy(plain.state.model(x), target, label_smoothing=0.1)
    wanted.backward()
    assert math.isclose(loss, wanted.item(), rel_tol=1e-12)
    assert flag
    parameters = list(plain.state.model.parameters())
    norm = (
        torch.stack([each.grad.square().sum() for each in parameters if each.grad is not None]).sum().sqrt()
    )
    scale = min(1.0, 0.5 / norm.item())
    assert scale < 1, "it is clipped"
    for ours, theirs in zip(job.state.model.parameters(), parameters, strict=True):
        assert theirs.grad is not None
        gradient = theirs.grad * scale + (0.01 * theirs.detach() if theirs.ndim > 1 else 0)
        torch.testing.assert_close(ours.detach(), theirs.detach() - 0.05 * gradient, rtol=1e-5, atol=1e-8)


@pytest.mark.usefixtures("_float64")
@pytest.mark.parametrize("parts", [2, 7])
def test_parts_add_up_to_the_step(parts: int) -> None:
    """With norms that are frozen: batch norm itself sees its part alone."""
    jobs = [_job({"accumulate": count, "freeze_norms": 1, "ema": 0.5}) for count in (1, parts)]
    losses = []
    for job in jobs:
        frozen = job.train_mode(0)
        assert len(frozen) == 2 * 19
        step = Step(job, print)
        losses.append([step(batches, frozen)[0] for batches, _ in zip(job.steps(), range(3), strict=False)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)
    one, other = (job.state.tensors() for job in jobs)
    for key in one:
        torch.testing.assert_close(one[key], other[key], rtol=1e-9, atol=1e-12, msg=key)
    assert any(key.startswith("average.") for key in one)


def test_frozen_norms_do_not_move() -> None:
    job = _job({"epochs": 3, "freeze_norms": 1, "weight_decay": 0.1, "decay_all": True})
    assert job.train_mode(1) == []
    frozen = job.train_mode(2)
    before = {key: tensor.clone() for key, tensor in job.state.model.state_dict().items()}
    step = Step(job, print)
    for batches, _ in zip(job.steps(), range(3), strict=False):
        step(batches, frozen)
    for key, tensor in job.state.model.state_dict().items():
        assert torch.equal(tensor, before[key]) == ("bn" in key), key


def test_the_average_is_a_copy_during_the_warm_up_and_lags_after_it() -> None:
    job = _job({"ema": 0.75, "warmup": 2 / 23})
    average: Any = job.state.average
    model: Any = job.state.model
    step = Step(job, print)
    followed: Any = None
    for number, (batches, _) in enumerate(zip(job.steps(), range(4), strict=False)):
        step(batches, [])
        weight, averaged = (network.conv1.weight.detach().clone() for network in (model, average.module))
        followed = weight if number < 2 else 0.75 * followed + 0.25 * weight
        torch.testing.assert_close(averaged, followed)


class _Spoiled(nn.Module):
    """Gives a number that is not finite, in the forward or in its gradient."""

    def __init__(self, value: float, *, backward: bool) -> None:
        super().__init__()
        self.value = value
        self.backward = backward
        self.on = False

    def forward(self, x: Tensor) -> Tensor:
        if not self.on:
            return x
        if self.backward:
            if x.requires_grad:
                x.register_hook(lambda gradient: gradient * self.value)
            return x
        return torch.where(torch.arange(len(x))[:, None, None, None] == 1, self.value, x)


def _spoil(job: Classification, value: float, *, backward: bool) -> _Spoiled:
    spoiled = _Spoiled(value, backward=backward)
    model: Any = job.state.model
    model.layer2[1].relu = nn.ReLU()
    model.layer2[0].conv1 = nn.Sequential(spoiled, model.layer2[0].conv1)
    return spoiled


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_ends_the_run_and_is_named(value: float, backward: bool) -> None:
    job = _job()
    spoiled = _spoil(job, value, backward=backward)
    step, steps = Step(job, print), job.steps()
    step(next(steps), [])
    before = [each.detach().clone() for each in job.state.model.parameters()]
    spoiled.on = True
    layer = "the gradient of layer1" if backward else r"the output of layer2\.0\.conv1\.0 \(_Spoiled\)"
    with pytest.raises(RunError, match=rf"training resnet20, epoch 1, step 2: .*first .* is {layer}"):
        step(next(steps), [])
    assert all(torch.equal(a, b) for a, b in zip(before, job.state.model.parameters(), strict=True))
    assert job.state.step == 1


@pytest.mark.parametrize("backward", [False, True])
def test_a_skipped_step_leaves_nothing_behind(backward: bool) -> None:
    said: list[str] = []
    job = _job({"ema": 0.9}, nonfinite="skip")
    spoiled = _spoil(job, float("nan"), backward=backward)
    step, steps = Step(job, said.append), job.steps()
    step(next(steps), [])
    before = {key: tensor.clone() for key, tensor in job.state.tensors().items()}
    losses = float(step.losses)
    spoiled.on = True
    step(next(steps), [])
    assert all(torch.equal(tensor, before[key]) for key, tensor in job.state.tensors().items())
    assert (job.state.step, job.state.skipped, float(step.losses)) == (2, 1, losses)
    assert said[0].startswith("skipped  training resnet20, epoch 1, step 2: ")
    spoiled.on = False
    step(next(steps), [])
    assert math.isfinite(float(step.losses))
    spoiled.on = True
    for _ in range(10):
        step(next(steps), [])
    with pytest.raises(RunError, match="not finite"):
        step(next(steps), [])


def test_mixing_is_repeated_with_the_step() -> None:
    job = _job({"mixup": 0.4, "cutmix": 1.0})
    (batch,) = next(iter(job.steps()))
    x, target = job.inputs(batch, 0)
    torch.manual_seed(99)
    again, same = job.inputs(batch, 0)
    assert torch.equal(x, again)
    assert torch.equal(target, same)
    assert target.shape == (60, 10)
    other, _ = job.inputs(batch, 1)
    assert not torch.equal(x, other)


def _shared(folder: Path, model: str, accumulate: int, batch_size: int) -> None:
    torch.set_default_dtype(torch.float64)
    with joined(torch.device("cpu")) as processes:
        recipe = Recipe(epochs=1, batch_size=batch_size, lr=0.05, accumulate=accumulate, ema=0.5)
        config = TrainConfig(model=model, recipe=recipe, sync_norms=True)
        job = prepare(config, processes)
        job.train_mode(0)
        step = Step(job, print)
        for parts, _ in zip(job.steps(), range(3), strict=False):
            step(parts, [])
        total = float(processes.total(step.losses))
        if processes.leads:
            weights.save(job.state.model, folder / f"{processes.count}.safetensors", header={"loss": total})
            weights.save(job.state.tested, folder / f"{processes.count}-average.safetensors")


@pytest.mark.parametrize(
    ("model", "count", "batch_size"),
    [("se_resnet20", 2, 60), pytest.param("resnet20", 3, 61, marks=pytest.mark.slow)],
)
def test_processes_that_share_their_norms_are_one(
    tmp_path: Path, model: str, count: int, batch_size: int
) -> None:
    """Weights, running statistics and average, to rounding; shares of different sizes too."""
    together(1, _shared, tmp_path, model, 1, batch_size)
    together(count, _shared, tmp_path, model, 1, batch_size)
    one, many = (weights.read(tmp_path / f"{n}.safetensors") for n in (1, count))
    assert math.isclose(one[0]["loss"], many[0]["loss"], rel_tol=1e-12)
    for name in ("", "-average"):
        (_, one_tensors), (_, many_tensors) = (
            weights.read(tmp_path / f"{n}{name}.safetensors") for n in (1, count)
        )
        for key, tensor in one_tensors.items():
            torch.testing.assert_close(many_tensors[key], tensor, rtol=1e-9, atol=1e-12, msg=key)


def test_a_skipped_step_in_float16_is_followed_by_others() -> None:
    job = _job(nonfinite="skip", precision="float16")
    spoiled = _spoil(job, float("nan"), backward=False)
    step, steps = Step(job, print), job.steps()
    spoiled.on = True
    step(next(steps), [])
    spoiled.on = False
    step(next(steps), [])
    assert (job.state.step, job.state.skipped) == (2, 1)


def test_overflows_of_float16_without_end_stop_the_run() -> None:
    job = _job({"batch_size": 20}, precision="float16")
    spoiled = _spoil(job, float("nan"), backward=True)
    step, steps = Step(job, print), job.steps()
    spoiled.on = True
    for _ in range(20):
        step(next(steps), [])
    with pytest.raises(RunError, match="the gradient of layer1"):
        step(next(steps), [])


def test_parameters_that_are_not_used_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the words of PyTorch, which speaks of them by their numbers."""
    job = _job()

    def loss(*_: object) -> Tensor:
        raise RuntimeError(
            "Expected to have finished reduction in the prior iteration before starting a new one. ... "
            "Parameter indices which did not receive grad for rank 1: 0 2\n In addition, ..."
        )

    monkeypatch.setattr(type(job), "loss", loss)
    names = [name for name, _ in job.state.model.named_parameters()]
    with pytest.raises(RunError, match=f"parameters got no gradient: {names[0]}, {names[2]}"):
        Step(job, print)([next(iter(job.steps()))[0]], [])


def test_a_single_pixel_of_a_single_image_has_no_variance() -> None:
    job = _job({"batch_size": 2, "accumulate": 2}, model="se_resnet18", data="fake:3x32x32,images=2")
    (one, other) = next(iter(job.steps()))
    with pytest.raises(OptionError, match=r"batch_size=2: a batch norm sees one value .* --accumulate"):
        Step(job, print)([one, other], [])
