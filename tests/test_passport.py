import json
import sys

import pytest
import torch
import yaml

from senet.passport import passport


def test_it_names_what_a_number_depends_on() -> None:
    found = passport()
    assert found["versions"]["torch"] == torch.__version__.split("+")[0]
    assert {"python", "senet", "torch"} <= found["versions"].keys()
    assert found["machine"]["threads"] == torch.get_num_threads()
    assert "/" not in found["command"].split()[0]


def test_the_command_can_be_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    for called, command in (
        (["/a/bin/senet", "train", "--data", "folder:a b"], "senet train --data 'folder:a b'"),
        (["/a/senet/__main__.py", "models"], "python -m senet models"),
    ):
        monkeypatch.setattr(sys, "argv", called)
        assert passport()["command"] == command


def test_json_and_yaml_hold_it() -> None:
    found = passport()
    assert json.loads(json.dumps(found)) == found
    assert yaml.safe_load(yaml.safe_dump(found)) == found
