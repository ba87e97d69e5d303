"""Compiles the C++ steps when they are first needed, and keeps the result for this machine.

The source is plain C++ with a C interface: it needs a compiler, and neither PyTorch's headers nor
Python's. It has no threads of its own but is given the functions that start PyTorch's.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import torch

from senet.errors import SenetError
from senet.files import cache_folders, replacing

_HERE = Path(__file__).parent
_SOURCES = ("tail.cpp", "gates.hpp", "moments.hpp", "steps.hpp", "maps.hpp")
_COMPILERS = ("g++", "c++", "clang++")
# Without -ffast-math: NaN and Inf must go on as they do in PyTorch.
_FLAGS = ("-O3", "-std=c++17", "-shared", "-fPIC", "-fno-math-errno", "-fno-trapping-math")
_SIZE = ("-fno-exceptions", "-fno-rtti")
# Tried in this order: not every compiler has all of them. The pragmas for vectors need no OpenMP library.
_TUNINGS = (("-march=native", "-fopenmp-simd"), ("-fopenmp-simd",), ())
_THREADS = ("GOMP_parallel", "omp_get_thread_num", "omp_get_num_threads")
_lock = threading.Lock()


class _BuildError(Exception):
    """Says why there is no library."""


def unavailable() -> str | None:
    """Why the C++ steps cannot run on this machine; None where they can. Builds at the first call."""
    return _outcome()[1]


def library() -> ctypes.CDLL:
    """The compiled steps, built at the first call; raises SenetError where there can be none."""
    found, reason = _outcome()
    if found is None:
        raise SenetError("backend 'cpp'", found=str(reason), do="Take another backend.")
    return found


def _outcome() -> tuple[ctypes.CDLL | None, str | None]:
    with _lock:
        return _once()


@functools.cache
def _once() -> tuple[ctypes.CDLL | None, str | None]:
    try:
        if sys.platform != "linux":
            raise _BuildError(f"the C++ steps are made for Linux, this is {sys.platform}")
        threads = _threads()
        found = _load()
        found.senet_threads.argtypes = [ctypes.c_void_p] * len(threads)
        found.senet_threads(*threads)
        return found, None
    except _BuildError as failure:
        return None, str(failure)


def _threads() -> list[int]:
    """Where the functions are that start a team of PyTorch's own threads and count it."""
    # First as the dynamic linker would: a library that was put before PyTorch's serves PyTorch too.
    for scope in (None, torch._C.__file__):
        places = ctypes.CDLL(scope)
        try:
            found = [ctypes.cast(getattr(places, name), ctypes.c_void_p).value for name in _THREADS]
        except AttributeError:
            continue
        return [int(each or 0) for each in found]
    raise _BuildError("PyTorch's threads cannot be shared: there is no GOMP_parallel in this process")


def _load() -> ctypes.CDLL:
    compiler = _compiler()
    reason = ""
    for tuning in _TUNINGS:
        flags = [*_FLAGS, *_SIZE, *tuning]
        try:
            return _cached(compiler, flags, f"tail-{_key(compiler, flags)}.so")
        except _BuildError as failure:
            reason = reason or str(failure)
    raise _BuildError(reason)


def _cached(compiler: list[str], flags: list[str], name: str) -> ctypes.CDLL:
    for folder in cache_folders():
        path = folder / name
        try:
            return ctypes.CDLL(str(path))
        except OSError:  # not there yet, or cut
            pass
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with replacing(path) as temporary:
                _compile(compiler, flags, temporary)
            return ctypes.CDLL(str(path))
        except OSError:  # nothing can be written there, or nothing be run from there
            continue
    # What is loaded stays when its file goes.
    with tempfile.TemporaryDirectory(prefix="senet-") as passing:
        path = Path(passing) / name
        _compile(compiler, flags, path)
        try:
            return ctypes.CDLL(str(path))
        except OSError as error:
            raise _BuildError(f"what was compiled cannot be loaded: {error}") from error


def _compile(compiler: list[str], flags: list[str], path: Path) -> None:
    command = [*compiler, *flags, str(_HERE / _SOURCES[0]), "-o", str(path)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=600, env={**os.environ, "LC_ALL": "C"}
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise _BuildError(f"{compiler[0]} cannot be run: {error}") from error
    if done.returncode:
        lines = done.stderr.splitlines() or [f"exit status {done.returncode}"]
        first = next((line for line in lines if "error" in line), lines[0])
        raise _BuildError(f"{compiler[0]} failed: {first}")


def _compiler() -> list[str]:
    named = os.environ.get("CXX", "").strip()
    if named:
        command = shlex.split(named)
        if shutil.which(command[0]) is None:
            raise _BuildError(f"there is no compiler {command[0]!r}, which CXX names")
        return command
    for name in _COMPILERS:
        if shutil.which(name):
            return [name]
    raise _BuildError(f"there is no C++ compiler: neither CXX is set nor is there {', '.join(_COMPILERS)}")


def _key(compiler: list[str], flags: list[str]) -> str:
    """What the result depends on: code for another processor must not be run here."""
    try:
        version = subprocess.run([*compiler, "--version"], capture_output=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise _BuildError(f"{compiler[0]} cannot be run: {error}") from error
    digest = hashlib.sha256()
    for part in (version, *(each.encode() for each in (*compiler, *flags, _processor()))):
        digest.update(hashlib.sha256(part).digest())
    for name in _SOURCES:
        digest.update(hashlib.sha256((_HERE / name).read_bytes()).digest())
    return digest.hexdigest()[:20]


def _processor() -> str:
    try:
        first = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        first = []
    # Not every line: the frequency is different each time.
    told = ("vendor", "model", "cpu family", "stepping", "flags", "Features", "CPU")
    return "\n".join([platform.machine(), *(line for line in first if line.startswith(told))])
