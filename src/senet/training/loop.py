"""The training loop, from top to bottom: epochs, steps, and what is written after each epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from senet import weights
from senet.data.stream import seed_of
from senet.errors import RunError
from senet.training.config import TrainConfig
from senet.training.evaluation import Evaluation
from senet.training.job import Job, prepare
from senet.training.optimisation import learning_rate
from senet.training.run_folder import RunFolder, new_run_path

_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}
_NOISE = 1  # sets these seeds apart from those of the augmentation, which have three numbers
_SHOW_LOSS_EVERY = 20  # steps: reading it waits for the GPU


@dataclass(frozen=True)
class TrainResult:
    """What came out of a run.

    Args:
        run: the run folder.
        job: what was trained, and on what; its network is in evaluation mode.
        evaluation: of the last epoch, on the test images.
        history: the rows of metrics.csv.
    """

    run: Path
    job: Job
    evaluation: Evaluation
    history: list[dict[str, Any]]


def train(config: TrainConfig, *, say: Callable[[str], None] = lambda line: None) -> TrainResult:
    """Trains a network and writes its run folder.

    Args:
        config: what decides the run.
        say: takes the lines for people; progress bars go to standard error.

    Returns:
        The trained network, its evaluation and its run folder.

    Raises:
        OptionError: a name or a value is not allowed; nothing has been written then.
        DataError: the images are missing or broken.
        RunError: the run folder cannot be used, or the loss is not finite.
    """
    job = prepare(config)
    state = job.state
    path = config.run or new_run_path(config.model, config.data, config.seed)
    run = RunFolder(path, config.to_dict(), resolved=job.resolved())
    for line in job.description():
        say(line)
    say(f"run      {run.path}\n")
    header = {
        "preprocessing": job.preprocessing.to_dict(),
        "classes": list(job.data.classes),
        "data": config.data,
    }
    history: list[dict[str, Any]] = []
    batches = iter(job.train_batches)
    for epoch in range(1, config.recipe.epochs + 1):
        train_loss, images_per_second = _train_epoch(job, batches, epoch)
        found = job.evaluate()
        for what, loss in (("training", train_loss), ("test", found.loss)):
            if not math.isfinite(loss):
                raise RunError(
                    f"training {config.model}, epoch {epoch}",
                    found=f"the mean {what} loss is {loss}",
                    do="Lower --lr or raise --warmup; weights on disk are those before this epoch.",
                )
        row = {
            "epoch": epoch,
            "step": state.step,
            "lr": state.optimizer.param_groups[0]["lr"],
            "train_loss": train_loss,
            "test_loss": found.loss,
            "test_top1": found.top1,
            "test_top5": found.top5,
            "images_per_second": images_per_second,
        }
        history.append(row)
        run.add_metrics(row)
        epoch_header = {**header, "epoch": epoch, "test_top1": found.top1}
        weights.save(state.model, run.path / weights.LAST, header=epoch_header)
        if found.correct1 > state.best:
            state.best = found.correct1
            weights.save(state.model, run.path / weights.BEST, header=epoch_header)
        say(
            f"epoch {epoch:3d}/{config.recipe.epochs}  loss {train_loss:.4f}  "
            f"test {found.top1:6.2f} %  {images_per_second:,.0f} images/s"
        )
    state.model.eval()
    return TrainResult(run.path, job, found, history)


def _train_epoch(job: Job, batches: Iterator[tuple[Tensor, Tensor]], epoch: int) -> tuple[float, float]:
    """Trains for one epoch; returns the mean loss and images a second."""
    steps = job.order.steps_per_epoch
    total = torch.zeros((), device=job.device)
    job.state.model.train()
    started = time.perf_counter()
    bar = tqdm(range(steps), f"epoch {epoch}/{job.config.recipe.epochs}", leave=False, disable=None)
    for step in bar:
        loss = _train_step(job, *job.to_device(*next(batches)))
        total += loss
        if step % _SHOW_LOSS_EVERY == 0 and not bar.disable:
            bar.set_postfix(loss=f"{loss.item():.3f}")
    return total.item() / steps, steps * job.order.batch_size / (time.perf_counter() - started)


def _train_step(job: Job, x: Tensor, labels: Tensor) -> Tensor:
    """One step; returns the loss, detached."""
    state, config = job.state, job.config
    for group in state.optimizer.param_groups:
        group["lr"] = learning_rate(config.recipe, state.step, job.order.steps_per_epoch)
    # What dropout draws is a function of seed and step, so a resumed run needs no generator's state.
    seed = seed_of(config.seed, state.step, 0, _NOISE)
    torch.default_generator.manual_seed(seed)
    if job.device.type == "cuda":
        torch.cuda.manual_seed(seed)
    lowered = config.precision != "float32"
    with torch.autocast(x.device.type, _DTYPES[config.precision]) if lowered else nullcontext():
        scores = state.model(x)
        loss = F.cross_entropy(scores, labels, label_smoothing=config.recipe.label_smoothing)
    state.optimizer.zero_grad(set_to_none=True)
    state.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.step += 1
    return loss.detach()
