import dataclasses
import json
import math
from typing import Any

import pytest
from tests.analysis.comparison.made_up import result

from senet.analysis.comparison.result import RunResult
from senet.errors import OptionError


def test_a_result_comes_back_from_json() -> None:
    found = result(top1=91.25, saved_bytes=None)
    assert RunResult.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    assert list(found.to_dict()) == [field.name for field in dataclasses.fields(RunResult)]


def test_errors_are_what_accuracies_leave() -> None:
    found = dataclasses.replace(result(), test_top1=91.25, test_top5=99.5, train_top1=100.0)
    assert (found.test_error, found.test_error5, found.train_error) == (8.75, 0.5, 0.0)


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("test_top1", 100.5, "a finite number from 0 to 100"),
        ("test_top1", math.nan, "a finite number from 0 to 100"),
        ("test_top1", "91", "a finite number from 0 to 100"),
        ("train_loss", math.inf, "a finite number of at least 0"),
        ("train_loss", True, "a finite number of at least 0"),
        ("test_images", 0, "a whole number of at least 1"),
        ("processes", 0, "a whole number of at least 1"),
        ("steps", 1.5, "a whole number of at least 0"),
        ("parameters", None, "a whole number of at least 0"),
        ("saved_bytes", -1, "a whole number, or null of at least 0"),
        ("device", None, "text"),
    ],
)
def test_nonsense_is_refused_by_name(field: str, value: Any, allowed: str) -> None:
    with pytest.raises(OptionError, match=f"the {field} of a result: .*Allowed: {allowed}"):
        RunResult.from_dict(result().to_dict() | {field: value})


def test_a_missing_field_and_an_unknown_one_are_refused() -> None:
    values = result().to_dict()
    with pytest.raises(OptionError, match="Did you mean 'macs'"):
        RunResult.from_dict(values | {"mac": 1})
    del values["seconds"]
    with pytest.raises(OptionError, match="the seconds of a result: it is missing"):
        RunResult.from_dict(values)
