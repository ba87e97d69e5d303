"""The training loop, from top to bottom: epochs, steps, and what is written after each."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NoReturn, TypeVar

from tqdm import tqdm

from senet import weights
from senet.data.stream import Batch
from senet.errors import DataError, RunError, StoppedError
from senet.evaluation.classification import Batches, Evaluation
from senet.runtime.device import device_named, free_cores
from senet.runtime.processes import ALONE, Processes, joined
from senet.runtime.watch import note, undisturbed
from senet.training.beginning import Resume, ready
from senet.training.checkpoints import check_finite
from senet.training.classification import Classification, prepare
from senet.training.config import TrainConfig
from senet.training.job import Job, Outcome
from senet.training.run_folder import RunFolder
from senet.training.signals import Signals
from senet.training.step import Step
from senet.training.supply import Supply

# Called after each epoch, in the process that leads, with the run folder and the rows of metrics.csv.
AfterEpoch = Callable[[Path, Sequence[dict[str, Any]]], None]
# Makes what shows the steps, with tqdm's arguments and methods.
Bar = Callable[..., Any]
AnyJob = TypeVar("AnyJob", bound=Job[Any])
Found = TypeVar("Found", bound=Outcome)

_MOST_NAMED = 20


@dataclass(frozen=True)
class TrainResult(Generic[AnyJob, Found]):
    """What came out of a run.

    Args:
        run: the run folder.
        job: what was trained, and on what; its network is in evaluation mode.
        evaluation: of the last epoch, on the test images.
        history: the rows of metrics.csv.
        leads: whether this process is the one that writes and speaks.
    """

    run: Path
    job: AnyJob
    evaluation: Found
    history: list[dict[str, Any]]
    leads: bool = True


def train(
    config: TrainConfig,
    *,
    resume: Resume = False,
    say: Callable[[str], None] = lambda line: None,
    watch: Sequence[AfterEpoch] = (),
    bar: Bar = tqdm,
) -> TrainResult[Classification, Evaluation]:
    """Trains a classifier and writes its run folder; under ``torchrun``, together with the other processes.

    Args:
        config: what decides the run.
        resume: whether to go on with the run in the folder ``config.run``, from its last checkpoint; "auto"
            where it has begun, and to begin it otherwise.
        say: takes the lines for people.
        watch: called after each epoch.
        bar: shows the steps; tqdm does so on standard error.

    Returns:
        The trained network, its evaluation and its run folder.

    Raises:
        OptionError: a name or a value is not allowed, or the run that has begun is another; nothing has been
            written then.
        DataError: the images are missing, or too many of them are broken.
        WeightsError: the weights to start from cannot be read, or do not fit.
        RunError: the run folder cannot be used, a checkpoint cannot be written or read, a process that
            prepares images died, the loss is not finite, or another process failed, hangs or is gone.
        StoppedError: SIGTERM asked for it; the run is saved.
    """
    return run(prepare, config, resume=resume, say=say, watch=watch, bar=bar)


def run(
    prepare: Callable[[TrainConfig, Processes], AnyJob],
    config: TrainConfig,
    *,
    resume: Resume = False,
    say: Callable[[str], None] = lambda line: None,
    watch: Sequence[AfterEpoch] = (),
    bar: Bar = tqdm,
) -> TrainResult[AnyJob, Any]:
    """What ``train`` does, for any task.

    Args:
        prepare: makes the job of a config, and writes nothing.
        config: what decides the run.
        resume: see ``train``.
        say: takes the lines for people.
        watch: called after each epoch.
        bar: shows the steps.
    """
    with joined(device_named(config.device), config.timeout) as processes, Signals() as signals:
        speak = say if processes.leads else _silent
        job, folder, goes_on = ready(prepare, config, resume, processes, speak)
        path = processes.from_first(None if folder is None else folder.path)
        for line in job.description():
            speak(line)
        since = f", goes on after step {job.state.step}" if goes_on else ""
        speak(f"run      {path}{since}\n")
        try:
            found = _Training(job, folder, signals, speak, watch, bar).run_to_the_end()
        finally:
            if folder is not None:
                folder.close()
        job.state.tested.eval()
        # The others may be gone when the job is used again.
        alone = dataclasses.replace(job, processes=ALONE)
        return TrainResult(path, alone, found, job.state.history, leads=processes.leads)


class _Training:
    """A run between its start and its end.

    Args:
        job: what is trained.
        run: where it is written; None in processes that do not lead.
        signals: whether somebody asked for the end.
        say: takes the lines for people.
        watch: called after each epoch.
        bar: shows the steps.
    """

    def __init__(
        self,
        job: Job[Any],
        run: RunFolder | None,
        signals: Signals,
        say: Callable[[str], None],
        watch: Sequence[AfterEpoch],
        bar: Bar,
    ) -> None:
        self.job = job
        self.state = job.state
        self.recipe = job.config.recipe
        self.processes = job.processes
        self.run = run
        self.signals = signals
        self.say = say
        self.watch = watch
        self.bar = bar
        self.steps_per_epoch = job.order().steps_per_epoch
        self.step = Step(job, say)
        self.supply, self.is_fed = Supply(), False
        self.broken_tests: Sequence[str] = ()
        self.saved_at = time.monotonic()
        self.started, self.first_epoch = time.perf_counter(), job.state.epoch

    def run_to_the_end(self) -> Outcome:
        """All epochs that are still to be done; the evaluation of the last."""
        state, job = self.state, self.job
        if self.run is not None and state.history:
            self.run.write_metrics(state.history)  # a kill may have come between them and the checkpoint
        found: Outcome | None = None
        whole = self.recipe.epochs * self.steps_per_epoch
        quiet = None if self.processes.leads else True
        bar = self.bar(total=whole, initial=state.step, disable=quiet)
        with bar, contextlib.closing(job.steps()) as steps:
            for epoch in range(state.epoch, self.recipe.epochs):
                if state.plateau.over:
                    break
                bar.set_description(f"epoch {epoch + 1}/{self.recipe.epochs}")
                started, first = time.perf_counter(), state.step
                self._train_epoch(epoch, steps, bar)
                seconds = time.perf_counter() - started
                if self.processes.count > 1:  # which all go through the whole evaluation
                    self._save()
                found = job.evaluate(self._until_asked(job.test_batches()))
                self._finish_epoch(epoch, found, seconds, state.step - first)
        if found is None:  # the run was over before
            found = job.evaluate()
            self.broken_tests = found.broken
        self._name_the_broken()
        return found

    def _train_epoch(self, epoch: int, steps: Iterator[list[Batch]], bar: Any) -> None:
        """The steps of an epoch that are still to be done."""
        frozen = self.job.train_mode(epoch)
        self.supply = Supply()
        while self.state.step < (epoch + 1) * self.steps_per_epoch:
            number = self.state.step + 1
            note(step=number)
            started = time.perf_counter()
            batches = next(steps, None)
            waited = time.perf_counter() - started
            if batches is None:
                raise RunError(
                    f"training {self.job.config.model}, epoch {epoch + 1}, step {number}",
                    found=f"there are no images for it in this process, of rank {self.processes.rank}",
                    do="All processes have to have the same data.",
                )
            self._count_broken(batches)
            loss, due, stop = self.step(batches, frozen, self._is_due, self._is_asked)
            bar.set_postfix_str(f"loss {loss:.3f}", refresh=False)
            bar.update()
            if self.is_fed:  # the first images of a start are always waited for
                self.supply.add(batches, time.perf_counter() - started, waited)
            self.is_fed = True
            if due or stop:
                self._save()
            if stop:
                self._stop()

    def _finish_epoch(self, epoch: int, found: Outcome, seconds: float, steps: int) -> None:
        """Writes what an epoch gave: weights, checkpoint, metrics, in an order that bears a kill anywhere."""
        state, job = self.state, self.job
        columns = found.columns()
        lost = next((name for name, value in columns.items() if not math.isfinite(value)), None)
        if lost is not None:
            raise RunError(
                f"training {job.config.model}, epoch {epoch + 1}",
                found=f"the {lost.replace('_', ' ')} is {columns[lost]}",
                do="Lower --lr or raise --warmup; weights on disk are those before this epoch.",
            )
        self._share_broken()
        images_per_second = steps * job.batch_size / seconds
        each = (time.perf_counter() - self.started) / (epoch + 1 - self.first_epoch)
        left = tqdm.format_interval(each * (self.recipe.epochs - epoch - 1))
        skipped_before = state.history[-1]["skipped"] if state.history else 0
        counted = self.steps_per_epoch - (state.skipped - skipped_before)
        row = {
            "epoch": epoch + 1,
            "step": state.step,
            "lr": job.learning_rate(state.step - 1),
            "train_loss": float(self.processes.total(self.step.losses)) / max(1, counted),
            **columns,
            "skipped": state.skipped,
            "broken": len(state.broken),
        }
        self.step.losses.zero_()
        state.history.append(row)
        self.broken_tests = found.broken
        if "test_loss" in columns:
            state.plateau.note(self.recipe, columns["test_loss"])
        state.epoch += 1
        is_best, state.best = found.score > state.best, max(found.score, state.best)
        if self.run is not None:
            check_finite(f"the weights of epoch {epoch + 1}", state.tested.state_dict())
            header = {**job.header(), "epoch": epoch + 1, found.measure: columns[found.measure]}
            names = [weights.LAST, weights.BEST] if is_best else [weights.LAST]
            for name in names:
                weights.save(state.tested, self.run.path / name, header=header)
            self.run.add_time(
                epoch=epoch + 1,
                seconds=seconds,
                images_per_second=images_per_second,
                waited=self.supply.share,
            )
        self._save()
        if self.run is not None:
            note("writes what there is to see")
            self.run.write_metrics(state.history)
            for watch in self.watch:
                watch(self.run.path, state.history)
        # An earlier start may have done all steps of the epoch.
        speed = f"{images_per_second:,.0f} images/s  " if steps else ""
        self.say(
            f"epoch {epoch + 1:3d}/{self.recipe.epochs}  loss {row['train_loss']:.4f}  "
            f"test {columns[found.measure]:6.2f} %  {speed}{left} left"
        )
        if hint := self.supply.line(job.workers, free_cores(job.device)):
            self.say(hint)
        (stop,) = self.processes.any(self._is_asked())
        if stop:
            self._stop()

    def _is_due(self) -> bool:
        return time.monotonic() - self.saved_at >= 60 * self.job.config.save_minutes

    def _is_asked(self) -> bool:
        return self.signals.asked is not None

    def _save(self) -> None:
        """Writes a checkpoint, with what all processes know."""
        self.state.losses = self.processes.gather(float(self.step.losses))
        self._share_broken()
        if self.run is not None:
            with undisturbed("writes a checkpoint"):
                self.run.checkpoints.save(self.state.tensors(), self.state.facts() | self.job.identity())
        self.saved_at = time.monotonic()

    def _stop(self) -> NoReturn:
        """Ends the run, which has been saved."""
        # Not before it is: torchrun ends all when it sees one of them end.
        self.processes.any(False)
        self._name_the_broken()
        saved, do = f"step {self.state.step} is saved", "`senet train --resume RUN` goes on from there."
        if self.signals.asked == signal.SIGINT:
            raise KeyboardInterrupt(f"{saved}. {do}")
        raise StoppedError(
            f"training {self.job.config.model}", found=f"SIGTERM asked for its end; {saved}", do=do
        )

    def _until_asked(self, batches: Batches) -> Iterator[Batch]:
        """The test batches, until somebody asks for the end: they can take long, and leave no state."""
        for batch in batches:
            if self._is_asked() and self.processes.count == 1:
                self._save()
                self._stop()
            yield batch

    def _share_broken(self) -> None:
        """Lets all processes know of the images that any of them could not read."""
        for others in self.processes.gather(self.state.broken):
            self.state.broken |= others
        self._check_broken()

    def _count_broken(self, batches: list[Batch]) -> None:
        """Takes down images that could not be read."""
        for batch in batches:
            self.state.broken |= dict(batch.broken)
        self._check_broken(empty=not all(len(batch.labels) for batch in batches))

    def _check_broken(self, *, empty: bool = False) -> None:
        """Raises DataError where too many images could not be read, or none of a batch."""
        state, limit = self.state, self.job.config.broken_images
        if empty or len(state.broken) > limit:
            self._name_the_broken()
            raise DataError(
                f"training on {self.job.config.data}",
                found=f"{len(state.broken)} images cannot be read, such as: {[*state.broken.values()][-1:]}",
                allowed=f"--broken_images {limit}",
            )

    def _name_the_broken(self) -> None:
        """Says which images could not be read, and writes it down."""
        lines = [why for _, why in sorted(self.state.broken.items())]
        found = [f"train  {line}" for line in lines] + [f"test   {line}" for line in self.broken_tests]
        if not found or self.run is None:
            return
        self.run.write("broken_images.txt", "\n".join(found) + "\n")
        self.say(
            f"\n{len(lines)} images to train on could not be read and were replaced, "
            f"{len(self.broken_tests)} to test on counted as wrong; all are in broken_images.txt:"
        )
        for line in found[:_MOST_NAMED]:
            self.say(line)


def _silent(_line: str) -> None:
    pass
