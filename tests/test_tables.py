import csv
import json
from pathlib import Path

import pytest

from senet.errors import OptionError
from senet.tables import Table

ROWS = [
    {"network": "se_resnet50", "parameters": 28088024, "SE": True, "error": 23.29},
    {"network": "vgg", "parameters": 1, "SE": False, "error": None},
]


def test_text_is_aligned() -> None:
    assert str(Table(ROWS)).splitlines() == [
        "network      parameters  SE   error",
        "se_resnet50  28,088,024  yes  23.29",
        "vgg                   1  no       -",
    ]


def test_an_empty_table_prints_nothing() -> None:
    assert str(Table([])) == ""


def test_it_saves_what_it_shows(tmp_path: Path) -> None:
    for ending in ("csv", "json", "md"):
        Table(ROWS).save(tmp_path / f"t.{ending}")
    with (tmp_path / "t.csv").open() as file:
        assert [row["parameters"] for row in csv.DictReader(file)] == ["28088024", "1"]
    assert json.loads((tmp_path / "t.json").read_text()) == ROWS
    assert "| se_resnet50 | 28,088,024 | yes | 23.29 |" in (tmp_path / "t.md").read_text()


def test_another_ending_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"Allowed: \.csv, \.json, \.md"):
        Table(ROWS).save(tmp_path / "t.xls")
    assert not list(tmp_path.iterdir())
