"""The command line: one verb a task. Nothing heavy is imported before a verb runs."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import NoReturn

from senet import __version__
from senet.cli.cost import cost
from senet.cli.evaluate import evaluate
from senet.cli.experiments import ablate, compare
from senet.cli.export import export
from senet.cli.gates import gates
from senet.cli.networks import convert, models, plan
from senet.cli.predict import predict
from senet.cli.quantize import quantize
from senet.cli.sensitivity import sensitivity
from senet.cli.train import train
from senet.errors import SenetError, StoppedError, did_you_mean

VERBS: dict[str, Callable[[list[str]], None]] = {
    "train": train,
    "eval": evaluate,
    "predict": predict,
    "models": models,
    "plan": plan,
    "cost": cost,
    "gates": gates,
    "sensitivity": sensitivity,
    "compare": compare,
    "ablate": ablate,
    "convert": convert,
    "export": export,
    "quantize": quantize,
}


class _TerminatedError(BaseException):
    """SIGTERM has ended a verb that does not answer it by itself."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs ``senet VERB ...``.

    Returns:
        The exit status: 0 done, 1 an error of the task, 2 an error in the words, 130 interrupted, 143
        stopped by SIGTERM.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        try:
            return _run(argv)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # as by `| head`; nothing more can be said, at the exit neither
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _run(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0
    if argv[0] == "--version":
        print(f"senet {__version__}")
        return 0
    verb, *rest = argv
    if verb not in VERBS:
        print(f"senet: there is no verb {verb!r}. {did_you_mean(verb, VERBS)}\n", file=sys.stderr)
        print(_overview(), file=sys.stderr)
        return 2
    # Of several processes one says what is true of all.
    first = os.environ.get("RANK", "0") == "0"
    try:
        with _ended_gently():
            VERBS[verb](rest)
    except (StoppedError, _TerminatedError) as error:
        if first:
            print(f"senet {verb}: {error}", file=sys.stderr)
        return 128 + signal.SIGTERM
    except SenetError as error:
        print(f"senet {verb}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as error:
        if first:
            said = ": ".join(["interrupted", *map(str, error.args)])
            print(f"senet {verb}: {said}", file=sys.stderr)
        return 128 + signal.SIGINT
    return 0


@contextlib.contextmanager
def _ended_gently() -> Iterator[None]:
    """Has SIGTERM end the body as Ctrl-C does: what it was writing goes.

    Of several processes one may wait for another in what no signal interrupts: there it still ends at once.
    Training and experiments have handlers of their own meanwhile.
    """
    alone = int(os.environ.get("WORLD_SIZE", 1)) == 1
    if not alone or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _end(_number: int, _frame: FrameType | None) -> NoReturn:
    raise _TerminatedError("ended by SIGTERM; nothing is half-written")


def _overview() -> str:
    verbs = "\n".join(f"  {name:12} {function.__doc__}" for name, function in VERBS.items())
    return (
        "senet: Squeeze-and-Excitation for any PyTorch CNN\n\n"
        f"usage: senet VERB ... [options]\n\n{verbs}\n\n"
        "`senet VERB --help` has the options; `senet train` alone is a first run on real images."
    )
