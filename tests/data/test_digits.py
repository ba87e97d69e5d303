import numpy as np
import pytest

from senet.data import open_data
from senet.data.source import InMemory
from senet.errors import OptionError


def test_the_split_is_stratified_whole_and_fixed() -> None:
    data, again = open_data("digits"), open_data("digits")
    train, test = data.train, data.test
    assert isinstance(train, InMemory)
    assert isinstance(test, InMemory)
    assert isinstance(again.test, InMemory)
    assert (len(train), len(test)) == (1437, 360)
    assert np.array_equal(test.images, again.test.images)
    shares = np.bincount(test.labels) / np.bincount(np.concatenate([train.labels, test.labels]))
    assert ((shares > 0.18) & (shares < 0.22)).all()
    seen = {image.tobytes() for image in train.images}
    assert sum(image.tobytes() in seen for image in test.images) == 0
    assert "1,437 to train on, 360 to test on" in data.description


def test_an_image_is_8_by_8_and_uses_the_whole_range() -> None:
    data = open_data("digits")
    image, label = data.train.read(5)
    assert (image.mode, image.size) == ("L", (8, 8))
    assert 0 <= label < 10
    assert isinstance(data.train, InMemory)
    assert (data.train.images.min(), data.train.images.max()) == (0, 255)


def test_digits_have_no_place() -> None:
    with pytest.raises(OptionError, match="have no place"):
        open_data("digits:here")
