import dataclasses
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.together import together

from senet import weights
from senet.errors import InUseError, OptionError
from senet.runtime.processes import ALONE
from senet.training.beginning import ready
from senet.training.classification import prepare
from senet.training.config import Recipe, TrainConfig
from senet.training.loop import train
from senet.training.run_folder import STATE, RunFolder

ONE = Recipe(epochs=1, batch_size=24, lr=0.05)


def config(run: Path, **values: Any) -> TrainConfig:
    return TrainConfig(
        **{"recipe": ONE, "run": run, "data": "fake:1x8x8,images=48,classes=3", "device": "cpu", **values}
    )


def begun(run: Path, **values: Any) -> tuple[int, bool, Path]:
    """At which step a run begins, whether it goes on, and its folder, which is closed again."""
    job, folder, goes_on = ready(prepare, config(run, **values), "auto", ALONE, print)
    assert folder is not None
    folder.close()
    return job.state.step, goes_on, folder.path


def test_auto_begins_a_run_and_then_goes_on_with_it(tmp_path: Path) -> None:
    run = tmp_path / "a"
    assert begun(run) == (0, False, run)
    assert begun(run) == (0, True, run), "it was stopped before its first checkpoint"
    train(config(run), resume="auto")
    assert begun(run) == (2, True, run)
    assert train(config(run), resume="auto").history == train(config(tmp_path / "b")).history


def test_where_and_how_it_runs_may_be_another_way(tmp_path: Path) -> None:
    begun(tmp_path / "a")
    assert begun(tmp_path / "a", timeout=30.0, save_minutes=1.0, workers=0, broken_images=3)[1]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"seed": 3}, "seed is 0 there, and 3 is asked for"),
        ({"recipe": dataclasses.replace(ONE, lr=0.2)}, "lr is 0.05 there, and 0.2 is asked for"),
        ({"model": "resnet20"}, "model is 'se_resnet20' there, and 'resnet20' is asked for"),
        ({"se": {"reduction": 8}}, "se is {} there, and {'reduction': 8} is asked for"),
    ],
)
def test_auto_does_not_go_on_with_another_run(tmp_path: Path, changed: dict[str, Any], words: str) -> None:
    begun(tmp_path / "a")
    with pytest.raises(OptionError) as error:
        begun(tmp_path / "a", **changed)
    assert words in str(error.value)


def test_auto_goes_on_from_weights_that_are_gone(tmp_path: Path) -> None:
    first = train(config(tmp_path / "first"))
    start = tmp_path / "start.safetensors"
    weights.save(first.job.state.model, start)
    train(config(tmp_path / "a", weights=str(start)))
    start.unlink()
    assert begun(tmp_path / "a", weights=str(start))[:2] == (2, True)
    with pytest.raises(OptionError, match="weights is"):
        begun(tmp_path / "a")


def test_a_folder_in_use_is_waited_for_and_not_for_ever(tmp_path: Path) -> None:
    run = tmp_path / "a"
    begun(run)
    held = RunFolder.open(run)
    with pytest.raises(InUseError):
        begun(run, timeout=1.0)
    threading.Timer(0.5, held.close).start()
    started = time.monotonic()
    assert begun(run, timeout=60.0)[1]
    assert time.monotonic() - started >= 0.4


def _reads(folder: Path, other: Path) -> None:
    """Goes on where only the first process has the run folder; each writes what it then has."""
    from senet.runtime.processes import joined

    with joined(torch.device("cpu")) as processes:
        run = folder if processes.leads else other / "nothing"
        job, opened, goes_on = ready(prepare, config(run, sync_norms=True), True, processes, print)
        assert goes_on
        assert (opened is not None) == processes.leads
        if opened is not None:
            opened.close()
        tensors = {key: value.contiguous() for key, value in job.state.tensors().items()}
        weights.store.write(other / f"{processes.rank}.safetensors", tensors, {"step": job.state.step})


def test_all_processes_have_the_checkpoint_that_the_first_has_read(tmp_path: Path) -> None:
    train(config(tmp_path / "a", recipe=dataclasses.replace(ONE, ema=0.5)))
    train(config(tmp_path / "a2"))
    other = tmp_path / "other"
    other.mkdir()
    together(3, _reads, tmp_path / "a2", other)
    kept = sorted((tmp_path / "a2" / STATE).glob("step-*.safetensors"))[-1]
    wanted = weights.read(kept)[1]
    assert any(value.numel() == 1 for value in wanted.values()), "and of no dimensions"
    for rank in range(3):
        header, found = weights.read(other / f"{rank}.safetensors")
        assert header["step"] == 2
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[key], wanted[key]) for key in wanted)
