import contextlib
import json
import os
import threading
import time
from pathlib import Path

import pytest
import torch
from tests.together import together
from torch._C._distributed_c10d import TCPStore

from senet.errors import RunError
from senet.runtime.processes import ALONE, Processes, _wait_for_all, joined


def test_alone_everything_is_ones_own() -> None:
    with joined(torch.device("cpu")) as processes:
        assert processes == ALONE == Processes(0, 1)
        assert processes.leads
        assert processes.total(torch.tensor([2.0])).tolist() == [2.0]
        assert processes.any(False, True) == (False, True)
        assert processes.gather("x") == ["x"]
        assert processes.from_first("x") == "x"
    assert not torch.distributed.is_initialized()


def _agree(folder: Path) -> None:
    with joined(torch.device("cpu")) as processes:
        rank = processes.rank
        weights = torch.full((2,), float(rank))
        processes.spread([weights])
        found = {
            "count": processes.count,
            "leads": processes.leads,
            "total": processes.total(torch.tensor([rank + 1.0])).tolist(),
            "any": processes.any(rank == 2, False),
            "gather": processes.gather(rank * 10),
            "first": processes.from_first(f"of {rank}"),
            "spread": weights.tolist(),
        }
        with joined(torch.device("cpu")) as again:
            assert again == processes
        assert torch.distributed.is_initialized(), "who joined is who leaves"
    assert not torch.distributed.is_initialized()
    (folder / f"{rank}.json").write_text(json.dumps(found))


def test_three_processes_agree(tmp_path: Path) -> None:
    together(3, _agree, tmp_path)
    every = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(3)]
    assert [each.pop("leads") for each in every] == [True, False, False]
    wanted = {
        "count": 3,
        "total": [6.0],
        "any": [True, False],
        "gather": [0, 10, 20],
        "first": "of 0",
        "spread": [0.0, 0.0],
    }
    assert every == [wanted] * 3


def _leave(folder: Path) -> None:
    with joined(torch.device("cpu")) as processes:
        processes.total(torch.ones(1))
        time.sleep(0.5 * processes.rank)
        done = time.monotonic()
    (folder / f"{processes.rank}.json").write_text(json.dumps([done, time.monotonic()]))
    # An interpreter that ends while one of them is in PyTorch is ended by it.
    assert not [each.name for each in threading.enumerate() if each.name.startswith("senet")]


def test_nobody_leaves_before_all_are_done_and_then_at_once(tmp_path: Path) -> None:
    together(3, _leave, tmp_path)
    done, left = zip(*(json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(3)), strict=True)
    assert min(left) >= max(done)
    assert max(left) < max(done) + 1


def seconds_of_waiting(store: TCPStore, *, is_well: bool) -> float:
    began = time.monotonic()
    _wait_for_all(store, 2, 0.6, is_well=is_well)
    return time.monotonic() - began


def test_who_is_done_waits_until_all_are_or_one_has_failed_or_for_as_long_as_it_was_told() -> None:
    store = TCPStore("127.0.0.1", 0, is_master=True)
    assert 0.6 <= seconds_of_waiting(store, is_well=True) < 1.1, "the other is not there yet"
    assert seconds_of_waiting(store, is_well=True) < 0.5, "now two have been"
    store = TCPStore("127.0.0.1", 0, is_master=True)
    store.set("verdict", "rank 1 failed")
    assert seconds_of_waiting(store, is_well=True) < 0.5
    store.delete_key("done")
    assert seconds_of_waiting(store, is_well=False) >= 0.6, "the other may be hearing of it from here"


def _fail(folder: Path) -> None:
    rank, began = os.environ["RANK"], time.monotonic()
    with contextlib.suppress(ZeroDivisionError), joined(torch.device("cpu")) as processes:
        processes.total(torch.ones(1))
        _ = 1 / processes.rank
    (folder / f"{rank}.json").write_text(json.dumps(time.monotonic() - began))


def test_nobody_waits_for_one_that_failed(tmp_path: Path) -> None:
    together(2, _fail, tmp_path)
    assert all(json.loads((tmp_path / f"{rank}.json").read_text()) < 60 for rank in range(2))


def _on_no_interface(folder: Path) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "nowhere7"
    with pytest.raises(
        RunError, match=r"do not reach each other \(.*nowhere7.*\)\. Name the network interface"
    ):
        joined(torch.device("cpu"), 20.0).__enter__()
    (folder / os.environ["RANK"]).touch()


def test_an_interface_that_is_not_there(tmp_path: Path) -> None:
    together(2, _on_no_interface, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"0", "1"}, "both were told"
