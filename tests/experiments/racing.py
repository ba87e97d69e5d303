"""A process that shares cells with others and notes what must not be: ``-m tests.experiments.racing``.

Below its folder, ``held/KEY`` is locked while the cell is worked on, and ``results/KEY`` is its result. Where
the promise breaks it ends with status 3.
"""

import contextlib
import fcntl
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from senet.errors import RunError
from senet.experiments.claims import Claim, Claims, Phase

ROOT = Path(__file__).parents[2]
BROKEN = 3


def start(*words: object) -> subprocess.Popen[str]:
    """A process of this file; what it says can be read."""
    command = [sys.executable, "-m", "tests.experiments.racing", *map(str, words)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def prepare(folder: Path) -> None:
    """Makes what the processes share."""
    for name in ("held", "results"):
        (folder / name).mkdir(parents=True)


def race(folder: Path, keys: int, seed: int) -> None:
    """Works until all cells are done, and gives some of them up on the way."""
    rng = random.Random(seed)
    claims = Claims(folder / "claims", beat=0.05)
    names = [f"key{number}" for number in range(keys)]
    while not all(claims.state(name).phase is Phase.DONE for name in names):
        rng.shuffle(names)
        for name in names:
            claim = claims.take(name)
            if claim is not None:
                with contextlib.suppress(KeyboardInterrupt), claim:
                    _work(folder, name, claim, rng)


def hold(folder: Path, beat: float) -> None:
    """Takes a cell, and says so when it is lost; tries to end it after all."""
    claim = Claims(folder / "claims", beat=beat).take("a", lost=lambda: print("lost", flush=True))
    print("taken", flush=True)
    while claim is not None and not claim.is_lost:
        time.sleep(0.005)
    try:
        claim.done() if claim else None
    except RunError:
        print("refused", flush=True)


def _work(folder: Path, name: str, claim: Claim, rng: random.Random) -> None:
    with (folder / "held" / name).open("w") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _broken(f"{name} has two owners")
        result = folder / "results" / name
        if not result.exists():
            claim.progress(step=1)
            time.sleep(rng.uniform(0, 0.004))
            if rng.random() < 0.3:
                raise KeyboardInterrupt
            os.close(os.open(result, os.O_CREAT | os.O_EXCL))
        # Before it is given away.
        fcntl.flock(held, fcntl.LOCK_UN)
        claim.done()


def _broken(what: str) -> None:
    print(what, flush=True)
    os._exit(BROKEN)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    action, place, *numbers = sys.argv[1:]
    if action == "race":
        race(Path(place), *map(int, numbers))
    else:
        hold(Path(place), *map(float, numbers))
