"""Bars of input that is broken, or made to do harm."""

from __future__ import annotations

import io
import json
import resource
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image
from tests.data.broken import WHOLE, encoded, gif_header, mutated, ppm_header, zeros_png
from tests.weights.mutations import mutations

from senet.cli import main
from senet.data import open_data
from senet.data.augmentation import training_transform
from senet.data.preprocessing import preprocessing_for
from senet.data.source import decode
from senet.data.stream import Batch, Images, Loader, TrainingBatches
from senet.errors import SenetError
from senet.runtime.processes import Processes
from senet.training.config import Recipe, TrainConfig, read_config
from surveys.reliability.bars import bar, check
from surveys.reliability.harness import child, quick_config, say, start

_SLOW = 2.0  # seconds for one small file


@bar(
    "R12",
    "A broken image is an error that names it, whatever is wrong with it.",
    "{mutations} mutations of JPEG, PNG, WebP, GIF, BMP and PPM files, decoded in a process of its own",
)
def fuzzed_images(*, mutations: int = 100_000) -> str:
    """Decodes what is no image any more."""
    return _fuzzed(_decode_mutations, mutations)


@bar(
    "R12",
    "So is a broken config.yaml.",
    "{mutations} mutations of a config.yaml, read in a process of its own (those of weights: "
    "tests/weights/test_{{containers,caffemodel,prototxt}}.py, 2,000 each)",
)
def fuzzed_configs(*, mutations: int = 2_000) -> str:
    """Reads what is no configuration any more."""
    return _fuzzed(_read_mutations, mutations)


def _fuzzed(function: Callable[[int], int], count: int) -> str:
    running = child(function, count)
    status = running.status(3600)
    check(status == 0, f"the process ended with {status}: {running.said[-2000:]}")
    return running.said.strip().splitlines()[-1]


def _decode_mutations(count: int) -> int:
    rng = np.random.default_rng(0)
    whole = list(WHOLE.values())
    tries = (
        mutated(rng, whole[number % len(whole)], whole[int(rng.integers(len(whole)))])
        for number in range(count)
    )
    return _try_all(tries, lambda data: decode(data, channels=3, where="a/b.jpg"), "a/b.jpg")


def _read_mutations(count: int) -> int:
    content = yaml.safe_dump(TrainConfig().to_dict(), sort_keys=False).encode()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.yaml"

        def read(data: bytes) -> None:
            path.write_bytes(data)
            read_config(path)

        return _try_all(mutations(content, count), read, str(path))


def _try_all(tries: Iterable[bytes], read: Callable[[bytes], object], name: str) -> int:
    """Reads each; says how many were refused, and fails on anything but a SenetError that has the name."""
    tried = refused = 0
    slowest = 0.0
    before = _memory()
    for data in tries:
        tried += 1
        started = time.perf_counter()
        try:
            read(data)
        except SenetError as error:
            refused += 1
            if name not in str(error):
                say(f"{data!r}: the file is not named: {error}")
                return 1
        slowest = max(slowest, time.perf_counter() - started)
    grown = _memory() - before
    if slowest > _SLOW or grown > 256:
        say(f"the slowest took {slowest:.2f} s, the memory grew by {grown} MB")
        return 1
    say(
        f"{tried:,}: {refused:,} refused by name, the rest read, 0 crashes; the slowest "
        f"{1000 * slowest:.0f} ms, {grown} MB more memory"
    )
    return 0


