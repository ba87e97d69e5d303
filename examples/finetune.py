"""SE in a network that is trained already: insert, fine-tune, and compare at equal time.

    python examples/finetune.py                                     # digits, about a minute
    python examples/finetune.py --data shards:cifar10 --epochs 4 --more 2

A plain ResNet-20 is trained. A copy gets SE with the identity start, so that it computes the same at
first; both are then fine-tuned on the same images in the same order for the same time: the plain one
takes more steps, as many as its cheaper steps allow. The end says what came out, per seed.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import itertools
import math
import statistics
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

import senet
from senet.tables import Table
from senet.training.classification import Classification
from senet.training.config import TrainConfig
from senet.training.loop import train
from senet.training.recipes import default_recipe, recipe_named


def main() -> None:
    """Trains, inserts, fine-tunes and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", default="digits", help="digits, shards:DIR or folder:DIR")
    parser.add_argument("--epochs", type=int, help="of the plain network; the recipe's if not given")
    parser.add_argument("--more", type=int, default=10, help="epochs of fine-tuning with SE")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    options = parser.parse_args()

    name = default_recipe(options.data, "resnet20")
    recipe = recipe_named(name)
    recipe = dataclasses.replace(recipe, epochs=options.epochs or recipe.epochs, schedule="cosine")
    rows = []
    for seed in options.seeds:
        config = TrainConfig(model="resnet20", data=options.data, recipe=recipe, recipe_name=name, seed=seed)
        rows += one_seed(train(config, say=print).job, options.more)
    print(f"\n{Table(rows)}")


def one_seed(job: Classification, epochs: int) -> list[dict[str, Any]]:
    """The rows of one trained network: plain and SE, fine-tuned for the same time."""
    plain, with_se = job.state.model, copy.deepcopy(job.state.model)
    before = job.evaluate().top1
    optimizers = {"plain": optimizer_of(plain, job), "SE": optimizer_of(with_se, job)}
    x, _ = job.inputs(next(iter(job.test_batches())), 0)
    report = senet.insert(with_se, reduction=4, optimizer=optimizers["SE"], example=x)
    print(f"\n{report}\n")

    networks = {"plain": plain, "SE": with_se}
    cost = step_seconds(networks, job)
    steps = {"SE": epochs * job.steps_per_epoch}
    steps["plain"] = round(steps["SE"] * cost["SE"] / cost["plain"])
    rows = []
    for name, model in networks.items():
        started = time.perf_counter()
        fine_tune(model, optimizers[name], job, steps[name])
        seconds = time.perf_counter() - started
        found = evaluated(model, job)
        rows.append(
            {
                "network": name,
                "seed": job.config.seed,
                "parameters": sum(each.numel() for each in model.parameters()),
                "seconds a step": cost[name],
                "steps": steps[name],
                "seconds": round(seconds),
                "before, %": before,
                "after, %": found,
            }
        )
    with senet.record_gates(with_se) as gates:
        evaluated(with_se, job)
    print(f"the gates over the test images; each was 1 before\n{gates}")
    return rows


def optimizer_of(model: nn.Module, job: Classification) -> torch.optim.Optimizer:
    """SGD with a third of the recipe's learning rate."""
    recipe = job.config.recipe
    return torch.optim.SGD(
        model.parameters(), recipe.lr / 3, momentum=recipe.momentum, weight_decay=recipe.weight_decay
    )


def fine_tune(model: nn.Module, optimizer: torch.optim.Optimizer, job: Classification, steps: int) -> None:
    """Trains for a number of steps; the learning rate falls to zero along half a cosine."""
    model.train()
    highest = [group["lr"] for group in optimizer.param_groups]
    for step, (x, labels) in enumerate(itertools.islice(batches_again(job), steps)):
        for group, lr in zip(optimizer.param_groups, highest, strict=True):
            group["lr"] = lr * (1 + math.cos(math.pi * step / steps)) / 2
        take_step(model, optimizer, x, labels)


def batches_again(job: Classification) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The batches of the training that is over, from the first, as often as one likes."""
    again = dataclasses.replace(job, state=dataclasses.replace(job.state, step=0))
    while True:
        for (batch,) in again.steps():
            yield again.inputs(batch, 0)


def take_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor, labels: torch.Tensor
) -> None:
    """One step of training."""
    optimizer.zero_grad(set_to_none=True)
    F.cross_entropy(model(x), labels).backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def step_seconds(networks: dict[str, nn.Module], job: Classification, rounds: int = 30) -> dict[str, float]:
    """Seconds of a step, the median of runs that take turns, on copies that are thrown away."""
    copies = {name: copy.deepcopy(model).train() for name, model in networks.items()}
    optimizers = {name: torch.optim.SGD(model.parameters(), 0.0) for name, model in copies.items()}
    seconds: dict[str, list[float]] = {name: [] for name in copies}
    for x, labels in itertools.islice(batches_again(job), rounds):
        for name, model in copies.items():
            started = time.perf_counter()
            take_step(model, optimizers[name], x, labels)
            seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(times[5:]) for name, times in seconds.items()}


def evaluated(model: nn.Module, job: Classification) -> float:
    """Test accuracy in percent."""
    return dataclasses.replace(job, state=dataclasses.replace(job.state, model=model)).evaluate().top1


if __name__ == "__main__":
    main()
