"""Images to train and test on, by name: ``digits``, ``folder:DIR``, ``cifar10:DIR`` and so on."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

from senet.data.digits import open_digits
from senet.data.downloads import DOWNLOADS, open_download
from senet.data.fake import open_fake
from senet.data.folder import open_folder
from senet.data.places365 import is_places365, open_places365
from senet.data.shards import open_shards
from senet.data.source import Source as Source
from senet.data.source import Splits as Splits
from senet.errors import OptionError, did_you_mean


def _open_folder(place: str) -> Splits:
    return open_places365(place) if is_places365(place) else open_folder(place)


# Each kind of data as it is written, and what opens the part behind the colon.
FORMS: dict[str, Callable[[str], Splits]] = {
    "digits": open_digits,
    "folder:DIR": _open_folder,
    "shards:DIR": open_shards,
    **{f"{name}:DIR": functools.partial(open_download, name) for name in DOWNLOADS},
    "fake:CxHxW": open_fake,
}

SCHEMES = {form.partition(":")[0]: form for form in FORMS}


def open_data(name: str) -> Splits:
    """The data set of that name.

    Args:
        name: ``digits``; ``folder:DIR`` with train/ and val/ of class folders, or with
            Places365 as it is published; ``shards:DIR`` with tar shards in WebDataset's layout;
            ``cifar10:DIR``, ``cifar100:DIR`` and ``fashion-mnist:DIR``, fetched into DIR when they are
            not there; ``fake:CxHxW[,images=N][,classes=K]``, random images.

    Raises:
        OptionError: the name is unknown.
        DataError: what it names is missing or broken.
    """
    scheme, _, place = name.partition(":")
    if scheme == "coco":
        raise OptionError(
            f"data {name!r}",
            found="its images have boxes, which a classifier does not learn",
            allowed=", ".join(FORMS),
            do="Name a detector, such as fasterrcnn_se_resnet50_fpn.",
        )
    if scheme not in SCHEMES:
        raise OptionError(
            f"data {name!r}",
            found=f"{scheme!r} is unknown",
            allowed=", ".join(FORMS),
            do=f"Did you mean 'folder:{name}'?" if Path(name).is_dir() else did_you_mean(scheme, SCHEMES),
        )
    form = SCHEMES[scheme]
    what = form.partition(":")[2]
    if what and not place:
        raise OptionError(f"data {name!r}", f"{what} is missing", form)
    return FORMS[form](place)
