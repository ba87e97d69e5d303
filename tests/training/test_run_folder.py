import csv
import json
from pathlib import Path

import pytest
import yaml

from senet.errors import RunError
from senet.training.run_folder import RunFolder, new_run_path


def test_it_holds_configuration_passport_and_metrics(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "deep" / "run", {"model": "se_resnet20"}, resolved={"device": "cpu"})
    rows = [{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.25}]
    for row in rows:
        run.add_metrics(row)
    assert yaml.safe_load((run.path / "config.yaml").read_text()) == {"model": "se_resnet20"}
    found = yaml.safe_load((run.path / "passport.yaml").read_text())
    assert "torch" in found["versions"]
    assert found["resolved"] == {"device": "cpu"}
    assert [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()] == rows
    with (run.path / "metrics.csv").open() as file:
        assert list(csv.DictReader(file)) == [{"epoch": "1", "loss": "0.5"}, {"epoch": "2", "loss": "0.25"}]


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match=r"not empty.*--run"):
        RunFolder(tmp_path, {}, resolved={})
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunError, match="cannot be written"):
        RunFolder(tmp_path / "file" / "run", {}, resolved={})


def test_metrics_are_json_that_any_program_reads(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        RunFolder(tmp_path / "run", {}, resolved={}).add_metrics({"loss": float("nan")})


def test_new_names_are_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    first = new_run_path("resnet20", "shards:a/b", 3)
    assert first == Path("runs/resnet20-shards-seed3-1")
    first.mkdir(parents=True)
    assert new_run_path("resnet20", "shards:a/b", 3) == Path("runs/resnet20-shards-seed3-2")
