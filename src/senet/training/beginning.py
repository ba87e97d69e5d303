"""How a run begins, or goes on: all processes from one checkpoint, and the first with the run folder."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from senet.errors import InUseError, OptionError, RunError, require
from senet.runtime.processes import Processes
from senet.runtime.watch import note
from senet.training.config import WHEREABOUTS, TrainConfig, read_config
from senet.training.job import Job
from senet.training.run_folder import CONFIG, METRICS, STATE, RunFolder, new_run_path

Resume = bool | Literal["auto"]
Saved = tuple[dict[str, Tensor], dict[str, Any]]
AnyJob = TypeVar("AnyJob", bound=Job[Any])


def ready(
    prepare: Callable[[TrainConfig, Processes], AnyJob],
    config: TrainConfig,
    resume: Resume,
    processes: Processes,
    say: Callable[[str], None],
) -> tuple[AnyJob, RunFolder | None, bool]:
    """The job where its run stands, the run folder in the process that leads, and whether the run goes on.

    Args:
        prepare: makes the job of a config, and writes nothing.
        config: what decides the run.
        resume: whether it goes on; "auto" where it has begun.
        processes: that do the run.
        say: takes the lines for people.

    Raises:
        OptionError: a name or a value is not allowed, or the run that has begun is another.
        RunError: the run folder or its checkpoint cannot be used.
    """
    # The first decides and reads: the others may see a shared disk as it was, or not at all.
    begun = processes.leads and (_has_begun(config) if resume == "auto" else resume)
    goes_on: bool = processes.from_first(begun)
    # Where the same words start a run again, the attempt before may still be ending.
    patience = config.timeout / 2 if resume == "auto" or processes.count > 1 else 0.0
    # From here on nobody else saves: what is read is the last.
    folder = _opened(_path(config), patience) if goes_on and processes.leads else None
    try:
        read = None if folder is None else _last_checkpoint(folder, say)
        saved = _of_first(read, processes)
        # What a run started from may be gone by now, and its checkpoint has all of it.
        decided = processes.from_first(None if folder is None else read_config(folder.path / CONFIG).options)
        start = config
        if saved is not None:
            start = dataclasses.replace(config, weights=None, new_head=False)
            if config.weights is not None:
                # Those weights may have decided some: how images are normalised, for one.
                start = dataclasses.replace(start, options={**decided, **config.options})
        job = prepare(start, processes)
        if saved is not None:
            job.restore(*saved)
        if folder is not None:
            if resume == "auto":
                _check_same(
                    folder.path,
                    dataclasses.replace(job.config, weights=config.weights, new_head=config.new_head),
                )
            folder.add_passport(job.resolved())
    except BaseException:
        if folder is not None:
            folder.close()
        raise
    if processes.leads and folder is None:
        path = config.run or new_run_path(config.model, config.data, config.seed)
        folder = RunFolder.create(path, job.config.to_dict(), resolved=job.resolved())
    return job, folder, goes_on


def _has_begun(config: TrainConfig) -> bool:
    """Whether there is a run in the folder already."""
    return (_path(config) / CONFIG).is_file()


def _check_same(path: Path, config: TrainConfig) -> None:
    """Raises OptionError where the run in the folder is another than the one that is asked for."""
    begun, asked = read_config(path / CONFIG).to_dict(), config.to_dict()
    names = [name for name in asked if name not in WHEREABOUTS and asked[name] != begun[name]]
    if names:
        raise OptionError(
            f"going on with {str(path)!r}",
            found="; ".join(
                f"{name} is {begun[name]!r} there, and {asked[name]!r} is asked for" for name in names
            ),
            do="Choose another folder with --run.",
        )


def _of_first(saved: Saved | None, processes: Processes) -> Saved | None:
    """The checkpoint that the process that leads has read, in all of them."""
    if processes.count == 1:
        return saved
    kinds = None if saved is None else {key: (each.shape, each.dtype) for key, each in saved[0].items()}
    kinds, facts = processes.from_first((kinds, None if saved is None else saved[1]))
    if kinds is None:
        return None
    made = {key: torch.empty(shape, dtype=dtype) for key, (shape, dtype) in kinds.items()}
    tensors = made if saved is None else saved[0]
    # As bytes: not every dtype can be sent.
    processes.spread(each.reshape(-1).view(torch.uint8) for each in tensors.values() if each.numel())
    return tensors, facts


def _opened(path: Path, patience: float) -> RunFolder:
    """The folder of a run that goes on; where it is in use, after some seconds at most."""
    until = time.monotonic() + patience
    while True:
        try:
            return RunFolder.open(path)
        except InUseError:
            if time.monotonic() > until:
                raise
        note("waits for the run folder")
        time.sleep(0.1)


def _last_checkpoint(run: RunFolder, say: Callable[[str], None]) -> Saved | None:
    """The checkpoint that a run goes on from; None where it was stopped before there was any."""
    saved = run.checkpoints.load(say)
    if saved is None and (run.path / METRICS).exists():
        raise RunError(
            f"going on with {str(run.path)!r}",
            found=f"it has {METRICS}, and no checkpoint in {STATE}/",
            do="Bring that folder back, or start a new run with --weights.",
        )
    return saved


def _path(config: TrainConfig) -> Path:
    require("run", config.run, config.run is not None, "the folder of the run that goes on")
    return Path(str(config.run))
