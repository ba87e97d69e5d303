r"""What preparing an image costs, stage by stage, and whether the cores feed the network.

    python benchmarks/input_pipeline.py --data shards:DIR
    python benchmarks/input_pipeline.py --data folder:DIR \
        --model se_resnet50 --recipe imagenet --batch 8 --steps 2 --rounds 3

The first table is the time of one core: for each image the median of several turns, and of these the mean and
the quartiles over the images, which differ in size. The second is images a second, by the number of
processes that prepare: preparing alone, training, and the network alone, on images that are ready.
Before it reports, it checks that the first batch is the same whatever that number.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch
from timing import compare, publish
from torch.nn import functional as F
from torch.utils.data import default_collate

from senet.data.augmentation import training_transform
from senet.data.source import decode, evenly_spaced
from senet.data.stream import Batch, Images, SampleKey
from senet.training.classification import Classification, prepare
from senet.training.config import TrainConfig
from senet.training.recipes import recipe_named

# Images a second that a GPU may take.
_RATE = 1000

# So many times the steps of training: preparing is quick, and a short time says little.
_LONGER = 10


def main() -> None:
    """Measures, prints and writes the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help="folder:DIR or shards:DIR")
    parser.add_argument("--model", default="se_resnet20", help="a name of `senet models`")
    parser.add_argument("--recipe", default="cifar", help="whose augmentation it is")
    parser.add_argument("--batch", type=int, default=128, help="images a step")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="each a candidate, beside 0")
    parser.add_argument("--steps", type=int, default=20, help="steps a round")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each")
    parser.add_argument("--images", type=int, default=500, help="for the stages, at most")
    parser.add_argument("--turns", type=int, default=7, help="of each image, for the stages")
    parser.add_argument("--note", default="", help="about the machine, for the record")
    options = parser.parse_args()

    # One part a step, enough of them, and a rate at which nothing diverges.
    changes = {"batch_size": options.batch, "accumulate": 1, "epochs": 10_000, "lr": 1e-3}
    recipe = dataclasses.replace(recipe_named(options.recipe), **changes)
    job = prepare(TrainConfig(model=options.model, data=options.data, recipe=recipe, workers=0))
    jobs = {workers: dataclasses.replace(job, workers=workers) for workers in (0, *options.workers)}
    ready = [next(each.steps()) for each in jobs.values()]
    if not all(torch.equal(batches[0].images, ready[0][0].images) for batches in ready):
        raise SystemExit("the batches differ: nothing to compare")

    name = f"{options.model}-{job.device.type}"
    settings = {
        "data": f"{options.data.partition(':')[0]}: {job.data.description}",
        "model": options.model,
        "recipe": options.recipe,
        "image size": job.preprocessing.size,
        "batch": job.order().batch_size,
        "note": options.note,
    }
    rows = stages(job, options.images, options.turns)
    publish(f"input_stages-{name}", rows, settings)
    cores = _RATE * rows[-1]["us an image"] / 1e6
    print(f"computed: to prepare {_RATE:,} images a second takes {cores:.2g} cores\n")

    runs: dict[str, Callable[[], float]] = {}
    for workers, each in jobs.items():
        runs[f"training, {workers} workers"] = Run(each, each.steps, train, options.steps)
        runs[f"preparing alone, {workers} workers"] = Run(each, each.steps, look, _LONGER * options.steps)
    runs["network alone"] = Run(job, lambda: itertools.repeat(ready[0]), train, options.steps)
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(options.rounds):
        for candidate, run in runs.items():
            seconds[candidate].append(run())
    rows = compare(seconds, "training, 0 workers")
    for row in rows:
        row["images/s"] = 1000 * job.order().batch_size / row["median ms"]
    publish(f"input_pipeline-{name}", rows, settings)
    rates = {row["candidate"]: row["images/s"] for row in rows}
    fastest = max(rate for candidate, rate in rates.items() if candidate.startswith("preparing"))
    print(f"\npreparing alone is {fastest / rates['network alone']:.2g} times as fast as the network alone")


