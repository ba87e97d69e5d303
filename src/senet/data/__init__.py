"""Images to train and test on, by name: ``digits``, ``folder:DIR``, ``shards:DIR``."""

from __future__ import annotations

from collections.abc import Callable

from senet.data.digits import open_digits
from senet.data.folder import open_folder
from senet.data.shards import open_shards
from senet.data.source import Source as Source
from senet.data.source import Splits as Splits
from senet.errors import OptionError, did_you_mean

SCHEMES: dict[str, Callable[[str], Splits]] = {
    "digits": open_digits,
    "folder": open_folder,
    "shards": open_shards,
}


def open_data(name: str) -> Splits:
    """The data set of that name.

    Args:
        name: ``digits``; ``folder:DIR`` with train/ and val/ of class folders; ``shards:DIR``
            with tar shards in WebDataset's layout.

    Raises:
        OptionError: the name is unknown.
        DataError: what it names is missing or broken.
    """
    scheme, _, place = name.partition(":")
    if scheme not in SCHEMES:
        raise OptionError(
            f"data {name!r}",
            found=f"{scheme!r} is unknown",
            allowed="digits, folder:DIR, shards:DIR",
            do=did_you_mean(scheme, SCHEMES),
        )
    if scheme != "digits" and not place:
        raise OptionError(f"data {name!r}", "the folder is missing", f"{scheme}:DIR")
    return SCHEMES[scheme](place)
