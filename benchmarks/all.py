"""Every benchmark that waits for a GPU, in order of value; what is done is not done again.

    python benchmarks/all.py

Each part writes its own results when it has them, so a run that is cut short is gone on with by the
same command.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from timing import RESULTS

HERE = Path(__file__).parent
# What a part writes, and its command; the networks know by themselves which of their rows are done.
PARTS = (
    ("", ["networks.py", "--rows", "resnet50/compiled/256"]),
    (
        "inference-cuda-max-autotune",
        [
            *("inference.py", "--network", "timm:seresnet50", "se_resnet50", "--batch", "256"),
            *("--compiled", "max-autotune"),
        ],
    ),
    ("operation-cuda", ["operation.py"]),
    ("", ["networks.py"]),
    ("training_step-resnet20-cuda", ["training_step.py", "--network", "resnet20", "--batch", "1024"]),
    ("training_step-resnet50-cuda", ["training_step.py", "--network", "resnet50", "--batch", "256"]),
)


def main() -> None:
    """Runs the parts whose results are missing; ends with the number of those that failed."""
    failed = 0
    for result, command in PARTS:
        if result and (RESULTS / f"{result}.json").exists():
            continue
        print("$ python benchmarks/" + " ".join(command), flush=True)
        failed += subprocess.run([sys.executable, str(HERE / command[0]), *command[1:]]).returncode != 0
    sys.exit(failed)


if __name__ == "__main__":
    main()
