"""Which classes to look at, by what a user names."""

from __future__ import annotations

from collections.abc import Sequence

from senet.data.source import evenly_spaced
from senet.errors import OptionError, did_you_mean

# Goldfish, pug, plane and cliff of ImageNet, in the order of the sorted synsets (section 7.2). The paper does
# not say which of the planes; this is the airliner.
PAPER = (1, 254, 404, 972)
_IMAGENET = 1000

# A page in which one chooses has room for so many; a figure, as in the paper, for so many.
_ALL, _SOME = 10, 4


def chosen_classes(words: str | None, classes: Sequence[str]) -> list[int]:
    """The numbers of the classes that a user names.

    Args:
        words: names or numbers, separated by commas; "paper" for those of the paper's figures (ImageNet);
            None: of ImageNet the paper's, of up to 10 classes all, of more 4, evenly spaced.
        classes: the names, in the order of the labels.

    Raises:
        OptionError: there is no such class.
    """
    if words is None:
        if len(classes) == _IMAGENET:
            return list(PAPER)
        return evenly_spaced(len(classes), _ALL if len(classes) <= _ALL else _SOME)
    if words == "paper" and "paper" not in classes:
        if len(classes) != _IMAGENET:
            raise OptionError(
                "--classes paper",
                found=f"these are classes of ImageNet, and the data has {len(classes):,} classes",
                allowed="the 1,000 classes of ImageNet",
                do="Name classes of the data.",
            )
        return list(PAPER)
    return list(dict.fromkeys(class_number(word, classes) for word in words.split(",") if word.strip()))


def legible(classes: Sequence[int]) -> list[int]:
    """As many of the classes as a figure without a choice can show, evenly spaced."""
    return [classes[index] for index in evenly_spaced(len(classes), _SOME)]


def class_number(word: str, classes: Sequence[str]) -> int:
    """The number of the class of this name, or of this number; OptionError if there is none."""
    word = word.strip()
    if word in classes:
        return classes.index(word)
    if word.isdecimal() and int(word) < len(classes):
        return int(word)
    some = ", ".join(classes[:5]) + (", ..." if len(classes) > 5 else "")
    raise OptionError(
        f"class {word!r}",
        found="the data has no class of this name",
        allowed=f"{some}, or 0 to {len(classes) - 1}",
        do=did_you_mean(word, classes),
    )
