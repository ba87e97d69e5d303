"""Whether processes beside the network help: images a second, training and preparing images.

    python benchmarks/input_pipeline.py --data shards:DIR --workers 1 2

Before it reports, it checks that the first batch is the same whatever the workers.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Iterator

import torch
from timing import alternate, compare, publish
from torch import Tensor

from senet.training.config import TrainConfig
from senet.training.job import Job, prepare
from senet.training.loop import _train_step
from senet.training.recipes import recipe_named


def main() -> None:
    """Measures, prints and writes the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="se_resnet20", help="a name of `senet models`")
    parser.add_argument("--data", required=True, help="folder:DIR or shards:DIR")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2], help="each a candidate")
    parser.add_argument("--steps", type=int, default=20, help="steps a round")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each")
    options = parser.parse_args()

    def candidate(workers: int) -> tuple[Job, Iterator[tuple[Tensor, Tensor]]]:
        recipe = recipe_named("cifar")
        job = prepare(TrainConfig(model=options.model, data=options.data, recipe=recipe, workers=workers))
        return job, iter(job.train_batches)

    jobs = {f"{workers} workers": candidate(workers) for workers in [0, *options.workers]}
    firsts = [next(batches)[0] for _, batches in jobs.values()]
    if not all(torch.equal(first, firsts[0]) for first in firsts):
        raise SystemExit("the batches differ: nothing to compare")

    def train(job: Job, batches: Iterator[tuple[Tensor, Tensor]]) -> None:
        for _ in range(options.steps):
            _train_step(job, *job.to_device(*next(batches)))

    def prepare_only(batches: Iterator[tuple[Tensor, Tensor]]) -> None:
        for _ in range(options.steps):
            next(batches)

    runs = {name: functools.partial(train, *job) for name, job in jobs.items()}
    runs["preparing only"] = functools.partial(prepare_only, jobs["0 workers"][1])
    job = next(iter(jobs.values()))[0]
    rows = compare(alternate(runs, options.rounds), "0 workers")
    images = options.steps * job.order.batch_size
    for row in rows:
        row["images/s"] = round(1000 * images / row["median ms"])
    settings = {"data": options.data.partition(":")[0], "model": options.model, "batch": job.order.batch_size}
    publish(f"input_pipeline-{options.model}-{job.device.type}", rows, settings)


if __name__ == "__main__":
    main()
