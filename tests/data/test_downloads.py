import gzip
import hashlib
import pickle
import struct
import tarfile
import threading
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
from torchvision import datasets

from senet.data import Splits, open_data
from senet.data.downloads import _alone_in
from senet.errors import DataError


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """There is no network; what was asked of it."""
    urls: list[str] = []

    def refuse(url: str, *_: Any, **__: Any) -> None:
        urls.append(url)
        raise URLError("no network")

    monkeypatch.setattr(datasets.utils, "_get_redirect_url", refuse)
    monkeypatch.setattr(datasets.utils, "_urlretrieve", refuse)
    return urls


def pixels(seed: int, count: int, *shape: int) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def batch(path: Path, key: str, labels: list[int], seed: int) -> list[str]:
    """A file of CIFAR: rows of 3,072 bytes, planes of red, green and blue. Its name and its sum."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps({"data": pixels(seed, len(labels), 3072), key: labels}, protocol=2))
    return [path.name, md5(path)]


@pytest.fixture
def cifar10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "c" / "cifar-10-batches-py"
    cifar = datasets.CIFAR10
    files = [batch(folder / f"data_batch_{n}", "labels", [n, n + 1], n) for n in range(1, 6)]
    monkeypatch.setattr(cifar, "train_list", files)
    monkeypatch.setattr(cifar, "test_list", [batch(folder / "test_batch", "labels", [9, 0, 3], 6)])
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}, protocol=2))
    monkeypatch.setattr(cifar, "meta", {**cifar.meta, "md5": md5(folder / "batches.meta")})
    return tmp_path / "c"


@pytest.fixture
def fashion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As fetched: packed, not yet unpacked."""
    folder = tmp_path / "f" / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    resources = []
    for name, images, seed in (("train", 20, 0), ("t10k", 10, 1)):
        for kind, header, content in (
            ("images-idx3", (2051, images, 28, 28), pixels(seed, images, 28, 28).tobytes()),
            ("labels-idx1", (2049, images), bytes(range(10)) * (images // 10)),
        ):
            path = folder / f"{name}-{kind}-ubyte.gz"
            path.write_bytes(gzip.compress(struct.pack(f">{len(header)}I", *header) + content))
            resources.append((path.name, md5(path)))
    monkeypatch.setattr(datasets.FashionMNIST, "resources", resources)
    return tmp_path / "f"


def test_cifar10_as_it_is_published(cifar10: Path, asked: list[str]) -> None:
    data = open_data(f"cifar10:{cifar10}")
    assert (len(data.train), len(data.test), data.channels) == (10, 3, 3)
    assert data.classes == tuple("abcdefghij")
    assert data.train.labels.tolist() == [1, 2, 2, 3, 3, 4, 4, 5, 5, 6]
    assert data.test.labels.tolist() == [9, 0, 3]
    image, label = data.train.read(3)
    assert (image.mode, image.size, label) == ("RGB", (32, 32), 3)
    assert np.array_equal(np.asarray(image), pixels(2, 2, 3, 32, 32)[1].transpose(1, 2, 0))
    assert "10 images to train on, 3 to test on (the official split), 10 classes" in data.description
    assert not asked


def test_cifar100_has_its_fine_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, cifar = tmp_path / "cifar-100-python", datasets.CIFAR100
    monkeypatch.setattr(cifar, "train_list", [batch(folder / "train", "fine_labels", [0, 99], 0)])
    monkeypatch.setattr(cifar, "test_list", [batch(folder / "test", "fine_labels", [42], 1)])
    names = [f"fine {number}" for number in range(100)]
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": names}, protocol=2))
    monkeypatch.setattr(cifar, "meta", {**cifar.meta, "md5": md5(folder / "meta")})
    data = open_data(f"cifar100:{tmp_path}")
    assert (data.train.labels.tolist(), data.test.labels.tolist()) == ([0, 99], [42])
    assert data.classes == tuple(names)


def test_fashion_mnist_is_unpacked_where_it_lies(fashion: Path, asked: list[str]) -> None:
    for _ in range(2):
        data = open_data(f"fashion-mnist:{fashion}")
        assert (len(data.train), len(data.test), data.channels) == (20, 10, 1)
        assert (data.classes[0], data.classes[9]) == ("T-shirt/top", "Ankle boot")
        image, label = data.test.read(7)
        assert (image.mode, image.size, label) == ("L", (28, 28), 7)
        assert np.array_equal(np.asarray(image), pixels(1, 10, 28, 28)[7])
    assert not asked


def test_an_archive_that_lies_there_is_unpacked(
    cifar10: Path, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = cifar10 / "cifar-10-batches-py"
    archive = cifar10 / "cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz") as packed:
        packed.add(folder, folder.name)
    monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", md5(archive))
    # Cut, as by a stop in the middle of unpacking.
    (folder / "data_batch_3").write_bytes((folder / "data_batch_3").read_bytes()[:1000])
    (folder / "test_batch").unlink()
    assert len(open_data(f"cifar10:{cifar10}").test) == 3
    assert not asked


@pytest.mark.parametrize("name", ["data_batch_2", "batches.meta"])
def test_what_has_another_sum_is_never_unpickled(
    name: str, cifar10: Path, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
            return (cifar10 / "sprung").touch, ()

    (cifar10 / "cifar-10-batches-py" / name).write_bytes(pickle.dumps(Trap()))
    (cifar10 / "cifar-10-python.tar.gz").write_bytes(b"half an archive")
    with pytest.raises(DataError, match="missing or broken"):
        open_data(f"cifar10:{cifar10}")
    assert not (cifar10 / "sprung").exists()
    assert asked or name == "batches.meta"


def test_without_a_network_the_error_says_what_to_do(tmp_path: Path, asked: list[str]) -> None:
    for scheme, place, packed in (
        ("cifar10", "cifar-10-batches-py/data_batch_1", "cifar-10-python.tar.gz"),
        ("cifar100", "cifar-100-python/train", "cifar-100-python.tar.gz"),
        ("fashion-mnist", "FashionMNIST/raw/train-images", "FashionMNIST/raw/train-images-idx3-ubyte.gz"),
    ):
        with pytest.raises(DataError, match=f"data '{scheme}:{tmp_path / scheme}'") as caught:
            open_data(f"{scheme}:{tmp_path / scheme}")
        words = str(caught.value)
        assert len(words.splitlines()) == 1
        for part in (
            "no network",
            "http",
            f"{tmp_path / scheme}/{place}",
            packed,
            "folder:DIR and shards:DIR",
        ):
            assert part in words
    assert {url.split("/")[2] for url in asked} >= {"www.cs.toronto.edu"}


@pytest.mark.parametrize("cut", [0, 3, 100])
def test_half_unpacked_is_not_taken_for_whole(fashion: Path, cut: int) -> None:
    open_data(f"fashion-mnist:{fashion}")
    path = fashion / "FashionMNIST" / "raw" / "t10k-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DataError, match=r"missing or broken.*remove broken ones"):
        open_data(f"fashion-mnist:{fashion}")


@pytest.mark.parametrize(
    ("labels", "words"),
    [([3] * 9, "9 labels and images of the shape"), ([10] * 10, "labels that are not 0 to 9")],
)
def test_files_that_do_not_fit_each_other(fashion: Path, labels: list[int], words: str) -> None:
    open_data(f"fashion-mnist:{fashion}")
    path = fashion / "FashionMNIST" / "raw" / "t10k-labels-idx1-ubyte"
    path.write_bytes(struct.pack(">2I", 2049, len(labels)) + bytes(labels))
    with pytest.raises(DataError, match=words):
        open_data(f"fashion-mnist:{fashion}")


def test_one_process_fetches_and_the_others_wait(fashion: Path) -> None:
    opened: list[Splits] = []
    other = threading.Thread(target=lambda: opened.append(open_data(f"fashion-mnist:{fashion}")))
    with _alone_in(fashion):
        other.start()
        other.join(0.3)
        assert not opened
        assert not list(fashion.rglob("*ubyte")), "nothing was unpacked meanwhile"
    other.join(20)
    assert len(opened) == 1
