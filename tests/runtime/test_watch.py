import contextlib
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.together import together
from torch.multiprocessing.spawn import ProcessExitedException

from senet.errors import RunError
from senet.runtime import watch as module
from senet.runtime.processes import joined
from senet.runtime.watch import Watch, is_of_others, note, undisturbed

CPU = torch.device("cpu")


def _told(folder: Path, act: Callable[[int], None], timeout: float) -> None:
    """Two steps together, then ``act``, then a third; how each process ends, and when."""
    rank, began = int(os.environ["RANK"]), time.monotonic()
    said = "ended well"
    try:
        with joined(CPU, timeout) as processes:
            for step in (1, 2, 3):
                note("computes", step=step)
                if step == 3:
                    began = time.monotonic()
                    act(rank)
                processes.total(torch.ones(1))
    except RunError as error:
        said = str(error)
    except ZeroDivisionError as error:
        said = f"its own: {error}"
    found = {"said": said, "seconds": time.monotonic() - began}
    (folder / f"{rank}.json").write_text(json.dumps(found))


def _sleep(rank: int) -> None:
    if rank == 1:
        note("reads a book")
        time.sleep(600)


def _divide(rank: int) -> None:
    if rank == 2:
        _ = 1 / 0


def _nothing(rank: int) -> None:
    pass


def ends(
    folder: Path, act: Callable[[int], None], *, count: int = 3, timeout: float = 60.0
) -> dict[int, tuple[str, float]]:
    together(count, _told, folder, act, timeout)
    found = {int(path.stem): json.loads(path.read_text()) for path in folder.iterdir()}
    return {rank: (each["said"], each["seconds"]) for rank, each in found.items()}


def test_all_is_well(tmp_path: Path) -> None:
    assert {said for said, _ in ends(tmp_path, _nothing).values()} == {"ended well"}


def test_one_that_hangs_is_named_by_all_and_itself_within_the_timeout(tmp_path: Path) -> None:
    found = ends(tmp_path, _sleep, timeout=8.0)
    assert found.keys() == {0, 1, 2}
    for rank, (said, seconds) in found.items():
        assert f"here rank {rank} at step 3: rank 1 hangs for" in said
        assert "at step 3 (process" in said
        assert "where it reads a book, in _sleep (runtime/test_watch.py:" in said
        assert seconds < 8 + 5


def test_one_that_fails_is_named_with_its_words(tmp_path: Path) -> None:
    found = ends(tmp_path, _divide)
    assert found[2][0] == "its own: division by zero"
    for rank in (0, 1):
        said, seconds = found[rank]
        assert (
            f"here rank {rank} at step 3: rank 2 failed at step 3: ZeroDivisionError: division by zero"
            in said
        )
        assert seconds < 30, "nobody waits for the timeout"


def test_what_is_of_others() -> None:
    assert is_of_others(RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer"))
    assert is_of_others(RuntimeError("Application timeout caused pair closure"))
    assert is_of_others(torch.distributed.DistNetworkError("..."))
    assert not is_of_others(RuntimeError("out of memory"))
    assert not is_of_others(RunError("gloo"))
    assert not is_of_others(ValueError("gloo"))


class Here:
    """A store in this process, as far as the watch needs one; what it is told of others is given."""

    def __init__(self, others: dict[int, Callable[[], dict[str, object]]], count: int) -> None:
        self.values: dict[str, bytes] = {}
        self.others = others
        self.count = count

    def check(self, keys: list[str]) -> bool:
        return all(key in self.values or self._of_other(key) is not None for key in keys)

    def get(self, key: str) -> bytes:
        told = self._of_other(key)
        return self.values[key] if told is None else told

    def multi_get(self, keys: list[str]) -> list[bytes]:
        return [self.get(key) for key in keys]

    def set(self, key: str, value: str) -> None:
        self.values[key] = value.encode()

    def compare_set(self, key: str, _before: str, value: str) -> None:
        self.values.setdefault(key, value.encode())

    def add(self, key: str, number: int) -> int:
        self.set(key, str(int(self.values.get(key, b"0")) + number))
        return int(self.values[key])

    def _of_other(self, key: str) -> bytes | None:
        kind, _, rank = key.partition("/")
        if kind == "doing" and rank.isdigit() and int(rank) in self.others:
            return json.dumps(self.others[int(rank)]()).encode()
        return None


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
    monkeypatch.setattr(module, "BEAT", 0.01)
    others, wanted = CASES[case]
    store = Here(others, 3)
    watch = Watch(lambda: store, 0, 3)  # type: ignore[arg-type, return-value]
    for number in range(5):
        watch.note("meets the others", step=7, meets=number < 4)
    watch.note("meets the others", meets=True)
    assert watch.doing.met == 5
    error = watch.explained(RuntimeError("gloo: timed out"))
    assert isinstance(error, RunError)
    assert f"the work of 3 processes, here rank 0 at step 7: {wanted}" in str(error)


def test_an_error_of_its_own_stays_and_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Here({}, 2)
    watch = Watch(lambda: store, 1, 2)  # type: ignore[arg-type, return-value]
    watch.note("computes", step=3)
    own = ValueError("no such thing")
    assert watch.explained(own) is own
    assert store.values["verdict"] == b"rank 1 failed at step 3: ValueError: no such thing"
    other = Watch(lambda: store, 0, 2)  # type: ignore[arg-type, return-value]
    assert "rank 1 failed at step 3" in str(other.explained(RuntimeError("gloo")))


def test_without_a_store_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASTER_ADDR", "10.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "7")

    def nowhere() -> Here:
        raise RunError("no answer")

    watch = Watch(nowhere, 1, 2)  # type: ignore[arg-type]
    assert "at 10.0.0.1, port 7, is out of reach" in str(watch.explained(RuntimeError("gloo")))


