import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.conftest import png

from senet.data import open_data
from senet.data.folder import ImageFolder
from senet.data.source import IMAGE_ENDINGS
from senet.errors import DataError


def test_classes_are_folders(image_folder: Path) -> None:
    data = open_data(f"folder:{image_folder}")
    assert data.classes == ("cat", "dog")
    assert (len(data.train), len(data.test), data.channels) == (6, 4, 3)
    assert data.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    image, label = data.test.read(3)
    assert (image.size, image.mode, label) == ((40, 40), "RGB", 1)


def test_test_may_stand_for_val(image_folder: Path) -> None:
    (image_folder / "val").rename(image_folder / "test")
    assert len(open_data(f"folder:{image_folder}").test) == 4


def test_a_class_may_be_missing_in_val(image_folder: Path) -> None:
    shutil.rmtree(image_folder / "val" / "cat")
    assert open_data(f"folder:{image_folder}").test.labels.tolist() == [1, 1]


def test_other_files_are_left_out(image_folder: Path) -> None:
    (image_folder / "train" / "cat" / "notes.txt").write_text("no image")
    assert len(open_data(f"folder:{image_folder}").train) == 6


def test_the_order_is_that_of_the_paths(tmp_path: Path) -> None:
    # It decides the order of a run.
    names = [
        *(
            "b.png",
            "B.PNG",
            "a b.jpg",
            "a-b.jpg",
            "a/z.webp",
            "a/b/1.png",
            "a.b/1.png",
            "a.png",
            "é.bmp",
            "10.ppm",
        ),
        *(
            "9.png",
            "._b.png",
            ".png",
            ".c/1.png",
            "d.png/1.png",
            "f.txt",
            "g",
            "😀.png",
            "\uffff.png",
            "\udcff.png",
        ),
    ]
    for place in ("x y", "x"):
        for name in names:
            (tmp_path / "in" / place / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "in" / place / name).touch()
        (tmp_path / "in" / place / "link.png").symlink_to(tmp_path / "in" / place / "a.png")
        (tmp_path / "in" / place / "gone.png").symlink_to(tmp_path / "nothing")
        (tmp_path / "in" / place / "around").symlink_to(tmp_path / "in" / "x", target_is_directory=True)
    (tmp_path / "in" / "linked").symlink_to(tmp_path / "in" / "x", target_is_directory=True)
    classes = ["linked", "x", "x y"]
    expected = [
        str(path.relative_to(tmp_path / "in"))
        for name in classes
        for path in sorted((tmp_path / "in" / name).rglob("*"))
        if path.suffix.lower() in IMAGE_ENDINGS and path.is_file() and "/." not in str(path)
    ]
    source = ImageFolder(tmp_path / "in", classes)
    assert [source.names[index] for index in range(len(source))] == expected
    assert [classes[label] for label in source.labels] == [name.split("/")[0] for name in expected]
    assert len(expected) == 3 * 16


def test_little_is_held_in_memory_and_no_image_is_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for index in range(500):
            (tmp_path / name / f"{name}_{index:08}.jpeg").touch()
    asked: list[str] = []
    stat = os.stat

    def noted(path: str, **how: Any) -> os.stat_result:
        asked.append(path)
        return stat(path, **how)

    with monkeypatch.context() as patched:
        patched.setattr(os, "stat", noted)
        source = ImageFolder(tmp_path, ["cat", "dog"])
    assert len(asked) <= 2, "the folders; no file is asked what it is"
    assert np.bincount(source.labels).tolist() == [500, 500]
    assert len(pickle.dumps(source)) / len(source) < len("cat/cat_00000000.jpeg") + 17


def test_what_is_no_image_by_its_name_is_left_out_and_said(image_folder: Path) -> None:
    before = open_data(f"folder:{image_folder}")
    assert before.description.endswith("2 classes")
    cats = image_folder / "train" / "cat"
    (cats / ".hidden").mkdir()
    for name in ("._0.png", ".hidden/0.png", ".DS_Store", "a.GIF", "b.gif", "c.tif", "d.tif", "README"):
        (cats / name).write_bytes(png(0))
    data = open_data(f"folder:{image_folder}")
    assert data.description.endswith("2 classes; left out: 2 .gif, 2 .tif, 1 without an ending")
    assert len(data.train) == len(before.train)


def test_a_tools_folder_is_no_class_and_a_class_has_images(image_folder: Path) -> None:
    (image_folder / "train" / ".ipynb_checkpoints").mkdir()
    assert open_data(f"folder:{image_folder}").classes == ("cat", "dog")
    (image_folder / "train" / "bird").mkdir()
    with pytest.raises(DataError, match="the class bird has no images in train/"):
        open_data(f"folder:{image_folder}")


@pytest.mark.parametrize("within", ["writer/0.png", "a.png", "b/0.png"])
def test_a_letter_may_be_a_class(tmp_path: Path, within: str) -> None:
    """Whose images may lie in folders; initials of folders are refused (test_places365.py)."""
    for split in ("train", "val"):
        for name, path in (("a", within), ("b", "b/0.png")):
            (tmp_path / split / name / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / split / name / path).write_bytes(png(0))
    data = open_data(f"folder:{tmp_path}")
    assert (data.classes, len(data.train)) == (("a", "b"), 2)


def test_what_is_wrong_is_said_at_once(image_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no train/ with val/ in it"):
        open_data(f"folder:{tmp_path}")
    (image_folder / "val" / "bird").mkdir()
    (image_folder / "val" / "bird" / "0.png").write_bytes(png(0))
    with pytest.raises(DataError, match="val/ has classes that train/ lacks: bird"):
        open_data(f"folder:{image_folder}")
    shutil.rmtree(image_folder / "val")
    (image_folder / "val" / "cat").mkdir(parents=True)
    with pytest.raises(DataError, match="val holds no images"):
        open_data(f"folder:{image_folder}")
    shutil.rmtree(image_folder / "train")
    (image_folder / "train").mkdir()
    with pytest.raises(DataError, match="train holds no class folders"):
        open_data(f"folder:{image_folder}")


def test_a_folder_that_cannot_be_listed(image_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith("train/cat"):
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match=r"a folder cannot be listed \(.*Permission denied.*train/cat"):
        open_data(f"folder:{image_folder}")


def test_a_broken_image_is_named(image_folder: Path) -> None:
    (image_folder / "train" / "cat" / "1.png").write_bytes(png(0)[:50])
    source = open_data(f"folder:{image_folder}").train
    with pytest.raises(DataError, match=r"^reading \S+cat/1\.png: this is no whole image"):
        source.read(1)
    (image_folder / "train" / "cat" / "2.png").unlink()
    with pytest.raises(DataError, match=r"^reading \S+cat/2\.png: the file cannot be read"):
        source.read(2)