def _memory() -> int:
    """The most memory that this process ever had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


# What would make CANARY, if anything were executed: a whole config file, or values of one.
_GADGETS: tuple[str | dict[str, Any], ...] = (
    "model: !!python/object/apply:os.system ['touch CANARY']\n",
    "model: !!python/object/new:os.system ['touch CANARY']\n",
    "!!python/object/apply:subprocess.check_output [[touch, CANARY]]\n",
    "data: !!python/object/apply:builtins.eval [\"open('CANARY', 'w')\"]\n",
    "data: !!python/name:os.system ''\n",
    "se: !!python/module:antigravity ''\n",
    "options: !!python/object/apply:builtins.exec [\"open('CANARY', 'w')\"]\n",
    {"model": "${oc.env:HOME}", "data": "${system:touch CANARY}"},
    {"data": "$(touch CANARY)", "weights": "`touch CANARY`"},
    {"options": {"class_path": "os.system", "init_args": {"command": "touch CANARY"}}},
    {"se": {"class_path": "os.system", "init_args": {"command": "touch CANARY"}}},
    {"recipe": {"class_path": "subprocess.Popen", "init_args": {"args": ["touch", "CANARY"]}}},
    {"model": {"class_path": "pathlib.Path.touch", "init_args": {"self": "CANARY"}}},
    {"class_path": "os.system", "init_args": {"command": "touch CANARY"}},
    {"weights": "| touch CANARY"},
    {"model": "os:system"},
)


@bar(
    "R13",
    "Nothing in a config.yaml is executed.",
    "{gadgets} files that ask for it (YAML tags, class_path, interpolation, shell words), by --config and by "
    "--resume (those of weights: tests/weights/test_containers.py)",
)
def gadgets(*, gadgets: int = 16) -> str:
    """Offers what runs commands elsewhere."""
    with tempfile.TemporaryDirectory() as folder:
        running = child(_offer, Path(folder), _GADGETS[:gadgets])
        status = running.status(600)
        check(status == 0, f"the process ended with {status}: {running.said}")
        check(not (Path(folder) / "CANARY").exists(), f"something was executed: {running.said}")
    return f"2 × {gadgets} refused, 0 executed"


def _offer(folder: Path, files: tuple[str | dict[str, Any], ...]) -> int:
    canary = folder / "CANARY"
    usual = TrainConfig(data="fake:1x8x8,images=20,classes=2").to_dict() | {"epochs": 1}
    for number, each in enumerate(files):
        text = each if isinstance(each, str) else yaml.safe_dump(usual | each)
        if isinstance(each, str) and ":" in each.split("!!")[0]:
            key = each.partition(":")[0]
            text += yaml.safe_dump({name: value for name, value in usual.items() if name != key})
        run = folder / str(number)
        run.mkdir()
        (run / "config.yaml").write_text(text.replace("CANARY", str(canary)))
        words = (["--config", str(run / "config.yaml"), "--run", str(folder / "new")], ["--resume", str(run)])
        for way in words:
            try:
                status = main(["train", *way])
            except SystemExit as error:
                status = int(error.code or 0)
            if status not in (1, 2) or canary.exists():
                say(f"{way[0]} of {text[:200]!r}: status {status}, canary {canary.exists()}")
                return 1
    return 0


@bar(
    "R14",
    "Broken images are replaced, always by the same, up to a limit; each is named in the end.",
    "a folder of {images} images of which 1 % are cut off, one is empty and one a bomb, beside a CMYK JPEG "
    "and a PNG named .jpg, which are fine; 0 and 2 workers, 1 and 2 processes",
)
def broken_images(*, images: int = 400) -> str:
    """Trains on images of which some are broken."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "images"
        broken = _make(root, images)
        batches = {count: _batches(f"folder:{root}", *count) for count in ((0, 1), (2, 1), (0, 2), (2, 2))}
        for count, found in batches.items():
            check(found == batches[0, 1], f"{count} (workers, processes) have other batches")
        config = quick_config(
            Path(folder) / "run", data=f"folder:{root}", image_size=16, batch_size=images // 4, epochs=1
        )
        running = start(config)
        check(running.status() == 0, running.said)
        run = Path(str(config.run))
        lines = (run / "broken_images.txt").read_text().splitlines()
        named = sorted(path for path in broken for line in lines if f"reading {path}:" in line)
        check(named == broken and len(lines) == len(broken), f"{lines} are not {broken}")
        row = json.loads((run / "metrics.jsonl").read_text())
        check(row["broken"] == len(broken), f"{row['broken']} broken images are counted, not {len(broken)}")
        for limit in (0, len(broken) - 1):
            again = quick_config(
                Path(folder) / f"limit{limit}",
                data=config.data,
                image_size=16,
                batch_size=images // 4,
                epochs=1,
                broken_images=limit,
            )
            running = start(again)
            check(running.status() == 1, running.said)
            exceeded = f"--broken_images {limit}" in running.said and any(p in running.said for p in broken)
            check(exceeded and "Traceback" not in running.said, running.said)
    return f"{len(broken)} of {len(broken)} named and counted, nothing else; batches equal"


