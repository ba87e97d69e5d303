"""When a process that trains is killed, by itself and to the step or the file operation."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch

from senet.training.classification import Classification


@dataclass(frozen=True)
class At:
    """Does something once, when a step begins.

    Args:
        step: from 0, over the whole run; -1 is before anything.
        act: what is done.
    """

    step: int
    act: Callable[[], None]

    def __call__(self) -> None:
        """Waits for the step."""
        if self.step < 0:
            self.act()
            return
        job_class: Any = Classification
        inputs, waiting = job_class.inputs, [self.act]

        def noticing(job: Classification, *args: Any) -> Any:
            if waiting and job.state.step >= self.step:
                waiting.pop()()
            return inputs(job, *args)

        job_class.inputs = noticing


@dataclass(frozen=True)
class DieLater:
    """SIGKILL some seconds from now, wherever the process is then."""

    seconds: float

    def __call__(self) -> None:
        """Sets the clock."""

        def wait() -> None:
            time.sleep(self.seconds)
            die()

        threading.Thread(target=wait, daemon=True).start()


@dataclass(frozen=True)
class DieWriting:
    """SIGKILL in the so-manieth operation on files from now, from 1.

    A file that is written is written by half; each of the six or seven operations of one save counts.
    """

    operation: int

    def __call__(self) -> None:
        """Begins to count."""
        left = [self.operation]

        def dies() -> bool:
            left[0] -= 1
            return left[0] == 0

        def before(call: Any) -> Any:
            def dying(*args: Any, **options: Any) -> Any:
                if dies():
                    die()
                return call(*args, **options)

            return dying

        def within(call: Any, path_of: Callable[..., Path]) -> Any:
            def dying(*args: Any, **options: Any) -> Any:
                result = call(*args, **options)
                if dies():
                    path = path_of(*args)
                    os.truncate(path, path.stat().st_size // 2)
                    die()
                return result

            return dying

        tempfile.mkstemp = before(tempfile.mkstemp)
        os.fsync = before(os.fsync)
        Path.replace = before(Path.replace)  # type: ignore[method-assign]
        Path.unlink = before(Path.unlink)  # type: ignore[method-assign]
        Path.write_text = within(Path.write_text, lambda path, *_: path)  # type: ignore[method-assign]
        safetensors.torch.save_file = within(safetensors.torch.save_file, lambda _, path, *__: Path(path))


# Operations of one file that is written, and of a checkpoint, which drops an older one too.
OF_A_FILE, OF_A_CHECKPOINT = 6, 7


def die() -> None:
    """SIGKILL."""
    os.kill(os.getpid(), signal.SIGKILL)
