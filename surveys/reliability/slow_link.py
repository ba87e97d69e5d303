"""The bar of images that come over a slow link."""

from __future__ import annotations

import csv
import io
import re
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from surveys.reliability.bars import bar, check
from surveys.reliability.far_folder import FarFolder, missing
from surveys.reliability.harness import Running, digests, first_words, program, quick_config, same

_EPOCHS = 3
_TESTED = 16
# Pixels an edge: an image is read in the time of a few steps of the network on one core.
_SIZE = 48
# The part of the time that the network may wait.
_MOST = 0.1
# The number of workers that a run names is an estimate: the run with it may name another.
_RUNS = 3


@bar(
    "R3",
    "Shards over a slow link: a run whose network waits for images says how many --workers would do; with so "
    "many it reads far enough ahead, and ends in the bits of a run that has the shards on its own disk.",
    "two network namespaces, between them a link of {delay} ms each way and {loss} % loss; a shard of "
    "{images} JPEG images on one, which the other has by sshfs without a cache; a run with --workers 1, then "
    "one with the number that it named, and so on, 3 at most; in the last the network may wait {percent} % "
    "of the time, from the second epoch on; SHA-256 of weights, metrics and checkpoint",
    needs=missing,
)
def slow_link(*, delay: int = 20, loss: int = 1, images: int = 480, percent: int = 10) -> str:
    """Trains over the link with too few workers, and then as the runs themselves say."""
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        shards = scratch / "shards"
        size = _write(shards, images)

        def command(run: str, workers: int) -> list[str]:
            """The run on one core, with an index of the shards of its own."""
            config = quick_config(
                scratch / run,
                data=f"shards:{shards}",
                workers=workers,
                epochs=_EPOCHS,
                batch_size=8,
                save_minutes=10.0,
            )
            variables = [f"SENET_CACHE={scratch / 'cache'}", "OMP_NUM_THREADS=1"]
            return ["env", *variables, sys.executable, "-m", "senet", *first_words(config)]

        near = _Run(scratch / "near", program(*command("near", 0)))
        runs: list[tuple[int, _Run]] = []
        with FarFolder(shards, scratch, delay, loss) as far:
            workers = 1
            while workers and len(runs) < _RUNS:
                run = f"far{workers}"
                runs.append((workers, _Run(scratch / run, far.start(*command(run, workers)))))
                same(digests(scratch / run), near.digests, f"over the link, --workers {workers}")
                workers = runs[-1][1].named
            carried, lost, total = far.carried()
    told = "; ".join(f"{workers} workers: {run}" for workers, run in runs).replace("1 workers", "1 worker", 1)
    told += f"; from disk, by the run itself: {near}"
    if percent < 100:  # else times are not looked at, as on a machine that others use too
        check(runs[0][1].waited > _MOST, f"the link is too fast: {told}")
        check(runs[-1][1].waited <= percent / 100, f"the network waits: {told}")
    check(total >= len(runs) * _EPOCHS * size, f"only {total:,} bytes came over the link")
    return f"{told}; all equal; {100 * lost / (carried + lost):.1f} % of {carried + lost:,} packets lost"


class _Run:
    """A run that has ended well.

    Args:
        path: its folder.
        running: its process.
    """

    def __init__(self, path: Path, running: Running) -> None:
        check(running.status(590) == 0, running.said)
        self.digests = digests(path)
        with (path / "times.csv").open(encoding="utf-8", newline="") as file:
            # Without the first: it begins with nothing read ahead.
            rows = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)][1:]
        seconds = sum(row["seconds"] for row in rows)
        self.waited = sum(row["waited"] * row["seconds"] for row in rows) / seconds
        self.speed = sum(row["images_per_second"] * row["seconds"] for row in rows) / seconds
        # The largest of what its epochs said; 0 where none was wanted.
        said = re.findall(r"--workers (\d+) should do", running.said)
        self.named = max(map(int, said), default=0) if self.waited > _MOST else 0

    def __str__(self) -> str:
        return f"waits {100 * self.waited:.0f} % of the time, {self.speed:.0f} images/s"


def _write(folder: Path, images: int) -> int:
    """A shard to train on and one to test on, of two classes; the bytes of the first one's images."""
    folder.mkdir()
    (folder / "classes.txt").write_text("dark\nlight\n", encoding="utf-8")
    rng = np.random.default_rng(0)
    total = 0
    for name, count in (("train", images), ("test", _TESTED)):
        with tarfile.open(folder / f"{name}.tar", "w", format=tarfile.USTAR_FORMAT) as archive:
            for number in range(count):
                label = number % 2
                low, high = 100 * label, 100 * label + 156
                pixels = rng.integers(low, high, (_SIZE, _SIZE, 3), dtype=np.uint8)
                file = io.BytesIO()
                Image.fromarray(pixels).save(file, "JPEG", quality=30)
                for ending, content in (("jpg", file.getvalue()), ("cls", str(label).encode())):
                    member = tarfile.TarInfo(f"{number:06}.{ending}")
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
                total += len(file.getvalue()) * (name == "train")
    return total
