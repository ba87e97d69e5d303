import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import pytest
from tests.experiments.small import lines_of, small_plan
from tests.together import together

from senet.errors import RunError
from senet.experiments import sweep as sweeping
from senet.experiments.cells import Cell
from senet.experiments.claims import Phase
from senet.experiments.sweep import claims_in, sweep
from senet.experiments.worker import folder_of, read_result, run_cell
from senet.runtime.processes import joined
from senet.training.run_folder import RunFolder


def _hear() -> None:
    """Whatever a shell that runs the tests in the background lets its processes ignore."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _phases(cells: list[Cell], out: Path) -> list[Phase]:
    claims = claims_in(out)
    return [claims.state(cell.key).phase for cell in cells]


def test_all_cells_are_done_once(tmp_path: Path) -> None:
    cells = list(small_plan(0, 1).cells)
    said: list[str] = []
    sweep(cells, tmp_path, jobs=2, say=said.append)
    assert _phases(cells, tmp_path) == 4 * [Phase.DONE]
    assert all(read_result(cell, tmp_path) is not None for cell in cells)
    ends = [line for line in said if line.startswith("[")]
    assert len(ends) == 4
    assert ends[-1].startswith("[4/4]")
    log = "\n".join(lines_of(tmp_path / "logs" / f"{cells[0].key}.txt"))
    assert "network  resnet20" in log
    assert "epoch   2/2" in log
    written = _written(tmp_path)
    sweep(cells, tmp_path, say=said.append)
    assert said[-1] == "4 of 4 cells are over already"
    assert _written(tmp_path) == written
    (folder_of(cells[0], tmp_path) / "result.json").unlink()
    sweep(cells, tmp_path)
    again = _written(tmp_path)
    assert {key for key in written if again[key] != written[key]} == {cells[0].key}, "it is measured again"


def _written(out: Path) -> dict[str, int]:
    """When each result was written."""
    return {path.parent.name: path.stat().st_mtime_ns for path in out.glob("cells/*/result.json")}


def test_what_fails_does_not_stop_the_rest(tmp_path: Path) -> None:
    cells = list(small_plan(0).cells)
    said: list[str] = []
    folder = folder_of(cells[0], tmp_path)
    folder.mkdir(parents=True)
    (folder / "in the way").touch()
    sweep(cells, tmp_path, say=said.append)
    assert _phases(cells, tmp_path) == [Phase.FAILED, Phase.DONE]
    (line,) = (line for line in said if "failed" in line)
    assert "plain, seed 0: failed: run folder" in line
    assert "not empty" in line
    assert any("not empty" in line for line in lines_of(tmp_path / "logs" / f"{cells[0].key}.txt"))
    (folder / "in the way").unlink()
    sweep(cells, tmp_path)
    assert _phases(cells, tmp_path) == [Phase.FAILED, Phase.DONE], "it is not tried again unasked"
    sweep(cells, tmp_path, retry=True)
    assert _phases(cells, tmp_path) == [Phase.DONE, Phase.DONE]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_ends(number: signal.Signals, tmp_path: Path) -> None:
    words = "ablate stages --data fake:1x8x8,images=64 --epochs 200 --seeds 1 --jobs 2 --out".split()
    command = [sys.executable, "-m", "senet", *words, str(tmp_path)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=_hear
    ) as process:
        _until(lambda: len([*tmp_path.glob("cells/*/metrics.csv")]) == 2)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert ("what ran is saved" if number == signal.SIGTERM else "interrupted") in err
    assert not _running(tmp_path)
    # What was taken is free again, and goes on from a checkpoint of its own.
    assert [*tmp_path.glob("cells/*/state/step-*.safetensors")]
    for folder in tmp_path.glob("claims/*/"):
        numbers = [int(path.name) for path in folder.iterdir() if path.name.isdecimal()]
        assert "released" in (folder / str(max(numbers))).read_text()


@pytest.mark.slow
def test_a_worker_that_dies_is_replaced_and_a_cell_that_kills_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first cell kills whoever takes it."""
    monkeypatch.setattr(sweeping, "work", _deadly)
    cells = list(small_plan(0).cells)
    said: list[str] = []
    sweep(cells, tmp_path, say=said.append)
    assert _phases(cells, tmp_path) == [Phase.FAILED, Phase.DONE]
    assert any("died 3 times, the last by SIGKILL" in line for line in said)


def _hold(folder: Path, log: Path) -> None:
    """Writes the run until somebody else has seen that."""
    run = RunFolder.create(folder, {}, resolved={})
    _until(lambda: log.exists() and "another process is writing it" in log.read_text())
    run.close()
    shutil.rmtree(folder)


def test_a_run_that_another_still_writes_has_not_failed(tmp_path: Path) -> None:
    """On another machine, which slept until its cell was taken over."""
    (cell,) = small_plan(0).cells[:1]
    other = get_context("fork").Process(
        target=_hold, args=(folder_of(cell, tmp_path), tmp_path / "logs" / f"{cell.key}.txt")
    )
    other.start()
    _until(lambda: (folder_of(cell, tmp_path) / "state" / "lock").exists())
    sweep([cell], tmp_path)
    other.join()
    assert other.exitcode == 0
    assert _phases([cell], tmp_path) == [Phase.DONE]
    assert len([*(tmp_path / "claims" / cell.key).glob("[0-9]")]) >= 4, "taken, released, taken, done"


def _at_once(*_arguments: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_workers_that_die_at_once_are_no_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeping, "work", _at_once)
    with pytest.raises(RunError, match=r"worker 1 died by SIGKILL.*before it did anything"):
        sweep(small_plan(0).cells, tmp_path)


def _deadly(*arguments: object) -> None:
    sweeping.run_cell = _run_or_die  # type: ignore[assignment, attr-defined]
    _work(*arguments)  # type: ignore[arg-type]


_work, _run_cell = sweeping.work, run_cell


def _run_or_die(cell: Cell, *arguments: object, **named: object) -> object:
    if cell.label == "plain":
        os.kill(os.getpid(), signal.SIGKILL)
    return _run_cell(cell, *arguments, **named)  # type: ignore[arg-type]


@pytest.mark.slow
def test_workers_do_not_outlive_who_watches_over_them(tmp_path: Path) -> None:
    words = "ablate squeeze --data fake:1x8x8,images=64 --epochs 500 --seeds 1 --out".split()
    command = [sys.executable, "-m", "senet", *words, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        _until(lambda: [*tmp_path.glob("cells/*/metrics.csv")])
        process.kill()
    _until(lambda: not _running(tmp_path))
    assert [*tmp_path.glob("cells/*/state/step-*.safetensors")]


@pytest.mark.slow
def test_several_processes_do_a_cell_together(tmp_path: Path) -> None:
    together(2, _both, tmp_path)
    cells = list(small_plan(0).cells)
    assert _phases(cells, tmp_path) == 2 * [Phase.DONE]
    passport = (folder_of(cells[0], tmp_path) / "passport.yaml").read_text()
    assert "processes: 2" in passport


def _both(out: Path) -> None:
    import torch

    with joined(torch.device("cpu")) as processes:
        sweep(small_plan(0).cells, out, processes=processes)


def _running(out: Path) -> bool:
    """Whether a living process still has a cell."""
    claims = claims_in(out)
    return any(claims.state(folder.name).phase is Phase.RUNNING for folder in out.glob("claims/*/"))


def _until(holds: Callable[[], object], seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.1)
