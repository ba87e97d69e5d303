"""Without a GPU the kernels' numbers are proven under Triton's interpreter, in a process of its own.

Triton decides as it is imported whether it interprets; ``test_interpreter`` starts that process, and
the files that compare numbers are collected there, or where there is a GPU.
"""

import os
from pathlib import Path

import pytest
import torch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"

collect_ignore: list[str] = []
if INTERPRETED:
    collect_ignore = ["test_compilation.py", "test_interpreter.py", "test_launching.py"]
elif not torch.cuda.is_available():
    collect_ignore = [
        f"test_{name}.py" for name in ("arithmetic", "elementwise", "excitation", "gate_gradients", "merging")
    ] + ["test_reductions.py", "test_statistics.py"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if INTERPRETED and Path(__file__).parent in item.path.parents:
            # NumPy, which the interpreter computes with, warns of what a GPU just does.
            item.add_marker(pytest.mark.filterwarnings("ignore::RuntimeWarning"))
            item.add_marker(pytest.mark.filterwarnings("ignore::DeprecationWarning"))
