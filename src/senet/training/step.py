"""One step: the batch's loss, its gradient, the optimizer; and what is not finite goes no further."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from senet.data.stream import Batch
from senet.errors import OptionError, RunError
from senet.runtime.watch import meeting
from senet.training.diagnosis import first_not_finite
from senet.training.job import Job

# Steps in a row that may be skipped: after so many the weights are lost, and not the batch.
_MOST_SKIPPED = 10
# Halvings of float16's scale in a row: from 65,536 to far below one.
_MOST_OVERFLOWS = 20
# What PyTorch says, with their numbers, of parameters that it waits for in other processes.
_UNUSED = re.compile(r"did not receive grad for rank \d+: ([\d ]+)")


class Step:
    """Does the steps of a job, one a call.

    ``losses`` is the sum of this process's share of their mean losses, float64, since the last whole epoch.

    Args:
        job: what is trained.
        say: takes a line for each step that is skipped.
    """

    def __init__(self, job: Job[Any], say: Callable[[str], None]) -> None:
        self.job = job
        self.say = say
        self.skipped_in_a_row = 0
        self.overflows_in_a_row = 0
        # Another number of processes than before has other parts of the sum.
        before, own = job.state.losses, len(job.state.losses) == job.processes.count
        start = before[job.processes.rank] if own else sum(before) * job.processes.leads
        self.losses = torch.tensor(start, dtype=torch.float64, device=job.device)

    def __call__(self, batches: list[Batch], frozen: list[nn.Parameter], *flags: Callable[[], bool]) -> Any:
        """A step.

        Args:
            batches: this process's share of the images, in parts.
            frozen: parameters that stay as they are.
            *flags: what each process wants to tell the others, asked after the gradient is there.

        Returns:
            The loss of this process's share, and for each flag whether it is up in any process.

        Raises:
            RunError: the loss or its gradient is not finite, and is not to be skipped.
        """
        job, state, recipe = self.job, self.job.state, self.job.config.recipe
        for group in state.optimizer.param_groups:
            group["lr"] = job.learning_rate(state.step)
        # What a skipped step must not leave behind in batch norms.
        buffers = [each.clone() for each in state.model.buffers()] if job.config.nonfinite == "skip" else None
        state.optimizer.zero_grad(set_to_none=True)
        loss = self._gradients(batches)
        for parameter in frozen:
            parameter.grad = None
        state.scaler.unscale_(state.optimizer)
        parameters = list(state.model.parameters())
        norm = torch.nn.utils.get_total_norm([each.grad for each in parameters if each.grad is not None])
        # The scaler of float16 skips steps whose gradients overflow, and lowers its scale, by itself. To
        # wait for the number costs a GPU the time to queue a step's first kernels, once a step.
        with meeting("waits for the gradients"):
            finite = bool(torch.isfinite(loss if state.scaler.is_enabled() else loss + norm))
        lost, *flagged = job.processes.any(not finite, *(flag() for flag in flags))
        if lost:
            self._forget(batches, float(loss), buffers)
        else:
            if recipe.clip:
                torch.nn.utils.clip_grads_with_norm_(parameters, recipe.clip, norm)
            scale = state.scaler.get_scale()
            state.scaler.step(state.optimizer)
            state.scaler.update()
            overflowed = state.scaler.get_scale() < scale
            self.overflows_in_a_row = self.overflows_in_a_row + 1 if overflowed else 0
            if self.overflows_in_a_row > _MOST_OVERFLOWS:
                self._forget(batches, float(loss), None)
            if not overflowed:
                self._average()
            self.losses += loss
            self.skipped_in_a_row = 0
        state.step += 1
        return float(loss), *flagged

    def _gradients(self, batches: list[Batch]) -> Tensor:
        """Adds up the gradient of the step's mean loss; returns this process's share of that."""
        total = torch.zeros((), device=self.job.device)
        for part, batch in enumerate(batches):
            with self._apart(part < len(batches) - 1):
                losses = self._losses(batch, part)
                share = losses / self.job.batch_size
                # Processes average their gradients, where the loss is a sum over the whole batch.
                scaled: Any = self.job.state.scaler.scale(share * self.job.processes.count)
                scaled.backward()
            total += share.detach()
        return total

    def _losses(self, batch: Batch, part: int) -> Tensor:
        try:
            return self.job.loss(batch, part, self.job.network)
        except RuntimeError as error:
            unused = _UNUSED.search(str(error))
            if unused is None:
                raise
            learning = [name for name, each in self.job.state.model.named_parameters() if each.requires_grad]
            names = ", ".join(learning[int(index)] for index in unused[1].split()[:3])
            raise RunError(
                f"training {self.job.config.model} in {self.job.processes.count} processes",
                found=f"parameters got no gradient: {names}",
                do="Take out what is not used, or have it not learn: requires_grad_(False).",
            ) from error
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise OptionError(
                f"training {self.job.config.model}, batch_size={self.job.config.recipe.batch_size}",
                found="a batch norm sees one value of each channel, a single pixel of a single image",
                do="Raise --batch_size or --image_size; where it is split, lower --accumulate.",
            ) from error

    def _apart(self, more: bool) -> AbstractContextManager[Any]:
        """Keeps the processes' gradients apart while there are more parts of the step to come."""
        network = self.job.network
        return network.no_sync() if more and isinstance(network, DistributedDataParallel) else nullcontext()

    def _average(self) -> None:
        """Moves the averaged weights; until the warm-up is over they are a copy."""
        state, recipe = self.job.state, self.job.config.recipe
        if state.average is not None:
            if state.step < recipe.warmup * recipe.epochs * self.job.steps_per_epoch:
                state.average.n_averaged.zero_()
            state.average.update_parameters(state.model)

    def _forget(self, batches: list[Batch], loss: float, buffers: list[Tensor] | None) -> None:
        """Finds out what was not finite, and stops or goes on; either way nothing of the step stays."""
        job, state = self.job, self.job.state

        def again() -> None:
            for part, batch in enumerate(batches):
                job.loss(batch, part, state.model)

        places = job.processes.gather(first_not_finite(state.model, again))
        place = next((each for each in places if each is not None), "the norm of the whole gradient")
        epoch = state.step // job.steps_per_epoch + 1
        asked = f"training {job.config.model}, epoch {epoch}, step {state.step + 1}"
        found = f"the loss is {loss:g}; the first that is not finite is {place}"
        self.skipped_in_a_row += 1
        if buffers is None or self.skipped_in_a_row > _MOST_SKIPPED:
            raise RunError(
                asked, found, do="Lower --lr or raise --warmup. No checkpoint and no weights have any of it."
            )
        for buffer, before in zip(state.model.buffers(), buffers, strict=True):
            buffer.copy_(before)
        state.skipped += 1
        state.scaler.update()  # which has looked at this gradient
        self.say(f"skipped  {asked}: {found}")
