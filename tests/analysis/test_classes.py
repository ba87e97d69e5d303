from __future__ import annotations

import pytest

from senet.analysis.classes import PAPER, chosen_classes, legible
from senet.errors import OptionError

NAMES = [f"n{number:08}" for number in range(1000)]


def test_by_name_by_number_and_once_each() -> None:
    assert chosen_classes("dog, 0,dog", ["cat", "dog", "eel"]) == [1, 0]
    # A name wins over a number, as the digits have it.
    assert chosen_classes("2", ["5", "2", "7"]) == [1]


def test_without_words_as_many_as_one_can_read() -> None:
    assert chosen_classes(None, NAMES[:10]) == list(range(10))
    assert chosen_classes(None, NAMES[:100]) == [0, 25, 50, 75]
    assert chosen_classes(None, NAMES) == list(PAPER) == chosen_classes("paper", NAMES)


def test_what_there_is_not_is_told() -> None:
    with pytest.raises(OptionError, match="Did you mean 'frog'"):
        chosen_classes("forg", ["cat", "frog"])
    with pytest.raises(OptionError, match="0 to 1"):
        chosen_classes("2", ["cat", "frog"])
    with pytest.raises(OptionError, match="the data has 10 classes"):
        chosen_classes("paper", NAMES[:10])


def test_a_figure_shows_as_many_as_one_can_tell_apart() -> None:
    assert legible([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]) == [0, 2, 5, 7]
    assert legible([5, 3]) == [5, 3]
