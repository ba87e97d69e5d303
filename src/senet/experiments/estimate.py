"""How long cells will take, by a few steps of each variant on this machine."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence

import torch
from torch.nn import functional as F
from tqdm import tqdm

from senet.experiments.cells import Cell
from senet.training.classification import Classification, prepare

_STEPS = 3


def seconds_of(cells: Sequence[Cell]) -> dict[str, float]:
    """The seconds that a run of each label will take: training and testing, without reading images.

    Args:
        cells: of which one of each label is built and tried.
    """
    first: dict[str, Cell] = {}
    for cell in cells:
        first.setdefault(cell.label, cell)
    bar = tqdm(first.items(), "trying a few steps of each", unit="variant", leave=False, disable=None)
    return {label: _seconds(prepare(dataclasses.replace(cell.config, workers=0))) for label, cell in bar}


def _seconds(job: Classification) -> float:
    """Of a whole run."""
    recipe = job.config.recipe
    size = (job.data.channels, job.preprocessing.size, job.preprocessing.size)
    images = min(job.batch_size // recipe.accumulate, recipe.batch_size)
    x = torch.randn(images, *size, device=job.device).contiguous(memory_format=job.memory_format)
    labels = torch.zeros(images, dtype=torch.long, device=job.device)
    network, optimizer = job.state.model.train(), job.state.optimizer

    def step() -> None:
        with job.autocast():
            loss = F.cross_entropy(network(x).float(), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()

    trained = _timed(step, job.device) * recipe.accumulate
    network.eval()
    with torch.inference_mode():
        tested = _timed(lambda: network(x), job.device) * len(job.data.test) / images
    return recipe.epochs * (job.steps_per_epoch * trained + tested)


def _timed(run: Callable[[], object], device: torch.device) -> float:
    """The median of some runs after a first."""
    times = []
    for _ in range(_STEPS + 1):
        started = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])
