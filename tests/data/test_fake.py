import pickle

import numpy as np
import pytest

from senet.data import open_data
from senet.errors import OptionError


def test_images_are_random_and_always_the_same() -> None:
    data, again = open_data("fake:3x20x30"), open_data("fake:3x20x30")
    assert (len(data.train), len(data.test), len(data.classes), data.channels) == (10_000, 1_000, 1_000, 3)
    image, label = data.train.read(1_234)
    assert (image.mode, image.size, label) == ("RGB", (30, 20), 234)
    assert image.tobytes() == again.train.read(1_234)[0].tobytes()
    assert image.tobytes() != data.train.read(1_235)[0].tobytes()
    assert np.asarray(image).std() > 50
    copy = pickle.loads(pickle.dumps(data.train))
    assert copy.read(7)[0].tobytes() == data.train.read(7)[0].tobytes()


def test_drawing_on_an_image_changes_no_other() -> None:
    source = open_data("fake:1x4x4").train
    image, _ = source.read(0)
    before = image.tobytes()
    image.paste(0, (0, 0, 4, 4))
    assert source.read(0)[0].tobytes() == before != image.tobytes()


def test_the_settings() -> None:
    data = open_data("fake:1x8x8,images=5,classes=2")
    assert (len(data.train), len(data.test), data.classes) == (5, 1, ("class 0", "class 1"))
    assert (data.channels, data.train.read(0)[0].mode) == (1, "L")
    assert data.train.labels.tolist() == [0, 1, 0, 1, 0]
    assert len(open_data("fake:1x8x8,images=64").classes) == 64


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("3x8", r"'3x8' is no CxHxW. Allowed: fake:CxHxW\[,images=N\]\[,classes=K\]"),
        ("224", "For example fake:3x224x224"),
        ("2x8x8", "C=2"),
        ("3x0x8", "H=0"),
        ("3x8x9999", "W=9999"),
        ("3x8x8,image=5", "Did you mean 'images'"),
        ("3x8x8,images", "images=''"),
        ("3x8x8,images=0", "images='0'"),
        ("3x8x8,classes=two", "classes='two'"),
        ("3x8x8,images=4,classes=5", "classes=5.*at most images=4"),
    ],
)
def test_other_texts(text: str, words: str) -> None:
    with pytest.raises(OptionError, match=words):
        open_data(f"fake:{text}")
