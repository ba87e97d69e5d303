import shutil
from pathlib import Path

import pytest
from tests.conftest import png

from senet.data import open_data
from senet.errors import DataError


def test_classes_are_folders(image_folder: Path) -> None:
    data = open_data(f"folder:{image_folder}")
    assert data.classes == ("cat", "dog")
    assert (len(data.train), len(data.test), data.channels) == (6, 4, 3)
    image, label = data.test.read(3)
    assert (image.size, image.mode, label) == ((40, 40), "RGB", 1)


def test_test_may_stand_for_val(image_folder: Path) -> None:
    (image_folder / "val").rename(image_folder / "test")
    assert len(open_data(f"folder:{image_folder}").test) == 4


def test_other_files_are_left_out(image_folder: Path) -> None:
    (image_folder / "train" / "cat" / "notes.txt").write_text("no image")
    assert len(open_data(f"folder:{image_folder}").train) == 6


def test_a_tools_folder_is_no_class_and_a_class_has_images(image_folder: Path) -> None:
    (image_folder / "train" / ".ipynb_checkpoints").mkdir()
    assert open_data(f"folder:{image_folder}").classes == ("cat", "dog")
    (image_folder / "train" / "bird").mkdir()
    with pytest.raises(DataError, match="the class bird has no images in train/"):
        open_data(f"folder:{image_folder}")


def test_what_is_wrong_is_said_at_once(image_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no train/"):
        open_data(f"folder:{tmp_path / 'nothing'}")
    (image_folder / "val" / "bird").mkdir()
    (image_folder / "val" / "bird" / "0.png").write_bytes(png(0))
    with pytest.raises(DataError, match="val/ has classes that train/ lacks: bird"):
        open_data(f"folder:{image_folder}")
    shutil.rmtree(image_folder / "val")
    (image_folder / "val" / "cat").mkdir(parents=True)
    with pytest.raises(DataError, match="val holds no images"):
        open_data(f"folder:{image_folder}")


def test_a_broken_image_is_named(image_folder: Path) -> None:
    (image_folder / "train" / "cat" / "1.png").write_bytes(png(0)[:50])
    source = open_data(f"folder:{image_folder}").train
    with pytest.raises(DataError, match=r"cat/1\.png: this is no whole image"):
        source.read(1)
    (image_folder / "train" / "cat" / "2.png").unlink()
    with pytest.raises(DataError, match=r"cat/2\.png: the file cannot be read"):
        source.read(2)
