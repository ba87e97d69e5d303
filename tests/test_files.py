import os
import stat
from pathlib import Path

import pytest

from senet.files import cache_folders, replacing, write_text


def test_a_file_appears_whole(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "first")
    write_text(tmp_path / "a.txt", "second σ")
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "second σ"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_failure_keeps_the_old_file_and_leaves_no_other(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def write_half() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_half()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_until_it_is_whole_the_old_file_stands(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with path.open() as reader:
        with replacing(path) as temporary:
            temporary.write_text("new")
            assert temporary.parent == tmp_path
            assert path.read_text() == "old"
        assert path.read_text() == "new"
        assert reader.read() == "old", "who reads the old file is not disturbed"


def test_permissions_are_those_of_an_ordinary_file(tmp_path: Path) -> None:
    write_text(tmp_path / "ours", "x")
    (tmp_path / "ordinary").write_text("x")
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("ours", "ordinary")}
    assert len(modes) == 1


def test_the_cache_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SENET_CACHE", str(tmp_path / "cache"))
    assert list(cache_folders()) == [tmp_path / "cache"]
    assert not (tmp_path / "cache").exists()
    monkeypatch.delenv("SENET_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert list(cache_folders()) == [Path("/x/senet")]
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert list(cache_folders()) == [Path("/home/someone/.cache/senet")]