def _stuck(folder: Path) -> None:
    """As beside GPUs, where nothing that a process waits in tells it."""
    rank = int(os.environ["RANK"])
    with contextlib.suppress(RunError), joined(CPU, 60.0) as processes:
        module._current.longest = 1.5  # type: ignore[union-attr]
        note("computes", step=4)
        try:
            time.sleep(20 * (rank == 1))
            processes.total(torch.ones(1))
        except RunError as error:
            (folder / f"{rank}").write_text(str(error))
            raise


@pytest.mark.slow
def test_where_nothing_else_does_the_watch_ends_a_process_that_hangs(tmp_path: Path) -> None:
    began = time.monotonic()
    # The other waits in gloo, which it may have to be torn out of.
    with contextlib.suppress(ProcessExitedException):
        together(2, _stuck, tmp_path)
    assert time.monotonic() - began < 20
    assert "here rank 1 at step 4: rank 1 hangs for" in (tmp_path / "1").read_text()


def _writes(folder: Path) -> None:
    """One fails while the other writes."""
    with contextlib.suppress(RunError, ZeroDivisionError), joined(CPU, 60.0) as processes:
        if processes.rank == 1:
            _ = 1 / 0
        with undisturbed("writes"):
            time.sleep(5)
            (folder / "written").touch()
        try:
            time.sleep(60)
        except RunError as error:
            (folder / "said").write_text(str(error))
            raise


@pytest.mark.slow
def test_who_writes_is_not_interrupted(tmp_path: Path) -> None:
    together(2, _writes, tmp_path)
    assert (tmp_path / "written").exists()
    assert "rank 1 failed: ZeroDivisionError" in (tmp_path / "said").read_text()


def _deaf(folder: Path) -> None:
    """A process that no signal interrupts, as one in another language's code."""
    with joined(CPU, 60.0) as processes:
        watch = module._current
        assert watch is not None
        watch.longest = 1.0
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
        if processes.rank == 1:
            time.sleep(60)
        processes.total(torch.ones(1))


@pytest.mark.slow
def test_one_that_cannot_be_interrupted_is_ended(tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(Exception, match="exit code 1"):
        together(2, _deaf, tmp_path)
    assert time.monotonic() - began < 30


def _on_gpus(folder: Path) -> None:
    rank = int(os.environ["RANK"])
    device = torch.device("cuda", rank)
    torch.cuda.set_device(device)
    try:
        with joined(device, 20.0) as processes:
            assert processes.any(rank == 1, False) == (True, False)
            if rank == 1:
                time.sleep(600)
            processes.total(torch.ones(1, device=device)).item()
    except RunError as error:
        (folder / f"{rank}").write_text(str(error))


@pytest.mark.gpu
def test_on_gpus_the_watch_comes_before_nccl(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("there are no two GPUs")
    with contextlib.suppress(Exception):  # who waits in NCCL may be ended at once
        together(2, _on_gpus, tmp_path)
    said = capfd.readouterr().err + "".join(path.read_text() for path in tmp_path.iterdir())
    assert said.count("rank 1 hangs for") == 2
