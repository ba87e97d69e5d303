import json
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.runtime.here import Here

from senet.runtime import signs
from senet.runtime.signs import Doing, at, found_out, sign_of


def sign(**values: object) -> Callable[[], dict[str, object]]:
    """A sign of life that is another one each time."""
    usual = {"step": 7, "what": "computes", "met": 5, "for": 9.0, "where": "f (a/b.py:1)", "waits": False}
    beats = iter(range(1000))
    return lambda: {**usual, "who": "process 1 on a", "beats": next(beats), **values}


CASES: dict[str, tuple[dict[int, Callable[[], dict[str, object]]], str]] = {
    "silent": (
        {1: sign(), 2: sign(beats=3)},
        "rank 2 is gone, or cut off at step 7, last heard of at step 7",
    ),
    "never heard of": ({1: sign()}, "rank 2 is gone, or cut off at step 7"),
    "both": ({}, "ranks 1, 2 are gone, or cut off"),
    "behind": ({1: sign(met=4, waits=True, step=6), 2: sign()}, "rank 1 hangs for 9 s at step 6"),
    "does not wait": ({1: sign(waits=True), 2: sign(what="reads")}, "rank 2 hangs for 9 s at step 7"),
    "two of them": ({1: sign(), 2: sign()}, "ranks 1, 2 hang for 9 s"),
}


@pytest.mark.parametrize("case", CASES)
def test_who_is_to_blame(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signs, "BEAT", 0.01)
    others, wanted = CASES[case]
    own = sign_of(Doing(7, "meets the others", 5, True, time.monotonic()), threading.current_thread(), 0)
    store: Any = Here(others, 3)
    assert found_out(store, 0, 3, own, 7).startswith(wanted)


def sign_in(file: str, doing: Doing) -> dict[str, Any]:
    """The sign of a process that is in the second line of a function of that file."""
    over: list[bool] = []
    made: dict[str, Any] = {"over": over, "sleep": time.sleep}
    exec(compile("def works():\n    while not over: sleep(0.01)", file, "exec"), made)
    worker = threading.Thread(target=made["works"])
    worker.start()
    time.sleep(0.1)
    found = dict(json.loads(sign_of(doing, worker, 3)))
    over.append(True)
    worker.join()
    return found


def test_a_sign_says_what_is_done_and_where() -> None:
    found = sign_in("/home/me/data/read.py", Doing(3, "reads", 2, False, time.monotonic() - 9))
    assert found["where"] == "works (data/read.py:2)"
    assert (found["beats"], found["step"], found["what"], found["met"]) == (3, 3, "reads", 2)
    assert 9 <= found["for"] < 60


@pytest.mark.parametrize(
    ("file", "noted", "waits"),
    [
        (f"{torch.__path__[0]}/distributed/distributed_c10d.py", False, True),
        (f"{torch.__path__[0]}/autograd/graph.py", False, True),
        (f"{torch.__path__[0]}/nn/parallel/distributed.py", False, True),
        (f"{torch.__path__[0]}/nn/modules/conv.py", False, False),
        ("/home/me/distributed/disk.py", False, False),
        ("/home/me/distributed/disk.py", True, True),
    ],
)
def test_who_waits_has_noted_it_or_is_where_pytorch_does(file: str, noted: bool, waits: bool) -> None:
    assert sign_in(file, Doing(waits=noted))["waits"] == waits


def test_the_step_for_people() -> None:
    assert at(None) == ""
    assert at(7) == " at step 7"
