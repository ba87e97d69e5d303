import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.experiments.small import small_plan

import senet
from senet.data import open_data
from senet.errors import RunError
from senet.experiments.cells import Cell
from senet.experiments.worker import _seconds_per_step, folder_of, read_result, run_cell


def _quiet(_line: str) -> None:
    pass


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Cell, Path, list[dict[str, Any]]]:
    cell, out, told = small_plan(3).cells[1], tmp_path_factory.mktemp("out"), []
    run_cell(cell, out, tell=lambda **facts: told.append(facts), say=_quiet)
    return cell, out, told


def test_a_cell_is_a_run_folder_with_a_result(done: tuple[Cell, Path, list[dict[str, Any]]]) -> None:
    cell, out, _ = done
    folder = folder_of(cell, out)
    assert folder == out / "cells" / cell.key
    assert {"config.yaml", "metrics.csv", "last.safetensors", "result.json"} <= {
        each.name for each in folder.iterdir()
    }
    result = read_result(cell, out)
    assert result is not None
    assert (result.epochs, result.steps, result.test_images, result.train_images) == (2, 4, 3, 32)
    entry = json.loads((folder / "result.json").read_text())
    assert (entry["label"], entry["result"]) == ("SE", result.to_dict())
    assert entry["passport"]["versions"]["torch"]


def test_the_numbers_are_the_networks(done: tuple[Cell, Path, list[dict[str, Any]]]) -> None:
    cell, out, _ = done
    result = read_result(cell, out)
    assert result is not None
    model = senet.load(folder_of(cell, out) / "last.safetensors").eval()
    rows = [json.loads(line) for line in (folder_of(cell, out) / "metrics.jsonl").read_text().splitlines()]
    assert (result.test_top1, result.test_loss) == (rows[-1]["test_top1"], rows[-1]["test_loss"])
    assert result.best_top1 == max(row["test_top1"] for row in rows)
    assert result.parameters == sum(each.numel() for each in model.parameters())
    assert result.macs == senet.cost(model, (1, 8, 8), runs=0).total.multiply_adds
    # On the training images, not those of the test, and with the running statistics.
    data = open_data(cell.config.data)
    right = 0
    preprocessing = senet.weights.recognise(str(folder_of(cell, out) / "last.safetensors")).header[
        "preprocessing"
    ]
    mean, std = (torch.tensor(preprocessing[name]).view(-1, 1, 1) for name in ("mean", "std"))
    with torch.inference_mode():
        for index in range(len(data.train)):
            image, label = data.train.read(index)
            pixels = torch.tensor(list(image.tobytes()), dtype=torch.float32).view(1, 8, 8) / 255
            right += int(model(((pixels - mean) / std)[None]).argmax()) == label
    assert result.train_top1 == 100 * right / len(data.train)


def test_what_it_tells(done: tuple[Cell, Path, list[dict[str, Any]]]) -> None:
    _, _, told = done
    steps = [facts["step"] for facts in told if "step" in facts]
    assert steps == [1, 2, 3, 4]
    assert {facts["steps"] for facts in told if "steps" in facts} == {4}
    assert {facts["share_before"] for facts in told if "share_before" in facts} == {0.0}
    epochs = [facts["epoch"] for facts in told if "epoch" in facts]
    assert epochs == [1, 2]


@pytest.mark.parametrize("how", ["in mid-run", "after its end"])
def test_it_goes_on(how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupted anywhere, it ends as a run that was not."""
    cell = small_plan(0).cells[1]
    whole = run_cell(cell, tmp_path / "whole", tell=_untold, say=_quiet)
    told: list[int] = []

    def interrupt(**facts: Any) -> None:
        if facts.get("epoch") == 1 and how == "in mid-run":
            raise KeyboardInterrupt

    if how == "after its end":
        monkeypatch.setattr("senet.experiments.worker._measured", _interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_cell(cell, tmp_path / "cut", tell=interrupt, say=_quiet)
    assert read_result(cell, tmp_path / "cut") is None
    monkeypatch.undo()
    again = run_cell(cell, tmp_path / "cut", tell=_steps(told), say=_quiet)
    assert told == ([3, 4] if how == "in mid-run" else [])
    timing = ("seconds", "seconds_per_step")
    assert {k: v for k, v in again.to_dict().items() if k not in timing} == {
        k: v for k, v in whole.to_dict().items() if k not in timing
    }


def test_a_result_that_cannot_be_read(tmp_path: Path) -> None:
    cell = small_plan(0).cells[0]
    folder_of(cell, tmp_path).mkdir(parents=True)
    for text in ("", "{}", '{"result": {"test_top1": 3}}', "[]"):
        (folder_of(cell, tmp_path) / "result.json").write_text(text)
        with pytest.raises(RunError, match="Remove this file"):
            read_result(cell, tmp_path)


def _untold(**_facts: Any) -> None:
    pass


def _steps(told: list[int]) -> Callable[..., None]:
    return lambda **facts: told.extend([facts["step"]] if "step" in facts else [])


def _interrupt(*_arguments: object) -> None:
    raise KeyboardInterrupt


def test_the_time_of_a_step_is_that_of_an_epoch_that_was_interrupted_too(tmp_path: Path) -> None:
    """Of the second epoch only a tenth was done in this start; the third was told twice."""
    rows = ["epoch,seconds,images_per_second", "1,10,200", "2,1,100", "3,5,400", "3,10,200"]
    (tmp_path / "times.csv").write_text("\n".join(rows) + "\n")
    assert _seconds_per_step(tmp_path, batch_size=20) == [0.1, 0.2, 0.1]


def test_an_epoch_that_was_stopped_after_its_last_step_tells_no_time(tmp_path: Path) -> None:
    times = tmp_path / "times.csv"
    times.write_text("epoch,seconds,images_per_second,waited\n1,0.001,0,0\n2,2,10,0\n")
    assert _seconds_per_step(tmp_path, 20) == [2.0]
    times.write_text("epoch,seconds,images_per_second,waited\n1,0.001,0,0\n")
    assert math.isnan(_seconds_per_step(tmp_path, 20)[0])
