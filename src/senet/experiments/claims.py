"""Cells shared by processes, of one machine or of many, so that none is run twice.

Each cell has a history: a folder of entries named 1, 2, 3, ... The last one counts, and says that the cell is
taken and by whom, or how that ended::

    claims/KEY/1   taken by a      a is killed
               2   taken by b      who found that a is gone; b is interrupted
               3   released
               4   taken by c
               5   done

An entry appears whole, and only if no other has its number: nothing more is asked of the file system, and
network file systems keep that too, where locks may fail. Nothing is changed or removed. Who takes a cell over
writes the very number with which its owner would have ended it: one of the two does, however long it slept.

A living owner touches its entry. The age of that is by the clock of the file system: clocks of two machines
are never compared. On one machine no age is needed: there a process is seen to be gone at once, and one that
merely sleeps, as all do on a laptop that is closed, keeps its cell.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

from senet.errors import InUseError, RunError, SenetError, StoppedError
from senet.experiments.owner import Owner

# Seconds between two looks at the parent, two writings of progress, two questions for the file system's time.
_TICK = 2.0

# What file systems without hard links answer.
_NO_LINKS = {errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}

# What is not the cell's fault. A run folder is in use where the last owner, on another machine, slept so long
# that the cell was taken from it, and has yet to wake and learn that.
_RELEASING = (KeyboardInterrupt, SystemExit, StoppedError, InUseError)


class Phase(StrEnum):
    """Where a cell is: open to whoever takes it, running, failed and not tried again unasked, or done."""

    OPEN = "open"
    RUNNING = "running"
    FAILED = "failed"
    DONE = "done"


@dataclass(frozen=True)
class State:
    """What is known of a cell.

    Args:
        phase: where it is.
        owner: of one that runs: host and process.
        progress: of one that runs: what its owner last told.
        age: of one that runs: seconds since its owner last showed that it lives.
        why: of one that failed.
    """

    phase: Phase
    owner: str = ""
    progress: Mapping[str, Any] = field(default_factory=dict)
    age: float = 0.0
    why: str = ""


def stop() -> None:
    """SIGTERM to this process: a run then saves what it has and ends."""
    os.kill(os.getpid(), signal.SIGTERM)


class Claims:
    """The claims on cells in a folder that processes share.

    Args:
        folder: where they lie; made when the first cell is taken.
        beat: seconds between two signs of life.
        patience: seconds without one after which an owner on another machine counts as gone: several beats,
            and more than the 60 s for which a network file system may show an old time.
        parent: the process that this one works for; when that is gone, ``orphaned`` is called.
        since: a time of ``time.monotonic``, which is one for all processes of a machine: what fails later is
            not retried. Now, if None.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        beat: float = 10.0,
        patience: float = 300.0,
        parent: int | None = None,
        since: float | None = None,
    ) -> None:
        self.folder, self.parent = Path(folder), parent
        self.beat, self.patience = beat, patience
        self.since = time.monotonic() if since is None else since
        self._entries: dict[Path, dict[str, Any]] = {}
        self._time = 0.0, -_TICK  # of the file system, and ours at that moment

    def take(
        self,
        key: str,
        retry: bool = False,
        *,
        lost: Callable[[], None] = stop,
        orphaned: Callable[[], None] = stop,
    ) -> Claim | None:
        """Takes a cell; None where it is done, has failed, runs elsewhere, or another was first.

        Who takes a cell first looks for its result: the last owner may have been killed before it could say
        that it is done.

        Args:
            key: of the cell; a file name.
            retry: whether to take it also if it failed, before ``since``; not later, so that processes that
                retry do not hand each other a cell that always fails.
            lost: called, in another thread, when the cell has been taken over because this process slept,
                or when no sign of life can be written.
            orphaned: called, likewise, when the parent is gone.

        Raises:
            RunError: the folder cannot be read or written.
        """
        with _told(f"taking the cell {key}"):
            number, entry = self._last(key)
            phase = self._state(key, number, entry).phase
            if phase is Phase.FAILED and retry:
                age = self._now() - self._path(key, number).stat().st_mtime
                phase = Phase.OPEN if age > time.monotonic() - self.since else phase
            if phase is not Phase.OPEN:
                return None
            path = self._path(key, number + 1)
            path.parent.mkdir(parents=True, exist_ok=True)
            if not _append(path, entry="taken", owner=asdict(Owner.here())):
                return None
            return Claim(self, path, lost, orphaned)

    def state(self, key: str) -> State:
        """Where a cell is: one look at its folder, and two at files of it where it runs.

        Raises:
            RunError: the folder cannot be read, or, where a cell runs, not written.
        """
        with _told(f"the state of the cell {key}"):
            return self._state(key, *self._last(key))

    def reopen(self, key: str) -> None:
        """Opens a cell that is done or has failed: one whose result somebody has removed.

        Raises:
            RunError: the folder cannot be read or written.
        """
        with _told(f"opening the cell {key} again"):
            number, entry = self._last(key)
            if self._state(key, number, entry).phase in (Phase.DONE, Phase.FAILED):
                _append(self._path(key, number + 1), entry="released")

    def _last(self, key: str) -> tuple[int, dict[str, Any]]:
        """The last entry and its number; 0 where there is none."""
        try:
            names = os.listdir(self.folder / key)
        except FileNotFoundError:
            names = []
        number = max((int(name) for name in names if name.isdecimal()), default=0)
        path = self._path(key, number)
        if number and path not in self._entries:
            try:
                self._entries[path] = json.loads(path.read_text(encoding="utf-8"))
            except ValueError:  # on a file system without links, and its owner is just writing it
                return number, {"entry": "taken"}
        return number, self._entries.get(path, {"entry": "released"})

    def _state(self, key: str, number: int, entry: Mapping[str, Any]) -> State:
        match entry["entry"]:
            case "done":
                return State(Phase.DONE)
            case "failed":
                return State(Phase.FAILED, why=entry["why"])
            case "released":
                return State(Phase.OPEN)
        path, progress = self._path(key, number), {}
        owner = Owner(**entry["owner"]) if "owner" in entry else None
        age = max(0.0, self._now() - path.stat().st_mtime)
        alive = owner.is_alive() if owner else None
        if alive is False or (alive is None and age > self.patience):
            return State(Phase.OPEN)
        with contextlib.suppress(FileNotFoundError, ValueError):
            progress = json.loads(_progress(path).read_text(encoding="utf-8"))
        return State(Phase.RUNNING, str(owner or "unknown"), progress, age)

    def _path(self, key: str, number: int) -> Path:
        return self.folder / key / str(number)

    def _now(self) -> float:
        """The time of the file system."""
        there, here = self._time
        if time.monotonic() - here >= _TICK:
            clock = self.folder / ".clock"
            clock.touch()
            there, here = self._time = clock.stat().st_mtime, time.monotonic()
        return there + time.monotonic() - here