def stages(job: Classification, count: int, turns: int) -> list[dict[str, Any]]:
    """A row a stage, microseconds an image on one core; the last row is all of them.

    Args:
        job: whose images and augmentation.
        count: images, at most.
        turns: of each image, after one to warm up.
    """
    source, transform = job.data.train, training_transform(job.preprocessing, job.config.recipe)
    indices = evenly_spaced(len(source), count)
    clocks = {name: Clock() for name in ("decode", "read", "augment", "prepare", "collate")}
    images = Images(source, clocks["augment"].around(transform), job.config.seed)
    prepared, collated = (
        clocks["prepare"].around(images.__getitem__),
        clocks["collate"].around(default_collate),
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with (
        mock.patch.object(_decoding(source), "decode", clocks["decode"].around(decode)),
        mock.patch.object(source, "read", clocks["read"].around(source.read)),
    ):
        for turn, index in itertools.product(range(turns + 1), indices):
            prepared(SampleKey(turn, index))
        batch = [(each.image, each.label) for each in (images[SampleKey(0, index)] for index in indices)]
        for _ in range(turns):
            collated(batch[: job.order().batch_size])
    torch.set_num_threads(threads)

    # (turns, images), without the turn to warm up.
    decoding, reading, augmenting, preparing = (
        torch.tensor(clocks[name].laps).view(-1, len(indices))[1 : turns + 1]
        for name in ("decode", "read", "augment", "prepare")
    )
    collating = torch.tensor(clocks["collate"].laps).median() / len(batch[: job.order().batch_size])
    found = {
        "read the bytes": reading - decoding,
        "decode": decoding,
        "augment": augmenting,
        "seed and count": preparing - reading - augmenting,
        "collate": torch.full_like(preparing, float(collating)),
        "all": preparing + collating,
    }
    rows = []
    for stage, seconds in found.items():
        micros = 1e6 * seconds.median(0).values
        low, high = micros.quantile(torch.tensor([0.25, 0.75])).tolist()
        row = {
            "stage": stage,
            "us an image": float(micros.mean()),
            "low quartile": low,
            "high quartile": high,
        }
        rows.append(row | {"images": len(indices), "turns": turns})
    return rows


class Clock:
    """The seconds that each call of a function takes, in ``laps``."""

    def __init__(self) -> None:
        self.laps: list[float] = []

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, by the clock."""

        def timed(*args: Any, **options: Any) -> Any:
            started = time.perf_counter()
            result = function(*args, **options)
            self.laps.append(time.perf_counter() - started)
            return result

        return timed


@dataclasses.dataclass(frozen=True)
class Run:
    """Some steps of a job, when they go on as ever; gives the seconds of one.

    Args:
        job: what is trained, and by how many workers its images are prepared.
        source: gives the batches of each step.
        work: is done with them.
        steps: how many.
    """

    job: Classification
    source: Callable[[], Iterator[list[Batch]]]
    work: Callable[[Classification, list[Batch]], object]
    steps: int

    def __call__(self) -> float:
        """Warms up, then takes the time."""
        batches = self.source()
        # Each worker prepares two batches ahead: these are used up, or there are two again.
        for _ in range(2 * self.job.workers + 1):
            self.work(self.job, next(batches))
        started = time.perf_counter()
        for _ in range(self.steps):
            self.work(self.job, next(batches))
        return (time.perf_counter() - started) / self.steps


def _decoding(source: Any) -> Any:
    """The module whose ``decode`` the source calls: its own, or that which reads image files."""
    own = sys.modules[type(source).__module__]
    return own if hasattr(own, "decode") else sys.modules[decode.__module__]


def train(job: Classification, batches: list[Batch]) -> None:
    """A step of training."""
    job.state.optimizer.zero_grad(set_to_none=True)
    for part, batch in enumerate(batches):
        x, target = job.inputs(batch, part)
        with job.autocast():
            loss = F.cross_entropy(job.network(x), target)
        loss.backward()  # type: ignore[no-untyped-call]
    job.state.optimizer.step()


def look(_job: Classification, _batches: list[Batch]) -> None:
    """Nothing: the images are there, and that is all."""


if __name__ == "__main__":
    main()
