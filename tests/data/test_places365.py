import io
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision import datasets

from senet.data import open_data, places365
from senet.data.places365 import open_places365
from senet.data.source import Names
from senet.errors import DataError

# Some categories with their real names, and how many images of them to train on.
SCENES = {"a/airfield": 12, "a/apartment_building/outdoor": 8, "z/zen_garden": 4}


def lay_out(root: Path, picture: Callable[[int, int], bytes], *, size: str = "256") -> None:
    """Places365-Standard as its archives unpack, with its lists; an image for each class and number.

    Three images to test on, in an order that is not that of the classes, have the numbers from 100.
    """
    train, val = root / f"data_{size}", root / f"val_{size}"
    names: list[str] = []
    for label, (scene, count) in enumerate(SCENES.items()):
        (train / scene).mkdir(parents=True)
        for number in range(count):
            names.append(f"/{scene}/{number + 1:08}.jpg {label}\n")
            (train / scene / f"{number + 1:08}.jpg").write_bytes(picture(label, number))
    val.mkdir()
    tested = {f"Places365_val_{number + 1:08}.jpg": label for number, label in enumerate((2, 0, 1))}
    for number, (name, label) in enumerate(tested.items()):
        (val / name).write_bytes(picture(label, 100 + number))
    (root / "categories_places365.txt").write_text("".join(f"/{c} {k}\n" for k, c in enumerate(SCENES)))
    (root / "places365_train_standard.txt").write_text("".join(names))
    (root / "places365_val.txt").write_text("".join(f"{name} {label}\n" for name, label in tested.items()))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    lay_out(tmp_path / "places", _dot)
    return tmp_path / "places"


def _dot(label: int, number: int) -> bytes:
    """An image of one pixel, which tells what it is."""
    file = io.BytesIO()
    Image.new("RGB", (1, 1), (label, number, 0)).save(file, "PNG")
    return file.getvalue()


def _lists(root: Path) -> Path:
    return root / "places365_train_standard.txt"


def test_the_lists_say_what_there_is(root: Path) -> None:
    data = open_data(f"folder:{root}")
    assert data.classes == ("a/airfield", "a/apartment_building/outdoor", "z/zen_garden")
    assert data.channels == 3
    assert data.train.labels.dtype == data.test.labels.dtype == np.int64
    assert data.train.labels.tolist() == [0] * 12 + [1] * 8 + [2] * 4
    assert data.test.labels.tolist() == [2, 0, 1]
    for index, (label, number) in ((0, (0, 0)), (13, (1, 1)), (23, (2, 3))):
        image, found = data.train.read(index)
        assert (image.mode, image.getpixel((0, 0)), found) == ("RGB", (label, number, 0), label)
    assert [data.test.read(index)[0].getpixel((0, 0)) for index in range(3)] == [
        (2, 100, 0),
        (0, 101, 0),
        (1, 102, 0),
    ]
    assert data.description == (
        "Places365: 24 images to train on (data_256/, by places365_train_standard.txt), 3 to test on "
        "(val_256/, by places365_val.txt), 3 classes"
    )


def test_it_is_what_torchvision_reads(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.Places365, "_check_integrity", lambda *_: True)
    (root / "data_256").rename(root / "data_256_standard")
    data = open_data(f"folder:{root}")
    for split, source in (("train-standard", data.train), ("val", data.test)):
        theirs = datasets.Places365(root, split, small=True)
        assert [f"/{name}" for name in data.classes] == theirs.classes
        assert len(theirs) == len(source)
        for index in range(len(source)):
            (image, label), (their_image, their_label) = source.read(index), theirs[index]
            assert (np.asarray(image).tolist(), label) == (np.asarray(their_image).tolist(), their_label)


def test_without_a_train_list_the_folders_say_the_same(root: Path) -> None:
    listed = open_data(f"folder:{root}")
    _lists(root).unlink()
    data = open_data(f"folder:{root}")
    assert "(data_256/, by its folders)" in data.description
    assert data.classes == listed.classes
    assert data.train.labels.tolist() == listed.train.labels.tolist()
    assert [data.train.read(n)[0].tobytes() for n in range(24)] == [
        listed.train.read(n)[0].tobytes() for n in range(24)
    ]


