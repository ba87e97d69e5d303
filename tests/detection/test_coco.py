import json
import shutil
from pathlib import Path

import pytest

from senet.detection.coco import is_coco, open_coco
from senet.errors import DataError, OptionError


def test_both_splits(coco_folder: Path) -> None:
    data = open_coco(f"coco:{coco_folder}")
    assert (len(data.train), len(data.test)) == (6, 3)
    assert data.classes == ("red", "blue")
    assert data.categories == (3, 7)
    assert data.description.startswith("6 images of train2017 to train on, 3 of val2017 to test on; 2 categ")
    assert is_coco(data.name)
    assert not is_coco("folder:coco")


def test_images_may_lie_under_images_and_be_tested_on_themselves(coco_folder: Path) -> None:
    (coco_folder / "images").mkdir()
    shutil.move(coco_folder / "train2017", coco_folder / "images" / "train2017")
    (coco_folder / "annotations" / "instances_val2017.json").unlink()
    data = open_coco(f"coco:{coco_folder}")
    assert (len(data.train), len(data.test)) == (6, 6)
    assert "6 to test on: the same, as there are no others" in data.description


def test_the_first_images(coco_folder: Path) -> None:
    data = open_coco(f"coco:{coco_folder},images=2")
    assert (len(data.train), len(data.test)) == (2, 2)


def test_of_the_first_images_alone_the_files_have_to_be_there(coco_folder: Path) -> None:
    (coco_folder / "train2017" / "4.png").unlink()
    (coco_folder / "train2017" / "0.png").unlink()
    first = str(coco_folder / "train2017" / "0.png")
    assert open_coco(f"coco:{coco_folder},images=2").missing == (first,)
    assert len(open_coco(f"coco:{coco_folder}").missing) == 2


def test_images_that_are_not_there_are_not_said_to_be_without_boxes(coco_folder: Path) -> None:
    (coco_folder / "train2017" / "4.png").unlink()
    assert " 0 images without boxes are left out" in open_coco(f"coco:{coco_folder}").description
    for path in (coco_folder / "val2017").iterdir():
        path.unlink()
    with pytest.raises(
        DataError, match=r"left of instances_val2017.json: 3 of its 3 images are not there, such as .*0\.png"
    ):
        open_coco(f"coco:{coco_folder}")


def test_other_years(coco_folder: Path) -> None:
    with pytest.raises(DataError, match=r"there is no .*instances_train2014.json"):
        open_coco(f"coco:{coco_folder},year=2014")
    for split in ("train", "val"):
        shutil.copytree(coco_folder / f"{split}2017", coco_folder / f"{split}2014")
        annotations = coco_folder / "annotations"
        shutil.copy(annotations / f"instances_{split}2017.json", annotations / f"instances_{split}2014.json")
    assert "train2014" in open_coco(f"coco:{coco_folder},year=2014").description
    assert "train2017" in open_coco(f"coco:{coco_folder}").description


def test_images_without_boxes_are_tested_and_not_trained_on(coco_folder: Path) -> None:
    for split in ("train", "val"):
        path = coco_folder / "annotations" / f"instances_{split}2017.json"
        told = json.loads(path.read_text())
        told["annotations"] = [each for each in told["annotations"] if each["image_id"] != 11]
        path.write_text(json.dumps(told))
    data = open_coco(f"coco:{coco_folder}")
    assert (len(data.train), len(data.test)) == (5, 3)
    assert data.description.endswith("1 images without boxes are left out of training")


@pytest.mark.parametrize("words", [",images=0", ",images=many", ",pictures=3", ",year=", ","])
def test_words_that_are_not_of_the_form(words: str, coco_folder: Path) -> None:
    with pytest.raises(OptionError, match=r"Allowed: coco:DIR\[,year=2014\]\[,images=N\]"):
        open_coco(f"coco:{coco_folder}{words}")


def test_nothing_to_open(coco_folder: Path) -> None:
    with pytest.raises(OptionError, match="DIR is missing"):
        open_coco("coco:")
    with pytest.raises(DataError, match="there is no folder"):
        open_coco(f"coco:{coco_folder}s")
    path = coco_folder / "annotations" / "instances_val2017.json"
    told = json.loads(path.read_text())
    path.write_text(json.dumps(told | {"categories": told["categories"][:1]}))
    with pytest.raises(DataError, match="the two files name other categories"):
        open_coco(f"coco:{coco_folder}")
    path.write_text(json.dumps(told | {"annotations": []}))
    with pytest.raises(
        DataError, match=r"no box is left of instances_train2017.json: '?instances|no box is left of"
    ):
        open_coco(f"coco:{coco_folder}")
    shutil.rmtree(coco_folder / "val2017")
    with pytest.raises(DataError, match=r"there is no folder .*val2017"):
        open_coco(f"coco:{coco_folder}")
