"""One cell, from its claim to its result."""

from __future__ import annotations

import contextlib
import csv
import json
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn

from senet.analysis.comparison.result import RunResult
from senet.analysis.cost.replica import on_meta
from senet.analysis.cost.saved import saved_bytes
from senet.analysis.worth.prepared import Prepared
from senet.errors import OptionError, RunError
from senet.evaluation.classification import Evaluation, evaluate
from senet.experiments.cells import Cell
from senet.files import write_text
from senet.graph.arithmetic import multiply_adds
from senet.passport import passport
from senet.runtime.processes import ALONE, Processes
from senet.training.classification import Classification
from senet.training.loop import TrainResult, train
from senet.training.run_folder import CONFIG

RESULT = "result.json"
# The training error of a large data set is that of so many of its images.
MOST_TRAINING_IMAGES = 10_000
# Images of the batch that the kept memory is counted on, and shared out.
_COUNTED = 32

Tell = Callable[..., None]


def folder_of(cell: Cell, out: Path) -> Path:
    """The run folder of a cell."""
    return out / "cells" / cell.key


def run_cell(
    cell: Cell, out: Path, *, tell: Tell, say: Callable[[str], None], processes: Processes = ALONE
) -> RunResult:
    """Trains a cell, or goes on with it, measures it and writes its result.

    Args:
        cell: which.
        out: the folder of the experiments.
        tell: takes how far it is: epoch, epochs and test_top1; step, steps, and in what share of all steps
            this start began and how many seconds ago.
        say: takes the lines of the run.
        processes: all that train it together.

    Raises:
        SenetError: as ``train`` does.
    """
    folder = folder_of(cell, out)
    begun = processes.from_first((folder / CONFIG).is_file())
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    run = train(
        replace(cell.config, run=folder),
        resume=begun,
        say=say,
        watch=[_Epochs(tell, cell.config.recipe.epochs)],
        bar=_Steps.telling(tell),
    )
    peak = torch.cuda.max_memory_allocated() if cuda else None
    result = _measured(run, peak, processes)
    if processes.leads:
        entry = {"label": cell.label, "result": result.to_dict(), "passport": passport()}
        write_text(folder / RESULT, json.dumps(entry, indent=2))
    return result


def read_result(cell: Cell, out: Path) -> RunResult | None:
    """The result of a cell; None if it has none yet.

    Raises:
        RunError: there is one that cannot be read.
    """
    path = folder_of(cell, out) / RESULT
    try:
        return RunResult.from_dict(json.loads(path.read_text(encoding="utf-8"))["result"])
    except FileNotFoundError:
        return None
    except (OSError, OptionError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"the result {str(path)!r}",
            f"it cannot be read ({error})",
            do="Remove this file: the run is then measured again.",
        ) from error


def _measured(
    run: TrainResult[Classification, Evaluation], peak: int | None, processes: Processes
) -> RunResult:
    job, tested = run.job, run.job.state.tested
    images = Prepared(
        job.data.train,
        job.preprocessing,
        most=min(MOST_TRAINING_IMAGES, len(job.data.train)),
        workers=job.workers,
        processes=processes,
    )
    trained = evaluate(
        tested,
        images.batches,
        job.preprocessing,
        device=job.device,
        memory_format=job.memory_format,
        processes=processes,
    )
    size = (job.data.channels, job.preprocessing.size, job.preprocessing.size)
    seconds = _seconds_per_step(run.run, job.batch_size)
    return RunResult(
        test_top1=run.evaluation.top1,
        test_top5=run.evaluation.top5,
        test_loss=run.evaluation.loss,
        test_images=run.evaluation.images,
        train_top1=trained.top1,
        train_loss=trained.loss,
        train_images=trained.images,
        best_top1=max(row["test_top1"] for row in run.history),
        epochs=job.state.epoch,
        steps=job.state.step,
        parameters=sum(each.numel() for each in tested.parameters()),
        macs=multiply_adds(tested, torch.zeros(1, *size, device=job.device)).total,
        seconds_per_step=statistics.median(seconds),
        saved_bytes=_saved(job.state.model, size),
        peak_bytes=peak,
        seconds=job.state.step * statistics.mean(seconds),
        device=str(job.device),
        processes=processes.count,
    )


def _seconds_per_step(run: Path, batch_size: int) -> list[float]:
    """Of each epoch, also of one that was interrupted: by its images a second; NaN where none is known."""
    with (run / "times.csv").open(encoding="utf-8", newline="") as file:
        rates = {row["epoch"]: float(row["images_per_second"]) for row in csv.DictReader(file)}
    # Of one that was stopped after its last step, the start that ended it did none.
    return [batch_size / rate for rate in rates.values() if rate] or [math.nan]


def _saved(model: nn.Module, size: tuple[int, int, int]) -> int:
    """What a training step keeps for the backward, an image."""
    network = on_meta(model, fused=True).train()
    return saved_bytes(network, torch.empty(_COUNTED, *size, device="meta")) // _COUNTED


class _Epochs:
    """Tells what the last epoch gave."""

    def __init__(self, tell: Tell, epochs: int) -> None:
        self.tell, self.epochs = tell, epochs

    def __call__(self, _run: Path, history: Any) -> None:
        self.tell(epoch=history[-1]["epoch"], epochs=self.epochs, test_top1=history[-1]["test_top1"])


class _Steps(contextlib.AbstractContextManager["_Steps"]):
    """Tells the steps that a run has done, in place of a progress bar."""

    def __init__(self, tell: Tell, total: int, initial: int) -> None:
        self.tell, self.total, self.step = tell, total, initial
        self.before, self.started = initial / total, time.monotonic()

    @classmethod
    def telling(cls, tell: Tell) -> Callable[..., Self]:
        """Makes one with a progress bar's arguments."""
        return lambda *, total, initial, disable: cls(tell, total, initial)

    def __exit__(self, *_error: object) -> None:
        pass

    def set_description(self, text: str) -> None:
        """What a progress bar shows; the epoch is told by ``_Epochs``."""

    def set_postfix_str(self, text: str, refresh: bool = True) -> None:
        """What a progress bar shows."""

    def update(self) -> None:
        """Another step is done."""
        self.step += 1
        seconds = time.monotonic() - self.started
        self.tell(step=self.step, steps=self.total, share_before=self.before, seconds=seconds)
