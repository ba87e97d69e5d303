import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from tests.runtime.here import Here
from tests.together import together
from torch.multiprocessing.spawn import ProcessExitedException
from torch.nn.parallel import DistributedDataParallel

from senet.errors import RunError
from senet.runtime import signs
from senet.runtime import watch as module
from senet.runtime.processes import Processes, joined
from senet.runtime.watch import Watch, is_of_others, meeting, note, undisturbed

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


def watch_of(store: object, rank: int = 1, count: int = 2) -> Watch:
    return Watch(lambda: store, rank, count)  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ValueError("no such thing"), "ValueError: no such thing"),
        (EOFError(), "EOFError"),
        (RunError("a run", "it is in use"), "a run: it is in use."),
    ],
)
def test_an_error_of_its_own_stays_and_is_told(error: Exception, words: str) -> None:
    error.__cause__ = OSError(11, "what others need not know")
    store = Here({}, 2)
    watch = watch_of(store)
    watch.note("computes", step=3)
    assert watch.explained(error) is error
    assert store.values["verdict"].decode() == f"rank 1 failed at step 3: {words}"
    assert "rank 1 failed at step 3" in str(watch_of(store, 0).explained(RuntimeError("gloo")))


def test_one_that_fails_waiting_finds_out_why_where_another_had_begun_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for place in (module, signs):
        monkeypatch.setattr(place, "BEAT", 0.01)
    monkeypatch.setattr(module, "_TO_FIND_OUT", 0.1)
    store = Here({}, 2)
    store.add("troubles", 1)
    assert "rank 1 is gone, or cut off" in str(watch_of(store, 0).explained(RuntimeError("gloo")))


def test_without_a_store_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASTER_ADDR", "10.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "7")

    def nowhere() -> Here:
        raise RunError("no answer")

    def said() -> str:
        watch = Watch(nowhere, 1, 2)  # type: ignore[arg-type]
        watch.note(step=4)
        return str(watch.explained(RuntimeError("gloo")))

    shared = "what all processes share, at 10.0.0.1, port 7"
    assert f"rank 0 is gone, or cut off at step 4: it has {shared}" in said()
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    assert f"{shared}, is out of reach: that host is gone" in said()


def test_a_store_whose_host_is_silent_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TO_TELL", 0.2)
    over = threading.Event()

    def silent() -> Any:
        over.wait(60)
        raise RuntimeError("Connection reset by peer")

    began, own = time.monotonic(), ValueError("its own")
    assert "is out of reach" in str(Watch(silent, 1, 2).explained(RuntimeError("gloo")))
    assert Watch(silent, 1, 2).explained(own) is own
    assert time.monotonic() - began < 5
    over.set()


def test_what_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = watch_of(Here({}, 2))
    monkeypatch.setattr(module, "_current", watch)
    note("computes", step=3)
    with meeting():
        assert watch.doing[:4] == (3, "meets the others", 1, True)
    assert watch.doing[:4] == (3, "computes", 1, False)
    note(step=4)
    assert watch.doing[:4] == (4, "computes", 1, False)
    watch.done()
    assert watch.doing[:4] == (4, "waits for the others to be done", 2, True)


def _joined_as_on_gpus(longest: float) -> contextlib.AbstractContextManager[Processes]:
    """Where nothing that a process waits in tells it, but the watch's own clock."""
    watches = "senet.runtime.processes.Watch"
    mock.patch(watches, lambda connect, rank, count, _: Watch(connect, rank, count, longest)).start()
    return joined(CPU, 60.0)


def _stuck(folder: Path) -> None:
    rank = int(os.environ["RANK"])
    with contextlib.suppress(RunError), _joined_as_on_gpus(1.5) as processes:
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


def _hears_only_the_second(folder: Path) -> None:
    """The signal comes in vain at first, as just before a process begins to wait."""
    store = Here({}, 2)
    store.set("verdict", "rank 0 failed")
    send, sent = signal.pthread_kill, []

    def lost_at_first(thread: int, number: int) -> None:
        sent.append(number)
        if len(sent) > 1:
            send(thread, number)

    with mock.patch.object(signal, "pthread_kill", lost_at_first), watch_of(store):
        with pytest.raises(RunError, match="rank 0 failed"):
            time.sleep(60)
        # It has been interrupted: what it does now to end is not.
        time.sleep(1)
    (folder / "sent").write_text(str(len(sent)))


def test_one_that_a_signal_misses_is_interrupted_by_the_next(tmp_path: Path) -> None:
    together(1, _hears_only_the_second, tmp_path)
    assert (tmp_path / "sent").read_text() == "2"


def _busy(folder: Path) -> None:
    """The first does more than the others, as who writes a report does."""
    with _joined_as_on_gpus(1.0) as processes:
        processes.total(torch.ones(1))
        time.sleep(5 * processes.leads)
    (folder / f"{processes.rank}").touch()


@pytest.mark.slow
def test_who_is_done_holds_nobody_for_hanging(tmp_path: Path) -> None:
    together(3, _busy, tmp_path)
    assert len(list(tmp_path.iterdir())) == 3


def _deaf(folder: Path) -> None:
    """A process that no signal interrupts, as one in another language's code."""
    with _joined_as_on_gpus(1.0) as processes:
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


def _stops_the_first(folder: Path) -> None:
    """The first has the store: nothing that is asked of it is answered."""
    rank, first = os.environ["RANK"], 0
    try:
        with joined(CPU, 6.0) as processes:
            first = processes.gather(os.getpid())[0]
            note("computes", step=2)
            if processes.leads:
                os.kill(first, signal.SIGSTOP)
            began = time.monotonic()
            processes.total(torch.ones(1))
    except RunError as error:
        (folder / rank).write_text(str(error))
        assert rank == "0" or time.monotonic() - began < 30
    finally:
        os.kill(first, signal.SIGCONT)


@pytest.mark.slow
def test_the_first_stops_and_with_it_what_all_share(tmp_path: Path) -> None:
    together(3, _stops_the_first, tmp_path)
    for rank in (1, 2):
        assert "rank 0 is gone, or cut off at step 2: it has what all" in (tmp_path / f"{rank}").read_text()


def _on_gpus(folder: Path) -> None:
    """Steps of a network that adds up its gradients by NCCL; one process comes to the first alone."""
    rank = int(os.environ["RANK"])
    device = torch.device("cuda", rank)
    try:
        with joined(device, 20.0) as processes:
            assert torch.cuda.current_device() == rank
            assert processes.any(rank == 1, False) == (True, False)
            network = DistributedDataParallel(torch.nn.Linear(4, 1).to(device), device_ids=[rank])
            for step in (1, 2):
                note("computes", step=step)
                if rank == 1 and step == 2:
                    time.sleep(600)
                loss = network(torch.ones(2, 4, device=device)).sum()
                loss.backward()
                with meeting("waits for the gradients"):
                    torch.nn.utils.get_total_norm(network.parameters()).item()
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
