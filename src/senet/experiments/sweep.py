"""Many cells: worker processes that take them, and the one that watches over these.

Each worker is a process of its own, so that what kills a run (no memory, a fault of a driver) does not kill
the others. Started by ``torchrun``, its processes do one cell after the other together.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from senet.errors import InUseError, RunError, StoppedError
from senet.experiments.cells import Cell
from senet.experiments.claims import Claim, Claims, Phase
from senet.experiments.progress import Board
from senet.experiments.worker import read_result, run_cell
from senet.runtime.processes import ALONE, Processes

# A cell whose process died so often is not tried again.
_MOST_DEATHS = 3
_LOOK_SECONDS = 0.5
# Until cells that others run are looked at again.
_WAIT_SECONDS = 2.0


def sweep(
    cells: Sequence[Cell],
    out: Path,
    *,
    jobs: int = 1,
    retry: bool = False,
    say: Callable[[str], None] = lambda line: None,
    processes: Processes = ALONE,
) -> None:
    """Runs the cells that are not done and have not failed; by itself it waits for those that others run.

    Args:
        cells: in the order in which they are taken.
        out: the folder of the experiments.
        jobs: cells at once, each in a process of its own.
        retry: whether those that have failed before are run again.
        say: takes the lines for people.
        processes: of ``torchrun``; together they do one cell at a time, and ``jobs`` is without effect.

    Raises:
        StoppedError: SIGTERM asked for it; what ran is saved.
        KeyboardInterrupt: likewise, by Ctrl-C.
        RunError: the folder cannot be used.
    """
    claims = claims_in(out)
    if processes.leads:
        for cell in cells:  # done, and somebody has removed the result since
            if claims.state(cell.key).phase is Phase.DONE and read_result(cell, out) is None:
                claims.reopen(cell.key)
    if processes.count > 1:
        _together(cells, out, retry, processes, say)
    elif retry or not _over(cells, claims):
        _Overseer(cells, out, jobs, retry, say).run()
    else:
        say(f"{len(cells)} of {len(cells)} cells are over already")


def claims_in(out: Path, *, parent: int | None = None, since: float | None = None) -> Claims:
    """The claims on the cells of the experiments in a folder."""
    return Claims(out / "claims", parent=parent, since=since)


class _Overseer:
    """Keeps ``jobs`` workers at work, and tells how far they are."""

    def __init__(
        self,
        cells: Sequence[Cell],
        out: Path,
        jobs: int,
        retry: bool,
        say: Callable[[str], None],
    ) -> None:
        self.cells, self.out, self.retry, self.say = cells, out, retry, say
        self.claims = claims_in(out)
        self.jobs = min(jobs, len(cells))
        self.deaths: Counter[str] = Counter()
        self.asked: int | None = None
        # Of a worker that died before it took a cell.
        self.lost = ""

    def run(self) -> None:
        """Until no cell is left that can be taken."""
        before = signal.signal(signal.SIGTERM, self._note)
        workers: dict[int, _Worker] = {}
        try:
            with Board(self.cells, self.out, self.claims, self.say) as board:
                workers |= {number: _Worker(number, self) for number in range(self.jobs)}
                while workers and self.asked is None:
                    time.sleep(_LOOK_SECONDS)
                    board.refresh()
                    for number, worker in list(workers.items()):
                        if not worker.process.is_alive():
                            del workers[number]
                            if worker.process.exitcode and self._mourn(worker):
                                workers[number] = _Worker(number, self)
                board.refresh(now=True)
        finally:
            self._end(workers.values())
            signal.signal(signal.SIGTERM, before)
        if self.asked is not None:
            raise StoppedError(
                f"experiments in {str(self.out)!r}",
                found="SIGTERM asked for their end; what ran is saved",
                do="The same command goes on from there.",
            )
        if self.lost and not _over(self.cells, self.claims):
            raise RunError(
                f"experiments in {str(self.out)!r}",
                self.lost,
                do="Mend what ends it; the same command goes on.",
            )

    def _mourn(self, worker: _Worker) -> bool:
        """Takes note of a worker that died; whether another shall take its place."""
        cause = _cause(worker.process.exitcode)
        cell = worker.cell
        if cell is None:  # it died before it took any, and so would the next
            self.lost = f"{worker.process.name} died {cause}, before it did anything"
            return False
        self.deaths[cell.key] += 1
        if self.deaths[cell.key] == _MOST_DEATHS and (claim := self.claims.take(cell.key)):
            claim.fail(f"its process died {_MOST_DEATHS} times, the last {cause}")
        return True

    def _end(self, workers: Collection[_Worker]) -> None:
        """Lets the workers save what they do; a second Ctrl-C ends them at once."""
        for worker in workers:
            if worker.process.is_alive():
                worker.process.terminate()
        try:
            for worker in workers:
                worker.process.join()
        except KeyboardInterrupt:
            for worker in workers:
                worker.process.kill()
            raise

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.asked = number


class _Worker:
    """A process that does cells.

    Args:
        number: of this worker, from 0.
        overseer: whose it is.
    """

    def __init__(self, number: int, overseer: _Overseer) -> None:
        # A fresh interpreter: a fork of a process that has used autograd, or a GPU, is of no use.
        context = multiprocessing.get_context("spawn")
        self.cells = overseer.cells
        self.place = context.Value("i", -1, lock=False)
        since = overseer.claims.since if overseer.retry else None
        self.process = context.Process(
            target=work,
            args=(self.cells, overseer.out, since, number, overseer.jobs, os.getpid(), self.place),
            name=f"worker {number + 1}",
        )
        self.process.start()

    @property
    def cell(self) -> Cell | None:
        """The cell that it has; None before the first."""
        return None if self.place.value < 0 else self.cells[self.place.value]


def work(
    cells: Sequence[Cell], out: Path, since: float | None, number: int, jobs: int, parent: int, place: Any
) -> None:
    """What a worker does: one cell after the other.

    Args:
        cells: all of them.
        out: the folder of the experiments.
        since: cells that failed before are tried again (``Claims``); none, if it is None.
        number: of this worker, from 0.
        jobs: how many workers there are.
        parent: the process that watches over it, without which it saves and ends.
        place: takes the number of the cell that it has.
    """
    signal.signal(signal.SIGTERM, _raise_stopped)
    _share_cores(jobs)
    claims = claims_in(out, parent=parent, since=since)
    try:
        for place.value, cell in _turns(cells, claims):
            claim = claims.take(cell.key, since is not None, lost=_leave)
            if claim is not None:
                with _logging(out / "logs" / f"{cell.key}.txt"), claim:
                    _run(_placed(cell, number, jobs), out, claim)
    except StoppedError:
        sys.exit(128 + signal.SIGTERM)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


def _run(cell: Cell, out: Path, claim: Claim) -> None:
    """Does a cell to its end; what fails it does not fail the others."""
    try:
        if read_result(cell, out) is None:
            run_cell(cell, out, tell=claim.progress, say=partial(print, flush=True))
        claim.done()
    except StoppedError:
        raise
    except InUseError as error:
        print(error, flush=True)
        claim.release()
    except Exception as error:
        traceback.print_exc()
        claim.fail_by(error)


def _together(
    cells: Sequence[Cell], out: Path, retry: bool, processes: Processes, say: Callable[[str], None]
) -> None:
    """One cell after the other in all processes; the first of them claims. An error ends them all."""
    claims = claims_in(out)
    # They do not wait for cells that run elsewhere: the others would wait for the first too long.
    turns = iter(enumerate(cells))
    while True:
        # The first of them decides what is next, and whether anything is.
        claim, place = _next(turns, claims, retry) if processes.leads else (None, None)
        place = processes.from_first(place)
        if place is None:
            return
        cell = cells[place]
        with contextlib.nullcontext() if claim is None else claim:
            tell = _untold if claim is None else claim.progress
            if processes.from_first(claim is not None and read_result(cell, out) is None):
                run_cell(cell, out, tell=tell, say=say, processes=processes)
            if claim is not None:
                claim.done()


def _next(turns: Iterator[tuple[int, Cell]], claims: Claims, retry: bool) -> tuple[Claim | None, int | None]:
    """The next cell that can be had, and its number; None where there is no other."""
    for place, cell in turns:
        claim = claims.take(cell.key, retry)
        if claim is not None:
            return claim, place
    return None, None


def _turns(cells: Sequence[Cell], claims: Claims) -> Iterator[tuple[int, Cell]]:
    """The cells with their numbers, again and again until all are over: who runs one elsewhere may die."""
    yield from enumerate(cells)
    while not _over(cells, claims):
        time.sleep(_WAIT_SECONDS)
        yield from enumerate(cells)


def _over(cells: Sequence[Cell], claims: Claims) -> bool:
    """Whether every cell is done or has failed."""
    return all(claims.state(cell.key).phase in (Phase.DONE, Phase.FAILED) for cell in cells)


@contextlib.contextmanager
def _logging(path: Path) -> Iterator[None]:
    """Sends all that this process and its own print to a file, at its end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = [os.dup(stream) for stream in (1, 2)]
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        for stream in (1, 2):
            os.dup2(file, stream)
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for stream, before in zip((1, 2), kept, strict=True):
            os.dup2(before, stream)
            os.close(before)
        os.close(file)


def _placed(cell: Cell, number: int, jobs: int) -> Cell:
    """The cell on this worker's GPU, where there are several and none is named."""
    import torch

    gpus = torch.cuda.device_count()
    if jobs == 1 or gpus < 2 or cell.config.device not in ("auto", "cuda"):
        return cell
    return replace(cell, config=replace(cell.config, device=f"cuda:{number % gpus}"))


def _share_cores(jobs: int) -> None:
    import torch

    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, torch.get_num_threads() // jobs))


def _leave() -> None:
    """Ends this process at once: another has its cell, and what is written now would be in its way."""
    os._exit(os.EX_TEMPFAIL)


def _raise_stopped(_number: int, _frame: FrameType | None) -> None:
    raise StoppedError("a worker of experiments", "SIGTERM asked for its end")


def _cause(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        name = signal.Signals(-exitcode).name
        return f"by {name}" + (", as where memory runs out" if name == "SIGKILL" else "")
    return f"with exit status {exitcode}"


def _untold(**_facts: Any) -> None:
    pass