def test_the_numbers_of_the_categories_are_those_of_the_file(root: Path) -> None:
    """In whatever order its lines are, and as an editor of Windows writes them."""
    lines = ["/z/zen_garden 0", "/a/airfield 2", "/a/apartment_building/outdoor 1"]
    text = "\r\n".join([lines[0], "", *lines[1:]])
    (root / "categories_places365.txt").write_text(text, encoding="utf-8-sig")
    _lists(root).unlink()
    data = open_data(f"folder:{root}")
    assert data.classes == ("z/zen_garden", "a/apartment_building/outdoor", "a/airfield")
    assert np.bincount(data.train.labels).tolist() == [4, 8, 12]


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        ("data_256_standard data_large_standard val_256 val_large", "data_256_standard standard val_256"),
        (
            "data_large_standard data_256_challenge val_256 val_large",
            "data_large_standard standard val_large",
        ),
        ("data_large_challenge data_256 val_256", "data_large_challenge challenge val_256"),
        ("data_256_challenge train val_large val", "data_256_challenge challenge val_large"),
    ],
)
def test_which_of_several_folders(root: Path, folders: str, expected: str) -> None:
    """Standard before challenge, 256 before large; the list of the same name, and val of the same size."""
    standard = _lists(root).read_text()
    (root / "places365_train_challenge.txt").write_text(standard)
    for name, found in (("data_256", "train"), ("val_256", "val")):
        (root / name).rename(root / f"old_{found}")
    for name in folders.split():
        (root / name).symlink_to(root / f"old_{'val' if name.startswith('val') else 'train'}")
    train, variant, val = expected.split()
    description = open_data(f"folder:{root}").description
    assert f"({train}/, by places365_train_{variant}.txt)" in description
    assert f"({val}/, by places365_val.txt)" in description


def test_a_list_of_another_variant_is_not_that_of_the_folder(root: Path) -> None:
    (root / "data_256").rename(root / "data_256_challenge")
    assert "(data_256_challenge/, by its folders)" in open_data(f"folder:{root}").description


def test_two_lists_for_one_folder(root: Path) -> None:
    _lists(root).with_name("places365_train_challenge.txt").write_text("/a/airfield/00000001.jpg 0\n")
    with pytest.raises(DataError, match=r"may both be the list of data_256/.* data_256_standard or data_256"):
        open_data(f"folder:{root}")
    (root / "data_256").rename(root / "train")
    with pytest.raises(DataError, match=r"may both be the list of train/.* data_256_standard or data_256"):
        open_data(f"folder:{root}")


def test_single_images_that_are_missing_are_named_when_they_are_read(root: Path) -> None:
    (root / "data_256/a/airfield/00000002.jpg").unlink()
    (root / "val_256/Places365_val_00000003.jpg").write_bytes(b"broken")
    data = open_data(f"folder:{root}")
    with pytest.raises(DataError, match=r"^reading \S+/data_256/a/airfield/00000002\.jpg: the file cannot"):
        data.train.read(1)
    with pytest.raises(
        DataError, match=r"^reading \S+/val_256/Places365_val_00000003\.jpg: this is no whole"
    ):
        data.test.read(2)


def test_a_list_of_other_images_is_noticed_at_once(root: Path) -> None:
    (root / "data_256").rename(root / "unpacked")
    (root / "data_256").mkdir()
    (root / "unpacked").rename(root / "data_256" / "data_256")
    with pytest.raises(DataError, match=r"train_standard\.txt: none .* not a/airfield/00000001\.jpg"):
        open_data(f"folder:{root}")


@pytest.mark.parametrize(
    ("file", "line", "words"),
    [
        ("train_standard", "/a/airfield/00000013.jpg 3", r"there is '/a/air.*\.jpg 3'.* number of 0 to 2"),
        ("train_standard", "/a/airfield/00000013.jpg", r"there is '/a/airfield/00000013\.jpg'"),
        ("train_standard", "/a/airfield/00000013.jpg -1", r"there is '/a/airfield/00000013\.jpg -1'"),
        ("train_standard", "/a/airfield/00000013.jpg 1_0", "Allowed: NAME NUMBER"),
        ("train_standard", "/a/airfield/two words.jpg 0", "without other spaces"),
        ("train_standard", "/a/air\0field/00000013.jpg 0", r"'/a/air\\x00field"),
        ("train_standard", "/a/airfield/00000013.jpg 0\r/a/airfield/00000014.jpg 0", r"jpg 0\\r/a/airfield"),
        ("train_standard", "/ 0", "there is '/ 0'"),
        ("train_standard", "/a/../../secret.jpg 0", "of a NAME within the folder"),
        ("val", "Places365_val_00000004.jpg 365", "_00000004.jpg 365'"),
        ("val", "Places365_val_00000004.jpg " + "9" * 5000, "_00000004.jpg 9999"),
    ],
)
def test_a_line_that_is_wrong_is_named(root: Path, file: str, line: str, words: str) -> None:
    path = root / f"places365_{file}.txt"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:2], "", line, *lines[2:]]))
    with pytest.raises(DataError, match=rf"^reading \S+/places365_{file}\.txt, line 4: (?s:.*){words}"):
        open_data(f"folder:{root}")


def test_a_list_may_end_without_a_line_end(root: Path) -> None:
    expected = open_data(f"folder:{root}").train.labels.tolist()
    text = _lists(root).read_text()
    _lists(root).write_text(text.rstrip("\n"))
    assert open_data(f"folder:{root}").train.labels.tolist() == expected
    _lists(root).write_text("wrong\n" + text.rstrip("\n"))
    with pytest.raises(DataError, match=r"standard\.txt, line 1: there is 'wrong'"):
        open_data(f"folder:{root}")


