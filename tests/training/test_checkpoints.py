import os
import resource
import signal
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch

from senet.errors import RunError, WeightsError
from senet.training.checkpoints import Checkpoints, sweep


def _numbers(step: int) -> dict[str, torch.Tensor]:
    return {"weight": torch.full((50, 3), float(step)), "count": torch.tensor(step)}


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    found = Checkpoints(tmp_path)
    for step in (3, 20, 100):
        found.save(_numbers(step), {"step": step, "history": [{"loss": 0.1 + step}]})
    return found


def test_the_newest_comes_back_and_two_are_kept(checkpoints: Checkpoints) -> None:
    assert [path.name for path in checkpoints.paths()] == [
        "step-0000000100.safetensors",
        "step-0000000020.safetensors",
    ]
    found = checkpoints.load(pytest.fail)
    assert found is not None
    tensors, facts = found
    assert {key: tensor.tolist() for key, tensor in tensors.items()} == {
        key: tensor.tolist() for key, tensor in _numbers(100).items()
    }
    assert facts == {"step": 100, "history": [{"loss": 100.1}]}


def test_there_may_be_none(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path).load(pytest.fail) is None


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
def test_a_damaged_one_is_named_and_the_one_before_is_taken(checkpoints: Checkpoints, damage: str) -> None:
    path = checkpoints.paths()[0]
    whole = path.read_bytes()
    flipped = whole[:-5] + bytes([whole[-5] ^ 4]) + whole[-4:]
    path.write_bytes({"cut": whole[: len(whole) // 2], "flipped": flipped, "empty": b""}[damage])
    said: list[str] = []
    found = checkpoints.load(said.append)
    assert found is not None
    assert found[1]["step"] == 20
    assert len(said) == 1
    assert said[0].startswith("WARNING")
    assert str(path) in said[0]


def test_if_none_is_whole_nothing_is_begun_again(checkpoints: Checkpoints) -> None:
    for path in checkpoints.paths():
        path.write_bytes(b"x")
    with pytest.raises(RunError, match="none of the 2 is whole"):
        checkpoints.load(lambda line: None)


def test_a_file_of_another_library_is_no_checkpoint(checkpoints: Checkpoints) -> None:
    from safetensors.torch import save_file

    save_file(_numbers(7), checkpoints.folder / "step-0000000200.safetensors")
    found = checkpoints.load(lambda line: None)
    assert found is not None
    assert found[1]["step"] == 100


def test_what_is_not_finite_is_not_saved(checkpoints: Checkpoints) -> None:
    before = checkpoints.paths()
    with pytest.raises(RunError, match=r"checkpoint of step 200: average\.weight is not finite"):
        checkpoints.save({"average.weight": torch.tensor([1.0, float("nan")])}, {"step": 200})
    assert checkpoints.paths() == before


def test_a_full_disk_leaves_what_was_there(checkpoints: Checkpoints) -> None:
    before = {path.name: path.read_bytes() for path in checkpoints.paths()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, hard))
    try:
        with pytest.raises(WeightsError, match=r"step-0000000200\.safetensors'\): its 608 bytes cannot be"):
            checkpoints.save(_numbers(200), {"step": 200})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {path.name: path.read_bytes() for path in checkpoints.folder.iterdir()} == before


def _killed_while_saving(folder: Path) -> None:
    from senet import files

    def die(path: Path) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    files._sync = die
    Checkpoints(folder).save(_numbers(200), {"step": 200})


def test_a_kill_inside_a_save_leaves_what_was_there_and_an_orphan_that_is_swept(
    checkpoints: Checkpoints,
) -> None:
    before = checkpoints.paths()
    child = get_context("fork").Process(target=_killed_while_saving, args=(checkpoints.folder,))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert checkpoints.paths() == before
    assert len(list(checkpoints.folder.glob(".*.tmp"))) == 1
    sweep(checkpoints.folder)
    assert sorted(checkpoints.folder.iterdir(), reverse=True) == before


def test_a_damaged_one_is_not_one_of_the_two_that_are_kept(checkpoints: Checkpoints) -> None:
    checkpoints.paths()[0].write_bytes(b"x")
    checkpoints.save(_numbers(30), {"step": 30})
    assert [path.name for path in checkpoints.paths()] == [
        "step-0000000030.safetensors",
        "step-0000000020.safetensors",
    ]
