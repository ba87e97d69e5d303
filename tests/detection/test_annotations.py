import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.conftest import box

from senet.detection.annotations import Split
from senet.errors import DataError


def split(folder: Path, **changes: Any) -> Split:
    """The training images of the folder, with other annotations."""
    path = folder / "annotations" / "instances_train2017.json"
    told = json.loads(path.read_text())
    path.write_text(json.dumps(told | changes))
    return Split(path, folder / "train2017")


def test_images_and_their_boxes(coco_folder: Path) -> None:
    found = split(coco_folder)
    assert found.categories == {3: "red", 7: "blue"}
    assert not found.faults
    assert not found.missing(np.arange(6))
    for index in range(6):
        (image, boxes, labels), number = found.images.read(index)
        assert number == index
        assert labels.tolist() == [0, 1]
        for (left, top, right, bottom), channel in zip(boxes.astype(int), (0, 2), strict=True):
            inside = np.asarray(image)[top:bottom, left:right]
            assert inside.shape == (30, 20, 3)
            assert (inside[..., channel] == 255).all(), "the box is where the colour is"


WRONG = {
    "its image is not there": box(90, 99, 3, 1, 1, 5, 5) | {"fault": "there is no image 99"},
    "its category is not there": box(90, 10, 4, 1, 1, 5, 5) | {"fault": "there is no category 4"},
    "no width": box(90, 10, 3, 1, 1, 0, 5) | {"fault": "has no area within the image"},
    "a negative height": box(90, 10, 3, 1, 9, 5, -5) | {"fault": "has no area within the image"},
    "thinner than rounding": box(90, 10, 3, 40.1, 1, 1e-7, 5) | {"fault": "has no area within the image"},
    "outside": box(90, 10, 3, 64, 1, 5, 5) | {"fault": "has no area within the image"},
    "not a number": box(90, 10, 3, float("nan"), 1, 5, 5) | {"fault": "its bbox is [nan"},
    "huge": box(90, 10, 3, 1, 1, 5, 5) | {"bbox": [1, 1, 10**400, 5], "fault": "its bbox is [1, 1, 1000"},
    "infinite": box(90, 10, 3, 1, 1, float("inf"), 5) | {"fault": "its bbox is [1.0, 1.0, inf"},
    "three numbers": box(90, 10, 3, 1, 1, 5, 5) | {"bbox": [1, 2, 3], "fault": "its bbox is [1, 2, 3]"},
    "text for a number": box(90, 10, 3, 1, 1, 5, 5) | {"image_id": "10", "fault": "its image_id is '10'"},
    "text for a flag": box(90, 10, 3, 1, 1, 5, 5)
    | {"iscrowd": "0", "fault": "its iscrowd is '0', and not 0"},
    "an id again": box(1, 10, 3, 1, 1, 5, 5) | {"fault": "annotation 1: there is one with this id before it"},
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_a_broken_annotation_is_named_and_left_out(wrong: dict[str, Any], coco_folder: Path) -> None:
    right = json.loads((coco_folder / "annotations/instances_train2017.json").read_text())["annotations"]
    told = {key: value for key, value in wrong.items() if key != "fault"}
    found = split(coco_folder, annotations=[*right, told])
    (fault,) = found.faults
    assert fault.startswith("instances_train2017.json: annotation ")
    assert wrong["fault"] in fault
    assert len(found.images.boxes.labels) == len(right)


def test_broken_images_and_categories(coco_folder: Path) -> None:
    path = coco_folder / "annotations" / "instances_train2017.json"
    images = json.loads(path.read_text())["images"]
    escaping = {"id": 70, "file_name": "../../secret.png", "width": 64, "height": 48}
    found = split(
        coco_folder,
        images=[
            *images,
            escaping,
            {"id": 71, "file_name": "a.png", "width": 0, "height": 48},
            5,
            {"id": 72, "file_name": "\ud800.png", "width": 64, "height": 48},
            {"id": 73, "file_name": "a" * 300, "width": 64, "height": 48},
        ],
        categories=[{"id": 3, "name": "red"}, {"id": 7, "name": "blue"}, {"id": None, "name": "no"}],
    )
    assert len(found.images) == 7
    assert len(found.missing(np.arange(7))) == 1, "no file has a name that long"
    assert [fault.split(": ", 1)[1] for fault in found.faults] == [
        "category number 2: its id is None",
        "image 70: its file_name is '../../secret.png'",
        "image 71: its width is 0",
        "image number 8: its id is 5",
        "image 72: its file_name is '\\ud800.png'",
    ]


def test_missing_files_and_images_of_another_size(coco_folder: Path) -> None:
    (coco_folder / "train2017" / "2.png").unlink()
    Image.new("RGB", (48, 64)).save(coco_folder / "train2017" / "3.png")
    found = split(coco_folder)
    assert found.missing(np.arange(6)) == [str(coco_folder / "train2017" / "2.png")]
    assert found.missing(np.arange(2)) == []
    assert found.with_boxes.tolist() == [0, 1, 3, 4, 5]
    with pytest.raises(DataError, match=r"2\.png: the file cannot be read"):
        found.images.read(2)
    with pytest.raises(DataError, match=r"3.png: it is 48x64\. Allowed: 64x48, as its annotations say"):
        found.images.read(3)


def test_crowds_are_not_learnt_and_stay_for_the_metric(coco_folder: Path) -> None:
    path = coco_folder / "annotations" / "instances_train2017.json"
    annotations = json.loads(path.read_text())["annotations"]
    for each in annotations[:3]:
        each["iscrowd"] = 1
    found = split(coco_folder, annotations=annotations)
    assert found.images.boxes.crowd.sum() == 3
    assert found.with_boxes.tolist() == [1, 2, 3, 4, 5], "the first has nothing but a crowd"
    assert found.images.read(0)[0].labels.tolist() == []
    assert found.images.read(1)[0].labels.tolist() == [1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[]", "it has no list 'images'"),
        ("{", "it cannot be read"),
        ('{"images": [], "annotations": []}', "it has no list 'categories'"),
        ('{"images": [], "annotations": [], "categories": []}', "it names no category"),
    ],
)
def test_files_that_are_not_in_the_format(text: str, words: str, coco_folder: Path) -> None:
    path = coco_folder / "annotations" / "instances_train2017.json"
    path.write_text(text)
    with pytest.raises(DataError, match=f"{words}.*Allowed: annotations in COCO's format"):
        Split(path, coco_folder / "train2017")


def test_parts_of_the_images_keep_their_boxes(coco_folder: Path) -> None:
    images = split(coco_folder).images
    part = images.within(np.array([4, 1]))
    assert len(part) == 2
    for index, whole in enumerate((4, 1)):
        assert part.ids[index] == images.ids[whole]
        assert part.names[index] == images.names[whole]
        np.testing.assert_array_equal(part.read(index)[0].boxes, images.read(whole)[0].boxes)
