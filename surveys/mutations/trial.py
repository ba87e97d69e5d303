"""The mutants of one file, each in a process that parts from pytest and goes on with it."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from surveys.mutations.mutants import Mutant, mutants
from surveys.mutations.targets import Target

_WRONG = 99  # pytest has no such exit status


def outcomes(root: Path, place: Path, target: Target, which: list[int], seconds: int) -> Iterator[str]:
    """What becomes of the file as it is and then of each mutant.

    It is "survived", "killed", "hung" or "does not compile".

    Args:
        root: of the repository, which stays as it is.
        place: an empty folder, for a copy.
        target: the file and its tests.
        which: of its mutants, by their places in the list of all.
        seconds: of the processor, after which a mutant hangs.
    """
    for name in ("src", "tests"):
        shutil.copytree(root / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(root / "pyproject.toml", place)
    # Many mutants in one library take long to compile; nothing at all, and the tests take longer.
    build = place / "src" / "senet" / "kernels" / "cpp" / "build.py"
    build.write_text(build.read_text().replace('"-O3"', '"-O1"'))
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(place / "src"), str(root)]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "TRITON_INTERPRET": str(int(target.interpreted)),
        "SENET_CACHE": str(place / "cache"),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "surveys.mutations.trial"]
    asked = {"target": dataclasses.asdict(target), "which": which, "seconds": seconds}
    with subprocess.Popen(
        command, cwd=place, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as running:
        given, told = running.stdin, running.stdout
        if given is None or told is None:
            raise TypeError("these are pipes")
        given.write(json.dumps(asked, default=list))
        given.close()
        yield from (line.strip() for line in told)


class _Trials:
    """A plugin: where pytest has come to a point, a process for each mutant goes on from there.

    Args:
        target: the file and its tests.
        found: its mutants.
        seconds: of the processor, after which one hangs.
        told: the file descriptor that what became of each is written to.
    """

    def __init__(self, target: Target, found: list[Mutant], seconds: int, told: int) -> None:
        self.target, self.found, self.seconds, self.told = target, found, seconds, told

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self) -> None:
        if not self.target.late:
            self._part()

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items.sort(key=lambda item: self.target.first not in item.name)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self) -> None:
        if self.target.late:
            self._part()

    def _part(self) -> None:
        path = Path(self.target.file)
        before = path.read_bytes()
        # It imports much when it is first called: once, and not in every process.
        torch.testing.assert_close(torch.ones(1), torch.ones(1))
        put = self._put_cpp(path) if path.suffix != ".py" else self._put_python(path)
        for number, mutant in enumerate((None, *self.found)):
            child = os.fork()
            if child == 0:
                # Of the processor's time, so that a busy machine changes nothing; but some hang asleep.
                resource.setrlimit(resource.RLIMIT_CPU, (self.seconds, self.seconds + 1))
                signal.alarm(10 * self.seconds)
                if mutant is not None:
                    put(number, mutant)
                elif self.target.late and path.suffix == ".py":
                    # That the file, read again as it is, changes nothing is what the rest rests on.
                    _reload(_module(path))
                return
            _, status = os.waitpid(child, 0)
            path.write_bytes(before)
            shutil.rmtree(os.environ["SENET_CACHE"], ignore_errors=True)
            hung = os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGALRM)
            became = "hung" if hung else "killed" if status else "survived"
            if os.waitstatus_to_exitcode(status) == _WRONG:
                became = "does not compile"
            os.write(self.told, f"{became}\n".encode())
        os._exit(0)

    def _put_python(self, path: Path) -> Callable[[int, Mutant], None]:
        def put(_: int, mutant: Mutant) -> None:
            path.write_bytes(mutant.applied(path.read_bytes()))
            if self.target.late:
                _reload(_module(path))

        return put

    def _put_cpp(self, path: Path) -> Callable[[int, Mutant], None]:
        # Here, as it imports much of what may be mutated.
        from surveys.mutations import switching

        together = switching.Together(path, self.found)

        def put(number: int, mutant: Mutant) -> None:
            if not together.put(number, mutant):
                # Without a library the tests would be skipped, and it would survive.
                os._exit(_WRONG)

        return put


def _module(path: Path) -> str:
    return ".".join(path.relative_to("src").with_suffix("").parts)


def _reload(name: str) -> None:
    """A module anew, for all who have taken something from it by name."""
    try:
        module = sys.modules[name]
        before = dict(vars(module))
        importlib.reload(module)
    except Exception:
        os._exit(1)
    for other in list(sys.modules.values()):
        for key, value in list(vars(other).items()):
            # What the module itself only imports has not changed, and not every module can be written to.
            if callable(value) and value is before.get(key) and value is not vars(module)[key]:
                setattr(other, key, vars(module)[key])


def _main() -> int:
    asked = json.load(sys.stdin)
    target = Target(**asked["target"])
    every = mutants(Path.cwd(), target.file, frozenset(target.functions))
    found = [every[index] for index in asked["which"]]
    from hypothesis import Phase, settings

    # What fails is not to be made small.
    phases = (Phase.explicit, Phase.generate)
    settings.register_profile("mutations", deadline=None, derandomize=True, database=None, phases=phases)
    options = ["-x", "-q", "--tb=no", "--assert=plain", "-p", "no:cacheprovider", "-p", "no:xdist"]
    if target.without:
        options += ["-k", f"not {target.without}"]
    told = os.dup(1)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    trials = _Trials(target, found, asked["seconds"], told)
    return int(pytest.main([*options, "--hypothesis-profile=mutations", *target.tests], plugins=[trials]))


if __name__ == "__main__":
    # At once: what is left to be undone belongs to the process that this one parted from.
    os._exit(_main())
