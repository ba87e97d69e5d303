import csv
import json
import os
from multiprocessing import get_context
from pathlib import Path

import pytest
import yaml

from senet.errors import RunError
from senet.training.run_folder import RunFolder, new_run_path


def test_it_holds_configuration_passport_and_metrics(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "deep" / "run", {"model": "se_resnet20"}, resolved={"device": "cpu"})
    rows = [{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.25}]
    run.write_metrics(rows[:1])
    run.write_metrics(rows)
    assert yaml.safe_load((run.path / "config.yaml").read_text()) == {"model": "se_resnet20"}
    found = yaml.safe_load((run.path / "passport.yaml").read_text())
    assert "torch" in found["versions"]
    assert found["resolved"] == {"device": "cpu"}
    assert [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()] == rows
    with (run.path / "metrics.csv").open() as file:
        assert list(csv.DictReader(file)) == [{"epoch": "1", "loss": "0.5"}, {"epoch": "2", "loss": "0.25"}]
    run.add_time(epoch=1, seconds=2.5)
    run.add_time(epoch=2, seconds=1e6 / 3)
    assert (run.path / "times.csv").read_text() == "epoch,seconds\n1,2.5\n2,333333\n"
    run.add_time(epoch=3, seconds=1, waited=0.5)
    assert (run.path / "times.csv").read_text().endswith("\n3,1\n"), "an earlier version's columns stay"


def test_every_start_has_its_passport_and_sweeps(tmp_path: Path) -> None:
    RunFolder.create(tmp_path / "run", {}, resolved={"device": "cpu"}).close()
    for place in ("", "state"):
        (tmp_path / "run" / place / ".metrics.csv.abc.tmp").write_text("half")
    again = RunFolder.open(tmp_path / "run")
    again.add_passport({"device": "cuda"})
    again.close()
    assert yaml.safe_load((tmp_path / "run" / "passport-2.yaml").read_text())["resolved"] == {
        "device": "cuda"
    }
    assert not list(tmp_path.rglob("*.tmp"))


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match=r"not empty.*--run.*--resume"):
        RunFolder.create(tmp_path, {}, resolved={})
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunError, match="cannot be written"):
        RunFolder.create(tmp_path / "file" / "run", {}, resolved={})


def _second(path: Path) -> None:
    try:
        RunFolder.open(path)
    except RunError as error:
        os._exit(0 if "another process is writing it" in str(error) else 1)
    os._exit(2)


def test_two_processes_do_not_write_one_run(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", {}, resolved={})
    second = get_context("fork").Process(target=_second, args=(run.path,))
    second.start()
    second.join()
    assert second.exitcode == 0
    run.close()
    third = get_context("fork").Process(target=_second, args=(run.path,))
    third.start()
    third.join()
    assert third.exitcode == 2, "free again"


def test_metrics_are_json_that_any_program_reads(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        RunFolder.create(tmp_path / "run", {}, resolved={}).write_metrics([{"loss": float("nan")}])
    assert not (tmp_path / "run" / "metrics.csv").exists()


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunFolder.create(tmp_path / "run", {}, resolved={})
    run.write_metrics([{"loss": 1}])

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("senet.files.os.fsync", full)
    with pytest.raises(RunError, match=r"metrics\.csv': 9 bytes cannot be written \(.*No space left"):
        run.write_metrics([{"loss": 2}])
    assert (run.path / "metrics.csv").read_text().split() == ["loss", "1"]


def test_new_names_are_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    first = new_run_path("resnet20", "shards:a/b", 3)
    assert first == Path("runs/resnet20-shards-seed3-1")
    first.mkdir(parents=True)
    assert new_run_path("resnet20", "shards:a/b", 3) == Path("runs/resnet20-shards-seed3-2")


def test_a_refused_start_touches_nothing(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / ".mine.tmp").write_text("mine")
    with pytest.raises(RunError, match="not empty"):
        RunFolder.create(tmp_path, {}, resolved={})
    assert sorted(path.name for path in tmp_path.iterdir()) == [".mine.tmp", "notes.txt"]


def test_one_process_does_not_write_a_run_twice(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", {}, resolved={})
    with pytest.raises(RunError, match="another run of this one"):
        RunFolder.open(tmp_path / "run")
    run.close()
    RunFolder.open(tmp_path / "run").close()
