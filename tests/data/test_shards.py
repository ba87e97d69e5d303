import io
import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.conftest import png, write_shard

from senet.data import open_data, shards
from senet.data.shards import Shards
from senet.errors import DataError


def test_samples_are_numbered_across_shards(shard_folder: Path) -> None:
    data = open_data(f"shards:{shard_folder}")
    assert (len(data.train), len(data.test), data.channels) == (12, 6, 3)
    assert data.classes == ("zero", "one", "two")
    assert [data.train.read(index)[1] for index in range(12)] == [0, 1, 2] * 4
    assert data.train.labels.tolist() == [0, 1, 2] * 4
    image = np.asarray(data.train.read(7)[0])
    assert np.array_equal(image, np.random.default_rng(101).integers(0, 256, (8, 8, 3), dtype=np.uint8))


def test_a_class_may_be_named_by_a_path(shard_folder: Path) -> None:
    """As those of Places365 are, in shards as in folders."""
    names = ("a/airfield", "a/apartment_building/outdoor", "z/zen_garden")
    (shard_folder / "classes.txt").write_text("".join(f"{name}\n" for name in names))
    files: dict[str, bytes] = {}
    for label, name in enumerate(names):
        files |= {f"{name}/00000001.jpg": png(label), f"{name}/00000001.cls": str(label).encode()}
    write_shard(shard_folder / "a-test-0.tar", files)
    data = open_data(f"shards:{shard_folder}")
    assert data.classes == names
    assert data.test.labels.tolist() == [0, 1, 2]
    assert np.array_equal(np.asarray(data.test.read(1)[0]), np.asarray(Image.open(io.BytesIO(png(1)))))


def test_another_process_opens_the_shards_itself(shard_folder: Path) -> None:
    source = open_data(f"shards:{shard_folder}").train
    source.read(0)
    assert isinstance(source, Shards)
    assert source._files
    copy = pickle.loads(pickle.dumps(source))
    assert not copy._files
    assert np.array_equal(np.asarray(copy.read(0)[0]), np.asarray(source.read(0)[0]))


def test_val_may_stand_for_test_and_folders_in_a_tar_are_part_of_the_name(shard_folder: Path) -> None:
    (shard_folder / "a-test-0.tar").unlink()
    write_shard(
        shard_folder / "b-val-0.tar",
        {"x/0.PNG": png(1), "x/0.cls": b"1\n", "y/0.png": png(2), "y/0.cls": b"2"},
    )
    data = open_data(f"shards:{shard_folder}")
    assert [data.test.read(index)[1] for index in range(2)] == [1, 2]


def test_shards_are_told_apart_by_words(shard_folder: Path) -> None:
    (shard_folder / "a-train-1.tar").rename(shard_folder / "latest-train-1.tar")
    (shard_folder / "a-test-0.tar").rename(shard_folder / "latest_validation0.tar")
    data = open_data(f"shards:{shard_folder}")
    assert (len(data.train), len(data.test)) == (12, 6)
    (shard_folder / "latest_validation0.tar").rename(shard_folder / "train-val.tar")
    with pytest.raises(DataError, match="named for training and for testing"):
        open_data(f"shards:{shard_folder}")


def test_one_grey_image_does_not_make_a_grey_data_set(shard_folder: Path) -> None:
    grey = io.BytesIO()
    Image.new("L", (8, 8)).save(grey, "PNG")
    write_shard(shard_folder / "a-train-0.tar", {"0.png": grey.getvalue(), "0.cls": b"0"})
    assert open_data(f"shards:{shard_folder}").channels == 3
    (shard_folder / "a-train-1.tar").unlink()
    assert open_data(f"shards:{shard_folder}").channels == 1


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"0.png": png(1)}, r"0: the sample has \.png"),
        ({"0.cls": b"1"}, r"0: the sample has \.cls"),
        ({"0.png": png(1), "0.jpg": png(1), "0.cls": b"1"}, "one image and its class"),
        ({"0.png": png(1), "0.cls": b"3"}, r"0\.cls: the class is '3'. Allowed: 0 to 2"),
        ({"0.png": png(1), "0.cls": b"cat"}, "the class is 'cat'"),
        ({}, "hold no samples"),
    ],
)
def test_samples_that_are_wrong(shard_folder: Path, files: dict[str, bytes], words: str) -> None:
    write_shard(shard_folder / "a-test-0.tar", files)
    with pytest.raises(DataError, match=words):
        open_data(f"shards:{shard_folder}")


