"""Bars of what senet costs before it does anything, and of what is not installed."""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import tempfile
from importlib import metadata

from surveys.reliability.bars import bar, check
from surveys.reliability.harness import ROOT

# Each package that may be missing, the words that need it, and the extra that has it.
_MISSING: tuple[tuple[str, str, str], ...] = (
    ("timm", "plan timm:resnet18", "timm"),
    ("PIL", "train --data digits --epochs 1", "train"),
    ("torchvision", "train --data digits --epochs 1", "train"),
    ("sklearn", "train --data digits --epochs 1", "train"),
    ("matplotlib", "train --data fake:1x8x8,images=20,classes=2 --epochs 1 --batch_size 10", "plot"),
    ("tensorboard", "train --tensorboard --data fake:1x8x8,images=20,classes=2 --epochs 1", "tensorboard"),
    ("huggingface_hub", "eval se_resnet20 --weights hf:nobody/nothing --data digits", "hub"),
)


@bar(
    "R27",
    "The core adds at most {packages} packages to torch and torchvision; `import senet` takes at most "
    "{importing} ms beside torch, and `senet --help` {helping} ms, without torch.",
    "the packages' own metadata; the median of {times} processes each, in processor time",
)
def footprint(*, times: int = 9, packages: int = 8, importing: int = 300, helping: int = 500) -> str:
    """Counts packages and takes the time of imports."""
    added = _closure("senet") - _closure("torch") - _closure("torchvision") - {"senet"}
    check(len(added) <= packages, f"senet adds {len(added)} packages: {', '.join(sorted(added))}")
    code = (
        "import time, torch; t = time.process_time(); import senet; senet.SqueezeExcitation, senet.build; "
        "print(time.process_time() - t)"
    )
    beside = statistics.median(float(_python(code)) for _ in range(times))
    # The time that the interpreter takes to start counts too.
    code = (
        "import subprocess, sys, time; t = time.perf_counter(); "
        "subprocess.run([sys.executable, '-m', 'senet', '--help'], check=True, capture_output=True); "
        "print(time.perf_counter() - t)"
    )
    help_ = statistics.median(float(_python(code)) for _ in range(times))
    lean = "import sys; from senet.cli import main; main(['--help']); print('torch' in sys.modules)"
    check(_python(lean).splitlines()[-1] == "False", "`senet --help` imports torch")
    check(1000 * beside <= importing, f"`import senet` takes {1000 * beside:.0f} ms beside torch")
    check(1000 * help_ <= helping, f"`senet --help` takes {help_:.2f} s")
    return f"{len(added)} packages; {1000 * beside:.0f} ms; {1000 * help_:.0f} ms"


@bar(
    "R27",
    "What needs a package that is not installed says so in one line, with the command that installs it.",
    "{packages} packages hidden, one at a time, from a command that needs it",
)
def missing_packages(*, packages: int = 7) -> str:
    """Hides packages."""
    for package, words, extra in _MISSING[:packages]:
        with tempfile.TemporaryDirectory() as folder:
            code = (
                f"import sys; sys.modules[{package!r}] = None; from senet.cli import main; "
                f"sys.exit(main({words.split()!r}))"
            )
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=folder)
            said = done.stdout + done.stderr
            told = [line for line in said.splitlines() if f"pip install 'senet[{extra}]'" in line]
            check(len(told) == 1, f"without {package}: {said}")
            check("Traceback" not in said, f"without {package}: {said}")
            # The picture of a run's curves is no reason to lose the run.
            wanted = 0 if package == "matplotlib" else 1
            check(
                done.returncode == wanted, f"without {package} the exit status is {done.returncode}: {said}"
            )
    return f"{packages} of {packages}"


def _closure(package: str) -> set[str]:
    """The packages that this one needs here, and theirs, by name."""
    found: set[str] = set()
    left = [(package, frozenset[str]())]
    seen = set()
    while left:
        name, extras = left.pop()
        name = re.sub(r"[-_.]+", "-", name).lower()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        try:
            needed = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue  # of another system
        found.add(name)
        for line in needed:
            requirement, _, marker = line.partition(";")
            parts = re.match(r"\s*([\w.-]+)\s*(?:\[([^]]*)\])?", requirement)
            of = set(re.findall(r"extra\s*==\s*['\"]([^'\"]+)", marker))
            if parts and (not of or of & extras):
                left.append((parts[1], frozenset((parts[2] or "").replace(" ", "").split(",")) - {""}))
    return found


def _python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return done.stdout.strip()