class Claim:
    """A cell that this process has, made by ``Claims.take``.

    A ``with`` block that is left before the cell was ended releases it: at its end, or by KeyboardInterrupt,
    SystemExit, StoppedError or InUseError. Any other exception is a failure of the cell.
    """

    def __init__(
        self, claims: Claims, path: Path, lost: Callable[[], None], orphaned: Callable[[], None]
    ) -> None:
        self.is_lost = False
        self._claims, self._path = claims, path
        self._next = path.with_name(str(int(path.name) + 1))
        self._lost, self._orphaned = lost, orphaned
        self._facts: dict[str, Any] = {}
        self._text = self._told = "{}"
        self._beaten = time.monotonic() - claims.beat
        self._ended = False
        self._over = threading.Event()
        self._heart = threading.Thread(target=self._live, name=f"claim {path.parent.name}", daemon=True)
        self._heart.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if error is None or isinstance(error, _RELEASING):
            self.release()
        else:
            self.fail_by(error)

    def progress(self, **facts: Any) -> None:
        """Takes numbers and words by name, for others to see; another thread writes them soon."""
        self._facts |= facts
        self._text = json.dumps(self._facts)

    def check(self) -> None:
        """Raises RunError where the cell has been taken over: to ask before writing what counts."""
        with _told(f"the cell {self._path.parent.name}"):
            self.is_lost = self.is_lost or (not self._ended and self._next.exists())
        if self.is_lost:
            raise RunError(
                f"the cell {self._path.parent.name}",
                found=f"this process has lost it: others saw no sign of life for {self._claims.patience:g} s",
                do="Nothing is to be done: they go on from its last checkpoint.",
            )

    def done(self) -> None:
        """Ends it, when its result is written.

        Raises:
            RunError: it has been taken over, or the folder cannot be written.
        """
        self._end(entry="done")
        self.check()

    def fail(self, why: str) -> None:
        """Ends it: it failed. Nothing, where it has ended or was taken over."""
        self._end(entry="failed", why=why)

    def fail_by(self, error: BaseException) -> None:
        """Ends it by the error that failed it."""
        self.fail(str(error) if isinstance(error, SenetError) else f"{type(error).__name__}: {error}")

    def release(self) -> None:
        """Ends it: anybody may go on with it. Nothing, where it has ended or was taken over."""
        self._end(entry="released")

    def _end(self, **entry: str) -> None:
        if self._ended or self.is_lost:
            return
        self._over.set()
        self._heart.join()
        with _told(f"ending the cell {self._path.parent.name}"):
            self.is_lost = not _append(self._next, **entry)
        self._ended = True

    def _live(self) -> None:
        """Shows that this process lives and tells its progress, until the end, or until the cell is lost."""
        parent = self._claims.parent
        while not self._over.is_set():
            if parent is not None and os.getppid() != parent:
                parent = None
                self._orphaned()
            with contextlib.suppress(OSError):  # nothing hangs on it
                self._tell()
            if time.monotonic() - self._beaten >= self._claims.beat and not self._beat():
                self.is_lost = True
                self._lost()
                return
            self._over.wait(min(_TICK, self._claims.beat))

    def _beat(self) -> bool:
        """Shows that this process lives; whether the cell is still its own."""
        now = time.monotonic()
        try:
            if self._next.exists():
                return False
            os.utime(self._path)
        except FileNotFoundError:  # somebody has removed all of it
            return False
        except OSError:
            return now - self._beaten < self._claims.patience / 2
        self._beaten = now
        return True

    def _tell(self) -> None:
        text = self._text
        if text != self._told:
            temporary = self._path.with_name(f".{self._path.name}.tmp")
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(_progress(self._path))
            self._told = text


def _append(path: Path, **entry: Any) -> bool:
    """Writes an entry whole; whether it was the first of its number."""
    mark = secrets.token_hex(8)
    text = json.dumps(entry | {"mark": mark})
    temporary = path.with_name(f".{mark}.tmp")
    temporary.write_text(text, encoding="utf-8")
    try:
        os.link(temporary, path)
    except FileExistsError:
        # A network file system may have done it, and asked again when the answer was lost.
        return path.read_text(encoding="utf-8") == text
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        return _create(path, text)
    finally:
        temporary.unlink(missing_ok=True)
    return True


def _create(path: Path, text: str) -> bool:
    """Writes a file that was not there; whether it was not."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        return False
    return True


def _progress(path: Path) -> Path:
    return path.with_name(f"{path.name}.progress")


@contextlib.contextmanager
def _told(asked: str) -> Iterator[None]:
    """Tells of the folder's errors as ours."""
    try:
        yield
    except OSError as error:
        raise RunError(
            asked,
            found=f"the folder of claims cannot be used ({error})",
            do="Make room, or choose another folder with --out.",
        ) from error
