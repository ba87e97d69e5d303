from pathlib import Path

import numpy as np
import pytest

from senet.data import FORMS, SCHEMES, Splits, open_data
from senet.errors import DataError, OptionError


def test_unknown_names(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="Did you mean 'digits'"):
        open_data("digit")
    with pytest.raises(OptionError, match="Did you mean 'fashion-mnist'"):
        open_data("fashionmnist:here")
    forms = "digits, folder:DIR, shards:DIR, cifar10:DIR, cifar100:DIR, fashion-mnist:DIR, fake:CxHxW"
    with pytest.raises(OptionError, match=f"Allowed: {forms}"):
        open_data("imagenet:somewhere")
    with pytest.raises(OptionError, match=f"Did you mean 'folder:{tmp_path}'"):
        open_data(str(tmp_path))


def test_a_place_must_be_named() -> None:
    for scheme in set(SCHEMES) - {"digits"}:
        with pytest.raises(OptionError, match=f"is missing. Allowed: {SCHEMES[scheme]}"):
            open_data(f"{scheme}:")
    assert len(SCHEMES) == len(FORMS)


@pytest.mark.parametrize("scheme", ["folder", "shards"])
def test_a_folder_that_is_not_there(scheme: str, tmp_path: Path) -> None:
    (tmp_path / "cats").mkdir()
    with pytest.raises(DataError, match=r"there is no folder .*/cat\. Allowed: DIR/.*Did you mean 'cats'"):
        open_data(f"{scheme}:{tmp_path / 'cat'}")


def test_labels_are_those_of_the_images(image_folder: Path, shard_folder: Path) -> None:
    names = ("digits", f"folder:{image_folder}", f"shards:{shard_folder}", "fake:1x4x5,images=20,classes=3")

    def _check_labels(data: Splits) -> None:
        for source in (data.train, data.test):
            assert source.labels.dtype == np.int64
            assert source.labels.tolist() == [source.read(index)[1] for index in range(len(source))]
            assert source.labels.max() < len(data.classes)

    for name in names:
        _check_labels(open_data(name))
