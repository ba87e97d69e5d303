import pytest

from senet.data import SCHEMES, open_data
from senet.errors import OptionError


def test_unknown_names() -> None:
    with pytest.raises(OptionError, match="Did you mean 'digits'"):
        open_data("digit")
    with pytest.raises(OptionError, match="Allowed: digits, folder:DIR, shards:DIR"):
        open_data("imagenet:somewhere")


def test_a_folder_must_be_named() -> None:
    for scheme in set(SCHEMES) - {"digits"}:
        with pytest.raises(OptionError, match=f"{scheme}:DIR"):
            open_data(scheme)
