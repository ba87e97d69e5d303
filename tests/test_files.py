import os
import stat
from pathlib import Path

import pytest

from senet.errors import DataError
from senet.files import cache_folders, filling, replacing, require_writable, write_text


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


def test_a_folder_is_filled_at_once_and_the_last_file_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "other").write_text("stays")
    moved: list[str] = []
    replace = Path.replace

    def noted(self: Path, target: Path) -> Path:
        moved.append(self.name)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", noted)
    for folder in (tmp_path / "a", tmp_path / "new" / "b"):
        with filling(folder, last="all") as staged:
            for name in ("z", "all", "b"):
                (staged / name).write_text(name)
            assert not (folder / "all").exists()
        assert {path.name for path in folder.iterdir()} - {"other"} == {"z", "all", "b"}
        assert moved.pop() == "all"
        moved.clear()
    assert (tmp_path / "a" / "other").read_text() == "stays"


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_of_a_folder_that_is_not_filled_nothing_stays(error: type[BaseException], tmp_path: Path) -> None:
    def write_half() -> None:
        with filling(tmp_path / "a" / "b", last="x") as staged:
            (staged / "x").write_text("half")
            raise error

    with pytest.raises(error):
        write_half()
    assert not os.listdir(tmp_path)


def test_what_cannot_be_written_is_known_before(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    for name in ("file", "gone"):
        with pytest.raises(DataError, match="--out x: it cannot be written"):
            require_writable("--out x", tmp_path / name / "a")
        with pytest.raises(DataError, match="cannot be written"), filling(tmp_path / name, last=""):
            pass
    require_writable("--out x", tmp_path / "new" / "a")
    with pytest.raises(DataError, match="cannot be written"):
        require_writable("--out x", "/proc/nothing")
    assert not (tmp_path / "new").exists()
