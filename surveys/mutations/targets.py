"""Which files are mutated, and which tests shall notice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Target:
    """A file and its tests.

    Args:
        file: its path.
        tests: files, in the order in which they are run.
        functions: what of it computes; empty for all.
        interpreted: whether the tests run under Triton's interpreter.
        late: whether it is enough to put the mutant in place when the tests are collected: so it is where
            nobody keeps what the file defines but by its name.
        without: part of the names of tests that are left out, as they take long and compute nothing new.
        first: part of the names of tests that come first, as they notice most of all soonest.
    """

    file: str
    tests: tuple[str, ...]
    functions: frozenset[str] = frozenset()
    interpreted: bool = False
    late: bool = False
    without: str = ""
    first: str = ""


def _gpu(name: str, *tests: str) -> Target:
    files = tuple(f"tests/kernels/gpu/test_{each}.py" for each in tests or (name,))
    return Target(f"src/senet/kernels/gpu/{name}.py", files, interpreted=True, late=True)


def _plain(path: str, *tests: str, functions: str = "", **how: Any) -> Target:
    files = tuple(f"tests/{each}.py" for each in tests)
    return Target(f"src/senet/{path}", files, frozenset(functions.split()), **how)


_CPP = tuple(f"tests/kernels/cpp/test_{name}.py" for name in ("exactness", "gates", "cpp", "memory"))

TARGETS = (
    _gpu("statistics"),
    _gpu("merging"),
    _gpu("elementwise"),
    _gpu("excitation"),
    _gpu("gate_gradients"),
    _gpu("arithmetic", "arithmetic", "elementwise"),
    _gpu("reductions", "reductions"),
    _plain("acceleration/pointwise.py", "acceleration/test_pointwise", without="exported"),
    _plain(
        "acceleration/rewriting.py", "acceleration/test_rewriting", "acceleration/test_simplify",
        functions="_fold",
    ),
    _plain(
        "acceleration/absorption.py", "acceleration/test_absorption", "acceleration/test_fold",
        functions="apply _multiply", late=True,
    ),
    _plain(
        "acceleration/fold.py", "acceleration/test_constants", "acceleration/test_fold",
        functions="folding _ends _checked", late=True,
    ),
    _plain("acceleration/folding.py", "acceleration/test_folding", "acceleration/test_fold", late=True),
    _plain("kernels/activations.py", "kernels/test_activations"),
    _plain(
        "kernels/composite.py", "kernels/test_composite", "kernels/test_fused",
        late=True, without="shared",
    ),
    _plain("kernels/aten.py", "kernels/test_aten", "kernels/test_backends", late=True),
    _plain(
        "kernels/reference.py", "kernels/test_reference", "kernels/test_fused", "test_block_precision",
        late=True,
    ),
    _plain("kernels/fused.py", "kernels/test_fused", late=True),
    *(
        Target(f"src/senet/kernels/cpp/{name}", _CPP, late=True, first="whole_tail")
        for name in ("steps.hpp", "gates.hpp", "moments.hpp", "tail.cpp", "maps.hpp")
    ),
)  # fmt: skip
