"""Options, markers and the small data sets that tests share."""

import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import settings
from PIL import Image

# A busy machine is no failure; and where a failure stops others, it must not come by chance.
settings.register_profile("senet", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("senet")

# One thread a process: then several processes compute what one does bit for bit, and share the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the slow tests too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    reasons = {
        "slow": None if config.getoption("--slow") else "slow: give --slow to run it",
        "gpu": None if torch.cuda.is_available() else "there is no GPU",
        "data": None if _data_folder() else "SENET_DATA names no folder with the images",
    }
    for item in items:
        for marker, reason in reasons.items():
            if reason is not None and item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def data_folder() -> Path:
    """The folder of real images, for tests marked ``data``."""
    folder = _data_folder()
    assert folder is not None
    return folder


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """Two classes of colour images in folders: 6 to train on, 4 in val/."""
    for split, count in (("train", 3), ("val", 2)):
        for label, name in enumerate(("cat", "dog")):
            folder = tmp_path / "images" / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                (folder / f"{index}.png").write_bytes(png(seed=10 * label + index))
    return tmp_path / "images"


@pytest.fixture
def shard_folder(tmp_path: Path) -> Path:
    """Three classes of 8×8 colour images in shards: 2 × 6 to train on, 6 to test on."""
    folder = tmp_path / "shards"
    folder.mkdir()
    (folder / "classes.txt").write_text("zero\none\ntwo\n")
    for shard, name in enumerate(("a-train-0.tar", "a-train-1.tar", "a-test-0.tar")):
        write_shard(
            folder / name,
            {
                f"{index:05}.{ending}": content
                for index in range(6)
                for ending, content in (
                    ("png", png(seed=100 * shard + index, size=8)),
                    ("cls", str(index % 3).encode()),
                )
            },
        )
    return folder


@pytest.fixture
def coco_folder(tmp_path: Path) -> Path:
    """Images in COCO's format, of 64 × 48: 6 to train on, 3 in val; a red and a blue box in each."""
    folder = tmp_path / "coco"
    for split, count in (("train2017", 6), ("val2017", 3)):
        (folder / split).mkdir(parents=True)
        images: list[dict[str, Any]] = []
        boxes: list[dict[str, Any]] = []
        generator = np.random.default_rng(count)
        for number in range(count):
            pixels = np.full((48, 64, 3), 128, np.uint8)
            for place, channel in enumerate((0, 2)):
                left, top = (int(each) for each in generator.integers(0, 12, 2) + np.array([32 * place, 0]))
                pixels[top : top + 30, left : left + 20, :] = 0
                pixels[top : top + 30, left : left + 20, channel] = 255
                boxes.append(box(len(boxes) + 1, 10 + number, 3 + 4 * place, left, top, 20, 30))
            Image.fromarray(pixels).save(folder / split / f"{number}.png")
            images.append({"id": 10 + number, "file_name": f"{number}.png", "width": 64, "height": 48})
        categories = [{"id": 3, "name": "red"}, {"id": 7, "name": "blue"}]
        told = {"images": images, "annotations": boxes, "categories": categories}
        (folder / "annotations").mkdir(exist_ok=True)
        (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(told))
    return folder


def box(number: int, image: int, category: int, left: float, top: float, *size: float) -> dict[str, Any]:
    """An annotation in COCO's format."""
    bbox = [float(each) for each in (left, top, *size)]
    area = bbox[2] * bbox[3]
    where = {"image_id": image, "category_id": category}
    return {"id": number, **where, "bbox": bbox, "area": area, "iscrowd": 0}


def write_shard(path: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def png(seed: int, size: int = 40) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def _data_folder() -> Path | None:
    named = os.environ.get("SENET_DATA")
    return Path(named) if named and Path(named).is_dir() else None