def test_a_shard_that_was_cut_between_samples(shard_folder: Path) -> None:
    path = shard_folder / "a-test-0.tar"
    with tarfile.open(path) as archive:
        third = archive.getmembers()[4].offset
    path.write_bytes(path.read_bytes()[:third])
    with pytest.raises(DataError, match=r"a-test-0\.tar: the tar file ends without its end mark"):
        open_data(f"shards:{shard_folder}")


def test_a_name_that_stands_twice(shard_folder: Path) -> None:
    with tarfile.open(shard_folder / "a-test-0.tar", "a") as archive:
        member = tarfile.TarInfo("00001.png")
        archive.addfile(member, io.BytesIO())
    with pytest.raises(DataError, match=r"00001\.png: the name stands in the shard twice"):
        open_data(f"shards:{shard_folder}")


def test_folders_that_are_wrong(shard_folder: Path) -> None:
    whole = (shard_folder / "a-test-0.tar").read_bytes()
    (shard_folder / "a-test-0.tar").write_bytes(whole[:700])
    with pytest.raises(DataError, match=r"a-test-0\.tar"):
        open_data(f"shards:{shard_folder}")
    (shard_folder / "a-test-0.tar").write_bytes(b"no tar at all" * 100)
    with pytest.raises(DataError, match="no whole tar file"):
        open_data(f"shards:{shard_folder}")
    (shard_folder / "classes.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(DataError, match=r"classes\.txt cannot be read"):
        open_data(f"shards:{shard_folder}")
    (shard_folder / "classes.txt").unlink()
    with pytest.raises(DataError, match=r"classes\.txt cannot be read"):
        open_data(f"shards:{shard_folder}")
    (shard_folder / "a-test-0.tar").unlink()
    with pytest.raises(DataError, match=r"there is no \*test\*\.tar or \*val\*\.tar"):
        open_data(f"shards:{shard_folder}")


def test_a_broken_image_is_named_with_its_shard(shard_folder: Path) -> None:
    write_shard(shard_folder / "a-test-0.tar", {"00.png": png(1)[:60], "00.cls": b"0"})
    source = open_data(f"shards:{shard_folder}").test
    with pytest.raises(DataError, match=r"^reading \S+a-test-0\.tar, 00: this is no whole image"):
        source.read(0)


def test_only_the_image_is_read(shard_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_data(f"shards:{shard_folder}").train
    counted, pread = [], os.pread

    def counting(handle: int, count: int, offset: int) -> bytes:
        counted.append(count)
        return pread(handle, count, offset)

    monkeypatch.setattr(os, "pread", counting)
    source.read(8)
    assert counted == [len(png(seed=102, size=8))]


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="open files are counted on Linux")
def test_only_so_many_shards_stay_open(shard_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "_MOST_OPEN", 1)
    before = len(os.listdir("/proc/self/fd"))
    source = Shards([shard_folder / f"a-train-{number}.tar" for number in range(2)], 3)
    assert [source.read(index)[1] for index in (0, 6, 1, 7, 2, 8)] == [0, 0, 1, 1, 2, 2]
    assert len(os.listdir("/proc/self/fd")) - before == len(source._files) == 1


def test_a_shard_that_goes_away_is_named(shard_folder: Path) -> None:
    source = open_data(f"shards:{shard_folder}").test
    source.read(2)
    (shard_folder / "a-test-0.tar").rename(shard_folder / "b.tar")
    copy = pickle.loads(pickle.dumps(source))
    with pytest.raises(DataError, match=r"^reading \S+a-test-0\.tar, 00002: the shard cannot be read"):
        copy.read(2)
    os.truncate(shard_folder / "b.tar", 700)
    with pytest.raises(DataError, match=r"^reading \S+a-test-0\.tar, 00002: the shard ends in the middle"):
        source.read(2)


@pytest.mark.data
def test_cifar10_is_whole(data_folder: Path) -> None:
    data = open_data(f"shards:{data_folder / 'cifar10'}")
    assert (len(data.train), len(data.test), len(data.classes)) == (50_000, 10_000, 10)
    assert np.bincount(data.test.labels).tolist() == [1_000] * 10
