import json

import pytest

from senet import __version__
from senet.deploy.header import read, written
from senet.errors import OptionError, WeightsError


def test_what_is_written_is_read() -> None:
    said = {"classes": ["a", "b"], "data": "digits"}
    found = read("a.onnx", written("export", said, network="se_resnet20"))
    assert found == {**said, "network": "se_resnet20", "version": __version__}
    assert read("a.onnx", None) == {}


@pytest.mark.parametrize("text", ["[1]", "{", '{"classes": 3}', '{"preprocessing": []}', "[" * 100_000])
def test_what_is_no_header(text: str) -> None:
    with pytest.raises(WeightsError, match=r"'a\.onnx': what the file says of itself is unreadable"):
        read("a.onnx", text)


def test_what_json_cannot_hold() -> None:
    with pytest.raises(OptionError, match="JSON cannot hold it"):
        written("export", {"classes": {1, 2}})
    assert json.loads(written("export", {}))["version"] == __version__