@pytest.mark.parametrize("block", [1, 100, 400])
def test_lists_are_read_in_blocks(root: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    expected = [open_data(f"folder:{root}").train.read(index)[0].tobytes() for index in range(24)]
    monkeypatch.setattr(places365, "_BLOCK", block)
    train = open_data(f"folder:{root}").train
    assert [train.read(index)[0].tobytes() for index in range(24)] == expected
    with _lists(root).open("a") as file:
        file.write("\nwrong\n")
    with pytest.raises(DataError, match=r"standard\.txt, line 26: there is 'wrong'"):
        open_data(f"folder:{root}")


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("", "it is empty"),
        ("/a/airfield 0\n/b/beach 2\n", "the numbers are not 0 to 1, each once"),
        ("/a/airfield 0\n/b/beach 0\n", "the numbers are not 0 to 1, each once"),
        ("/a/airfield 0\n/a/airfield 1\n", "a/airfield stands in it twice"),
        ("/a/airfield 0\n/a 1\n", "a/airfield is in a/"),
        (
            "/a/airfield 0\n/b/beach\n",
            r"line 2: there is '/b/beach'\. Allowed: NAME NUMBER, without other spaces, of a NAME within",
        ),
    ],
)
def test_categories_that_are_wrong(root: Path, lines: str, words: str) -> None:
    (root / "categories_places365.txt").write_text(lines)
    with pytest.raises(DataError, match=rf"^reading \S+/categories_places365\.txt.*{words}"):
        open_data(f"folder:{root}")


def test_a_class_without_images(root: Path) -> None:
    with (root / "categories_places365.txt").open("a") as file:
        file.write("/b/beach 3\n")
    with pytest.raises(
        DataError, match=r"the class b/beach has no images in data_256/, by places365_train_st"
    ):
        open_data(f"folder:{root}")
    _lists(root).unlink()
    with pytest.raises(DataError, match="the class b/beach has no images in data_256/, by its folders"):
        open_data(f"folder:{root}")


def test_class_folders_with_the_categories_beside_them(root: Path) -> None:
    """Another distribution of it, which folder: reads without them."""
    for scene in SCENES:
        flat = root / "train" / scene[2:].replace("/", "-")
        flat.parent.mkdir(exist_ok=True)
        (root / "data_256" / scene).rename(flat)
        (root / "val" / flat.name).mkdir(parents=True)
    (root / "val" / "airfield" / "Places365_val_00000002.jpg").write_bytes(_dot(0, 0))
    shutil.rmtree(root / "data_256")
    _lists(root).unlink()
    with pytest.raises(
        DataError, match=r"Without categories_places365\.txt the folders train/CLASS/ and val/"
    ):
        open_data(f"folder:{root}")
    (root / "categories_places365.txt").unlink()
    data = open_data(f"folder:{root}")
    assert data.classes == ("airfield", "apartment_building-outdoor", "zen_garden")
    assert (len(data.train), len(data.test)) == (24, 1)


def test_what_is_missing_is_said(root: Path) -> None:
    (root / "places365_val.txt").rename(root / "val.txt")
    with pytest.raises(
        DataError, match=r"no places365_val\.txt in it\. Allowed: DIR/categories.*val/CLASS/ ar"
    ):
        open_data(f"folder:{root}")
    (root / "places365_val.txt").write_text("\n")
    with pytest.raises(DataError, match=r"places365_val\.txt: it is empty"):
        open_data(f"folder:{root}")
    (root / "val_256").rename(root / "test_256")
    with pytest.raises(DataError, match=r"there is no folder val_256 in it, nor its like\. Allowed: DIR/cat"):
        open_data(f"folder:{root}")
    (root / "data_256").rename(root / "data")
    with pytest.raises(DataError, match="there is no folder data_256_standard in it, nor its like"):
        open_data(f"folder:{root}")


def test_a_list_that_cannot_be_read(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> object:
        raise PermissionError(13, "Permission denied", str(_lists(root)))

    monkeypatch.setattr(places365, "_by_list", refuse)
    with pytest.raises(DataError, match=r"a folder or a list cannot be read \(.*Permission denied"):
        open_data(f"folder:{root}")


def test_little_is_held_in_memory(root: Path) -> None:
    rows = [f"a/airfield/{number:08}.jpg" for number in range(1, 13)] * 100
    _lists(root).write_text("".join(f"/{row} {number % 3}\n" for number, row in enumerate(rows)))
    source = open_places365(str(root)).train
    assert isinstance(vars(source)["names"], Names)
    assert len(pickle.dumps(source)) / len(source) < len(rows[0]) + 17


def test_only_the_categories_make_a_folder_places365(root: Path) -> None:
    """Without them its initials would be the classes."""
    (root / "categories_places365.txt").unlink()
    with pytest.raises(DataError, match=r"no train/ with val/ in it.* put its categories_places365\.txt and"):
        open_data(f"folder:{root}")
    (root / "data_256").rename(root / "train")
    (root / "val_256").rename(root / "val")
    (root / "train" / "a" / ".DS_Store").touch()
    with pytest.raises(DataError, match=r"train/ are initials, a to z.* put its categories_places365\.txt"):
        open_data(f"folder:{root}")
