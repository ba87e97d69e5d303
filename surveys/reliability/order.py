"""Bars of what must not depend on how many processes and workers there are."""

from __future__ import annotations

import json
import signal
import tempfile
import warnings
from collections import Counter
from pathlib import Path

import torch

from senet import weights
from senet.data import open_data
from senet.data.augmentation import training_transform
from senet.data.preprocessing import preprocessing_for
from senet.data.stream import Images, Loader, SampleKey, TrainingBatches
from senet.evaluation.classification import batches_of, evaluate
from senet.models import build
from senet.runtime.processes import Processes, joined
from senet.training.config import Recipe, TrainConfig
from surveys.reliability.bars import bar, check
from surveys.reliability.deaths import At
from surveys.reliability.harness import STEPS, child, quick_config, together, trains
from surveys.reliability.in_float64 import InFloat64
from surveys.reliability.recovery import Ask

_CPU = torch.device("cpu")
_RECIPE = Recipe(crop="pad", pad=2, flip=True, rotate=10, jitter=20, randaugment=2, erase=0.5)


@bar(
    "R3",
    "Which images make up a step, and how each is augmented, depends neither on the workers nor on the "
    "processes.",
    "the ids and augmented pixels of {steps} steps of digits with 0, 1, 2 and 4 workers; the shares of 1, 2 "
    "and 3 processes, put together",
)
def order(*, steps: int = 40) -> str:
    """Compares orders and pixels."""
    data = open_data("digits")
    preprocessing = preprocessing_for(data.train, data.channels, image_size=None, network_size=32)
    images = Images(data.train, training_transform(preprocessing, _RECIPE), seed=3)

    def keys(processes: Processes, start: int, parts: int = 1) -> list[list[SampleKey]]:
        batches = TrainingBatches(len(data.train), 96, 9, 3, start, parts=parts, processes=processes)
        return [each for _, each in zip(range(steps * parts), batches, strict=False)]

    whole = keys(Processes(), 0)
    for count in (1, 2, 3):
        shares = [keys(Processes(rank, count), 0) for rank in range(count)]
        check(_put_together(shares) == whole, f"{count} processes have other images")
        late = [keys(Processes(rank, count), steps // 2) for rank in range(count)]
        resumed = _put_together(late)[: steps - steps // 2]
        check(resumed == whole[steps // 2 :], f"{count} processes that go on have other images")
    wanted = None
    for workers in (0, 1, 2, 4):
        batches = TrainingBatches(len(data.train), 96, 9, 3)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch warns where there are fewer cores
            loaded = iter(Loader(images, batches, workers=workers))
            found = [batch.images for _, batch in zip(range(steps), loaded, strict=False)]
        wanted = wanted or found
        equal = all(torch.equal(each, other) for each, other in zip(found, wanted, strict=True))
        check(equal, f"{workers} workers give other pixels")
    return f"{steps} steps of 96 images: ids and pixels equal"


def _put_together(shares: list[list[list[SampleKey]]]) -> list[list[SampleKey]]:
    """The whole steps, out of each process's shares."""
    return [[key for share in step for key in share] for step in zip(*shares, strict=True)]


@bar(
    "R3",
    "A run may go on with another number of processes: the images are the same, and with --sync_norms the "
    "weights to rounding.",
    "a run in float64, begun with {processes} processes (gloo), stopped by SIGTERM in its middle, and "
    "resumed with 1, against 1 process all along",
)
def processes_changed(*, processes: int = 2) -> str:
    """Begins together and ends alone."""
    with tempfile.TemporaryDirectory() as folder:

        def config(name: str) -> TrainConfig:
            return quick_config(Path(folder) / name, sync_norms=True, save_minutes=60.0)

        notes = [f"{folder}/{name}.txt" for name in ("alone", "changed")]
        alone = child(trains, config("alone"), False, InFloat64(notes[0]))
        check(alone.status() == 0, alone.said)
        noting = InFloat64(notes[1])
        stop = At(STEPS + STEPS // 2, Ask(signal.SIGTERM))
        started = together(processes, trains, config("changed"), False, noting, stop)
        for each in started:
            check(each.status() == 143, each.said)
        resumed = child(trains, config("changed"), True, noting)
        check(resumed.status() == 0, resumed.said)
        seen = [Counter(Path(each).read_text().splitlines()) for each in notes]
        check(seen[0] == seen[1] and seen[0].total() == 2 * STEPS * 24, "the images are not the same")
        found, wanted = (weights.read(Path(folder) / name)[1] for name in ("changed", "alone"))
        apart = max(float((found[key] - wanted[key]).abs().max()) for key in wanted)
    check(apart <= 1e-10, f"the weights are {apart:.1e} apart")
    return f"{seen[0].total()} images the same; weights {apart:.0e} apart"


@bar(
    "R25",
    "An evaluation counts every image once, whatever the number of processes.",
    "the 360 test images of digits in batches of 50, by 1, 2, 3 and {processes} processes (gloo)",
)
def evaluation(*, processes: int = 5) -> str:
    """Evaluates together."""
    with tempfile.TemporaryDirectory() as folder:
        found = {}
        for count in sorted({1, 2, 3, processes} - set(range(processes + 1, 4))):
            path = Path(folder) / f"{count}.json"
            for each in together(count, _evaluate, path):
                check(each.status() == 0, each.said)
            found[count] = json.loads(path.read_text())
            integers = {key: value for key, value in found[count].items() if isinstance(value, int)}
            check(
                integers == {key: found[1][key] for key in integers},
                f"{count} processes count {integers}, one {found[1]}",
            )
            check(abs(found[count]["loss"] - found[1]["loss"]) < 1e-12, "the losses differ")
    return f"{found[1]['correct1']} and {found[1]['correct5']} of {found[1]['images']} each time"


def _evaluate(path: Path) -> int:
    data = open_data("digits")
    preprocessing = preprocessing_for(data.train, data.channels, image_size=None, network_size=32)
    torch.manual_seed(0)
    model = build("se_resnet20", num_classes=10, in_channels=1)
    with joined(_CPU) as processes:
        batches = batches_of(data.test, preprocessing, batch_size=50, processes=processes)
        found = evaluate(model, batches, preprocessing, device=_CPU, processes=processes)
        if processes.leads:
            path.write_text(json.dumps(found.to_dict()))
    return 0