def _make(root: Path, images: int) -> list[str]:
    """The folder; the paths of the broken images to train on, sorted."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (images + 8, 16, 16, 3), dtype=np.uint8)
    paths = []
    for number, picture in enumerate(pixels):
        split = "train" if number < images else "val"
        path = root / split / ("cat", "dog")[number % 2] / f"{number:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "JPEG")
        path.write_bytes(file.getvalue())
        paths.append(path)
    chosen = [paths[int(each)] for each in rng.permutation(images)[: images // 100 + 4]]
    empty, bomb, cmyk, named, *cut = chosen
    empty.write_bytes(b"")
    bomb.write_bytes(zeros_png(20_000, 20_000, whole=False))
    cmyk.write_bytes(encoded("CMYK", "JPEG"))
    named.write_bytes(encoded("RGB", "PNG"))
    for path in cut:
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
    return sorted(map(str, (empty, bomb, *cut)))


def _batches(name: str, workers: int, processes: int) -> list[str]:
    """An epoch's batches, each as text; of several processes their shares put together."""
    data = open_data(name)
    preprocessing = preprocessing_for(data.train, data.channels, image_size=16, network_size=32)
    images = Images(data.train, training_transform(preprocessing, Recipe(flip=True)), seed=1, replace=True)
    shares = []
    for rank in range(processes):
        order = TrainingBatches(len(data.train), 40, 1, 1, processes=Processes(rank, processes))
        shares.append([_rows(batch) for batch in Loader(images, order, workers=workers)])
    return ["".join(parts) for parts in zip(*shares, strict=True)]


def _rows(batch: Batch) -> str:
    rows = zip(batch.images, batch.labels.tolist(), strict=True)
    return "".join(f"{label} {image.numpy().tobytes().hex()}\n" for image, label in rows)


_BOMBS = {
    "PNG": zeros_png(50_000, 50_000),
    "PNG, header only": zeros_png(2**31 - 1, 2**31 - 1, whole=False),
    "GIF": gif_header(65_535, 65_535),
    "PPM": ppm_header(100_000, 100_000),
}


@bar(
    "R15",
    "A decompression bomb is refused by its header.",
    "{times} times each of " + ", ".join(_BOMBS) + ", up to 4.6 × 10^18 pixels",
)
def bombs(*, times: int = 100, megabytes: int = 50) -> str:
    """Decodes bombs."""
    running = child(_refuse_bombs, times)
    check(running.status() == 0, running.said)
    slowest, grown = map(float, running.said.split()[-2:])
    check(grown <= megabytes, f"the memory grew by {grown:.0f} MB")
    return f"in at most {slowest:.1f} ms, {grown:.0f} MB more memory"


def _refuse_bombs(times: int) -> int:
    decode(WHOLE["png"], channels=3, where="a")
    before, slowest = _memory(), 0.0
    for name, data in list(_BOMBS.items()) * times:
        started = time.perf_counter()
        try:
            decode(data, channels=3, where="the bomb")
        except SenetError as error:
            if "the bomb" not in str(error) or "pixels" not in str(error):
                say(f"{name}: {error}")
                return 1
        else:
            say(f"{name} was decoded")
            return 1
        slowest = max(slowest, time.perf_counter() - started)
    say(f"{1000 * slowest} {_memory() - before}")
    return 0
