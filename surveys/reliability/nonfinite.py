"""Bar of numbers that are not finite."""

from __future__ import annotations

import contextlib
import json
import math
import random
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from senet.errors import RunError
from senet.training import loop
from senet.training.checkpoints import Checkpoints
from senet.training.classification import Classification
from senet.training.run_folder import STATE
from surveys.reliability.bars import bar, check
from surveys.reliability.harness import STEPS, quick_config, tensors_of

_KINDS = (nn.Conv2d, nn.BatchNorm2d, nn.Linear)


@dataclass
class _Injection:
    """A number that is not finite, in a layer, for one step.

    Args:
        step: from 0.
        layer: its name.
        value: NaN or infinity.
        backward: whether it comes in the gradient of the layer's output, and not in the output.
        changed: what the step changed in the state, though it was skipped.
    """

    step: int
    layer: str
    value: float
    backward: bool
    changed: list[str] = field(default_factory=list, repr=False)
    before: dict[str, Tensor] = field(default_factory=dict, repr=False)

    def spoil(self, _module: nn.Module, _inputs: Any, output: Any) -> Any:
        """The output of the layer, spoilt."""
        if not self.backward:
            return output + torch.zeros_like(output).index_fill_(1, torch.tensor([0]), self.value)
        if output.requires_grad:
            output.register_hook(lambda gradient: gradient * self.value)
        return output


@contextlib.contextmanager
def _injected(injection: _Injection) -> Iterator[None]:
    """Spoils the step while the body runs, and compares the state before and after it."""
    job_class: Any = Classification
    inputs = job_class.inputs
    handles: list[Any] = []

    def noticing(job: Classification, *args: Any) -> Any:
        step = job.state.step
        if step == injection.step and not handles:
            injection.before = {key: tensor.clone() for key, tensor in job.state.tensors().items()}
            layer = job.state.model.get_submodule(injection.layer)
            handles.append(layer.register_forward_hook(injection.spoil))
        if step == injection.step + 1 and injection.before:
            handles.pop().remove()
            now = job.state.tensors()
            injection.changed = [
                key for key in now.keys() | injection.before.keys() if not _equal(now, injection.before, key)
            ]
            injection.before = {}
        return inputs(job, *args)

    job_class.inputs = noticing
    try:
        yield
    finally:
        job_class.inputs = inputs


def _equal(now: dict[str, Tensor], before: dict[str, Tensor], key: str) -> bool:
    return key in now and key in before and torch.equal(now[key], before[key])


@bar(
    "R9",
    "A loss or gradient that is not finite stops the run, naming step and layer, or the step is skipped; "
    "nothing of it is in any file or in the state.",
    "NaN or infinity in the output of a layer, or in its gradient, at {steps} random steps for each of the "
    "two policies; after a skipped step weights, optimizer, EMA and statistics compared bit by bit",
)
def nonfinite(*, steps: int = 10) -> str:
    """Spoils steps."""
    rng = random.Random(0)
    layers = _layers()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(steps):
            injection = _Injection(
                step=rng.randrange(3 * STEPS // 2),
                layer=rng.choice(layers),
                value=rng.choice([math.nan, math.inf, -math.inf]),
                backward=number % 2 == 1,
            )
            _stops(Path(folder) / f"stop{number}", injection)
            _skips(Path(folder) / f"skip{number}", injection)
    return f"{steps} of {steps} stopped, named by step and layer; {steps} of {steps} skipped, 0 bits changed"


def _stops(run: Path, injection: _Injection) -> None:
    config = quick_config(run, ema=0.9)
    message = ""
    try:
        with _injected(injection):
            loop.train(config)
    except RunError as error:
        message = str(error)
    check(bool(message), f"{injection}: the run did not stop")
    check(re.search(rf"\bstep {injection.step + 1}\b", message) is not None, f"{injection}: {message}")
    where = "gradient of " if injection.backward else "output of "
    check(f"{where}{injection.layer}" in message, f"{injection}: {message}")
    spoilt = [name for name, tensor in tensors_of(run) if not bool(tensor.isfinite().all())]
    check(not spoilt, f"{injection}: {spoilt} are not finite")
    paths = Checkpoints(run / STATE).paths()
    newest = int(paths[0].stem.partition("-")[2]) if paths else 0
    check(newest == injection.step, f"{injection}: the newest checkpoint is of step {newest}")
    for path in run.glob("metrics.*"):
        check(re.search("nan|inf", path.read_text(), re.IGNORECASE) is None, f"{injection}: {path.name}")


def _skips(run: Path, injection: _Injection) -> None:
    lines: list[str] = []
    with _injected(injection):
        result = loop.train(quick_config(run, ema=0.9, nonfinite="skip", save_minutes=60.0), say=lines.append)
    check(not injection.before, f"{injection}: the next step never came")
    check(not injection.changed, f"{injection}: {injection.changed} are not as before")
    told = [line for line in lines if "skipped" in line and f"step {injection.step + 1}:" in line]
    check(len(told) == 1 and injection.layer in told[0], f"{injection}: {told}")
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    check(rows[-1]["skipped"] == 1, f"{injection}: {rows[-1]['skipped']} steps are counted as skipped")
    check(result.job.state.step == 2 * STEPS, f"{injection}: the run ended at step {result.job.state.step}")


def _layers() -> list[str]:
    """The layers of the network that run as layers: those of SE are called by what they hold."""
    from senet.models import build

    model = build("se_resnet20", num_classes=10, in_channels=1)
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, _KINDS) and ".se." not in f"{name}."
    ]
