"""The steps of the fused tail as torch operators, ``torch.ops.senet.*``: functional, with fakes.

Each takes the name of the backend that shall run it as its last argument, so that a traced graph
says what it will run. ``composite`` documents what they compute; nothing is ever mutated.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

# Where the steps are, by backend. A module that lacks a step has it from ``composite``.
MODULES = {
    "composite": "senet.kernels.composite",
    "cpp": "senet.kernels.cpp",
    "triton": "senet.kernels.gpu",
}

SCHEMAS = {
    "moments": "(Tensor u, str backend) -> (Tensor, Tensor)",
    "pool": "(Tensor u, Tensor? scale, Tensor? mean, Tensor? shift, str inner, str backend) -> Tensor",
    "apply": "(Tensor u, Tensor? scale, Tensor? mean, Tensor? shift, Tensor gate, Tensor? residual, "
    "str inner, str outer, str backend) -> Tensor",
    "reduce": "(Tensor g, Tensor? out, Tensor u, Tensor? scale, Tensor? mean, Tensor? shift, str inner, "
    "Tensor? second, str backend) -> (Tensor, Tensor)",
    "input_gradient": "(Tensor gm, Tensor u, Tensor? scale, Tensor? mean, Tensor? shift, Tensor gate, "
    "Tensor dz, Tensor? inverse, Tensor? dweight, Tensor? dbias, SymInt count, str inner, str backend) "
    "-> Tensor",
    "statistics": "(Tensor mean, Tensor variance, Tensor weight, Tensor bias, float eps, SymInt positions, "
    "str backend) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    "excitation": "(Tensor z, Tensor w1, Tensor? b1, Tensor w2, Tensor? b2, str hidden, str gate, "
    "bool one_at_zero, str backend) -> (Tensor, Tensor)",
    "gate_gradients": "(Tensor sums, Tensor? ds, Tensor s, Tensor? keep, Tensor entering, Tensor z, "
    "Tensor w1, Tensor w2, Tensor? sample_mean, Tensor? mean, Tensor? inverse, Tensor? scale, "
    "Tensor? shift, SymInt positions, str inner, str hidden, str gate, bool one_at_zero, str backend) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
}

_library = torch.library.Library("senet", "DEF")  # type: ignore[no-untyped-call]


@functools.cache
def step(name: str, backend: str) -> Callable[..., Any]:
    """The function of a backend for one step."""
    found: Callable[..., Any] | None = getattr(importlib.import_module(MODULES[backend]), name, None)
    return found or step(name, "composite")


def _run(name: str) -> Callable[..., Any]:
    def run(*args: Any) -> Any:
        return step(name, args[-1])(*args[:-1])

    return run


def _fake(name: str) -> Callable[..., Any]:
    def fake(*args: Any) -> Any:
        # The plain form runs on tensors without memory as on any; only a map's layout is its own.
        result = step(name, "composite")(*args[:-1])
        if name in ("apply", "input_gradient"):
            u: Tensor = args[0] if name == "apply" else args[1]
            return torch.empty_like(u, dtype=result.dtype)
        return result

    return fake


for _name, _schema in SCHEMAS.items():
    _library.define(_name + _schema)  # type: ignore[no-untyped-call]
    _library.impl(_name, _run(_name), "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]
    torch.library.register_fake(f"senet::{_name}", _fake(_name), lib=_library)

ops = torch.ops.senet


def steps(backend: str) -> SimpleNamespace:
    """The steps of a backend as functions without its name.

    They are the operators where somebody looks on, a tracer or a dispatch mode; else the functions
    themselves, which saves the way through the dispatcher.
    """
    watched = torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack() > 0
    return _operators(backend) if watched else _functions(backend)


def _operators(backend: str) -> SimpleNamespace:
    def bound(name: str) -> Callable[..., Any]:
        return lambda *args: getattr(ops, name)(*args, backend)

    return SimpleNamespace(**{name: bound(name) for name in SCHEMAS})


@functools.cache
def _functions(backend: str) -> SimpleNamespace:
    return SimpleNamespace(**{name: step(name, backend) for name in SCHEMAS})
