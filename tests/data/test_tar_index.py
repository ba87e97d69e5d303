import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from tests.conftest import write_shard

from senet.data import tar_index as module
from senet.data.tar_index import TarIndex, tar_index
from senet.errors import DataError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SENET_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A shard of as many samples as are worth keeping an index of; they hold no images."""
    path = tmp_path / "large.tar"
    write_shard(path, {f"{n:03}.{e}": c for n in range(100) for e, c in (("jpg", b"x" * n), ("cls", b"7"))})
    return path


def rows(index: TarIndex) -> list[tuple[str, int, int, int]]:
    columns = (index.offsets.tolist(), index.sizes.tolist(), index.labels.tolist())
    return list(zip([index.names[n] for n in range(len(index.names))], *columns, strict=True))


def no_scan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_scanned", lambda *_: pytest.fail("indexed again"))


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize(
    ("stem", "time", "plain"),
    [
        ("00000", 0, True),
        ("folder/é ü/00000", 1_700_000_000, True),
        ("00000", 1_700_000_000.25, True),
        (f"{'folder/' * 20}00000", 0, False),
        (f"{'long' * 40}", 0, False),
    ],
)
def test_every_form_is_read_as_tarfile_reads_it(
    form: int, stem: str, time: float, plain: bool, tmp_path: Path
) -> None:
    path, image = tmp_path / "a.tar", b"image" * 300
    with tarfile.open(path, "w", format=form) as archive:
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        for name, content in ((f"{stem}.PNG", image), (f"{stem}.cls", b"12\n"), (f"{stem}.json", b"")):
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(content), time
            try:
                archive.addfile(member, io.BytesIO(content))
            except ValueError:
                pytest.skip("this form has no such names")
    (row,) = rows(tar_index(path, 13))
    assert (row[0], *row[2:]) == (stem, len(image), 12)
    assert path.read_bytes()[row[1] :][: row[2]] == image
    handle = os.open(path, os.O_RDONLY)
    try:
        found = module._any_members(path, handle)
        if plain and not (stem.startswith("folder") and form == tarfile.PAX_FORMAT):
            assert list(module._plain_members(handle)) == found
        assert module._members(path, handle) == found
    finally:
        os.close(handle)


def test_folders_and_links_are_no_samples(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        for name, kind in (("a.b", tarfile.DIRTYPE), ("1.png", tarfile.SYMTYPE), ("2.png", tarfile.LNKTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "0.png"
            archive.addfile(member)
        for name, content in (("0.png", b"image"), ("0.cls", b"0")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    assert [row[0] for row in rows(tar_index(path, 1))] == ["0"]


@pytest.mark.parametrize("place", [0, 100, 124, 148, 156, 257, 600, 1536, 1690, 2204])
def test_a_damaged_header_is_never_guessed(place: int, tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    write_shard(path, {"0.png": b"image", "0.cls": b"0", "1.png": b"image", "1.cls": b"0"})
    data = bytearray(path.read_bytes())
    whole = rows(tar_index(path, 1))
    data[place] ^= 0x41
    path.write_bytes(data)
    if place in (600, 1690):
        assert rows(tar_index(path, 1)) == whole, "an image, and what fills a block"
    else:
        with pytest.raises(DataError, match=f"^reading {path}"):
            tar_index(path, 1)


def test_no_image_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, size = tmp_path / "huge.tar", 6 * 1024**3
    # Three images of 6 GiB, of which the disk holds nothing.
    with path.open("wb") as file:
        for number in range(3):
            for name, length in ((f"{number}.png", size), (f"{number}.cls", 1)):
                member = tarfile.TarInfo(name)
                member.size = length
                file.write(member.tobuf(tarfile.USTAR_FORMAT))
                if length == 1:
                    file.write(b"0".ljust(512, b"\0"))
                else:
                    file.seek(size, os.SEEK_CUR)
        file.write(bytes(1024))
    counted, pread = [0], os.pread

    def counting(handle: int, count: int, offset: int) -> bytes:
        data = pread(handle, count, offset)
        counted[0] += len(data)
        return data

    monkeypatch.setattr(os, "pread", counting)
    index = tar_index(path, 1)
    assert index.sizes.tolist() == [size] * 3
    assert path.stat().st_size > 3 * size
    assert counted[0] == 7 * 512 + 3


def test_the_index_is_kept(large: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = rows(tar_index(large, 8))
    assert len(first) == 100
    (kept,) = (cache / "shards").iterdir()
    assert kept.stat().st_size < 8_000
    no_scan(monkeypatch)
    assert rows(tar_index(large, 8)) == first
    monkeypatch.chdir(large.parent)
    assert rows(tar_index(Path(large.name), 8)) == first
    with pytest.raises(DataError, match=r"large\.tar, 000\.cls: the class is '7'. Allowed: 0 to 6"):
        tar_index(large, 7)


def test_another_shard_of_the_same_name_is_indexed_again(large: Path, cache: Path) -> None:
    first = rows(tar_index(large, 8))
    content = large.read_bytes().replace(b"7" + bytes(511), b"3" + bytes(511))
    state = large.stat()
    large.write_bytes(content)
    os.utime(large, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    second = rows(tar_index(large, 8))
    assert {row[3] for row in first} == {7}
    assert {row[3] for row in second} == {3}
    write_shard(large, {"0.png": b"", "0.cls": b"1"})
    os.utime(large, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    assert len(rows(tar_index(large, 8))) == 1
    assert len(list((cache / "shards").iterdir())) == 1


def test_whatever_is_wrong_with_a_kept_index_it_is_made_again(large: Path, cache: Path) -> None:
    whole = rows(tar_index(large, 8))
    (kept,) = (cache / "shards").iterdir()
    data = kept.read_bytes()
    rng = np.random.default_rng(0)
    for place in rng.integers(len(data), size=60).tolist():
        kept.write_bytes(data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :])
        assert rows(tar_index(large, 8)) == whole, place
        kept.write_bytes(data[:place])
        assert rows(tar_index(large, 8)) == whole
    for wrong in (b"", b"junk", np.array([1], dtype=object).dumps()):
        kept.write_bytes(wrong)
        assert rows(tar_index(large, 8)) == whole
        assert kept.read_bytes() != wrong, "and kept again"
    kept.unlink()
    kept.mkdir()
    assert rows(tar_index(large, 8)) == whole


def test_a_cache_that_cannot_be_written_stops_nothing(
    large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SENET_CACHE", str(tmp_path / "file" / "cache"))
    assert len(rows(tar_index(large, 8))) == 100
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "large.tar"]


def test_small_shards_are_not_kept(tmp_path: Path, cache: Path) -> None:
    write_shard(tmp_path / "a.tar", {"0.png": b"", "0.cls": b"1"})
    assert len(rows(tar_index(tmp_path / "a.tar", 2))) == 1
    assert not cache.exists()


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.tar: the file cannot be read"):
        tar_index(tmp_path / "a.tar", 2)
