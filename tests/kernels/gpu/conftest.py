"""Without a GPU the kernels' numbers are proven under Triton's interpreter, in a process of its own.

Triton decides as it is imported whether it interprets; ``test_interpreter`` starts that process, and
the files that compare numbers are collected there, or where there is a GPU.
"""

import os
from pathlib import Path
from typing import Any

import pytest
import torch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"

collect_ignore: list[str] = []
if INTERPRETED:
    collect_ignore = ["test_compilation.py", "test_interpreter.py", "test_launching.py"]
elif not torch.cuda.is_available():
    collect_ignore = [
        f"test_{name}.py" for name in ("arithmetic", "elementwise", "excitation", "gate_gradients", "merging")
    ] + ["test_bars.py", "test_reductions.py", "test_statistics.py"]


@pytest.fixture(autouse=True)
def _within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """No kernel reads or writes beside the tensors that it is given, where other numbers would lie."""
    if not INTERPRETED:
        return
    from triton.runtime import interpreter

    executor: Any = interpreter.GridExecutor
    builder: Any = interpreter.InterpreterBuilder
    given, load, store = executor._init_args_hst, builder.create_masked_load, builder.create_masked_store
    ends: list[tuple[int, int]] = []

    def noted(self: Any, *args: Any) -> Any:
        found = given(self, *args)
        ends[:] = []
        for each in found[0]:
            if isinstance(each, torch.Tensor) and each.numel():
                last = sum((n - 1) * step for n, step in zip(each.shape, each.stride(), strict=True))
                ends.append((each.data_ptr(), each.data_ptr() + last * each.element_size()))
        return found

    def check(pointers: Any, mask: Any) -> None:
        used = pointers.data[mask.data]
        if used.size:
            low, high = int(used.min()), int(used.max())
            assert any(first <= low and high <= last for first, last in ends), "beside every tensor"

    def loaded(self: Any, pointers: Any, mask: Any, *args: Any) -> Any:
        check(pointers, mask)
        return load(self, pointers, mask, *args)

    def stored(self: Any, pointers: Any, value: Any, mask: Any, *args: Any) -> Any:
        check(pointers, mask)
        return store(self, pointers, value, mask, *args)

    monkeypatch.setattr(executor, "_init_args_hst", noted)
    monkeypatch.setattr(builder, "create_masked_load", loaded)
    monkeypatch.setattr(builder, "create_masked_store", stored)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if INTERPRETED and Path(__file__).parent in item.path.parents:
            # NumPy, which the interpreter computes with, warns of what a GPU just does.
            item.add_marker(pytest.mark.filterwarnings("ignore::RuntimeWarning"))
            item.add_marker(pytest.mark.filterwarnings("ignore::DeprecationWarning"))
