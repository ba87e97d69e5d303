"""The code that Inductor writes for a GPU, read: which kernel loads and stores how many bytes.

The code is a Python module that holds the Triton kernels as strings and launches them one by one.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Self

import torch

MIB = 2**20


@dataclass(frozen=True)
class Kernel:
    """A launch of a Triton kernel.

    Args:
        name: what Inductor calls it.
        read: bytes of the buffers that it loads from, each counted once and as a whole.
        written: likewise of those that it stores to.
        maps: how many of these loads and stores are of maps: the passes.
        map_bytes: the bytes of those.
        again: bytes of maps that it loads in a further loop, from the cache if that holds them.
        product: whether it is a matrix product, of which only the epilogue counts: what it reads beside the
            operands, and what it writes beside the result.
    """

    name: str
    read: int
    written: int
    maps: int
    map_bytes: int
    again: int
    product: bool = False


@dataclass(frozen=True)
class Direction:
    """The forward or the backward.

    Args:
        kernels: the Triton kernels: all that is elementwise or a reduction, and the matrix products that
            autotuning chose.
        extern: the calls of libraries' kernels, each with how often it is called.
    """

    kernels: tuple[Kernel, ...]
    extern: dict[str, int]

    @property
    def mib(self) -> float:
        """What the kernels read and write of maps, in MiB."""
        return sum(kernel.map_bytes for kernel in self.kernels) / MIB

    @property
    def all_mib(self) -> float:
        """What they read and write at all."""
        return sum(kernel.read + kernel.written for kernel in self.kernels) / MIB

    @property
    def passes(self) -> int:
        """How many reads and writes of maps there are."""
        return sum(kernel.maps for kernel in self.kernels)

    @property
    def large(self) -> int:
        """How many kernels are there to read or write a map."""
        return sum(kernel.maps > 0 and not kernel.product for kernel in self.kernels)

    @property
    def epilogues(self) -> int:
        """How many matrix products read or write a map in their epilogue."""
        return sum(kernel.maps > 0 and kernel.product for kernel in self.kernels)

    @property
    def products(self) -> int:
        """How many matrix products are Triton's."""
        return sum(kernel.product for kernel in self.kernels)


@dataclass(frozen=True)
class Lowered:
    """A training step, or inference, lowered.

    Args:
        network: which.
        torch: whose Inductor.
        forward: up to the network's output.
        backward: from the output's gradient; None for inference.
        saved: bytes of what the forward computes and keeps for the backward.
    """

    network: str
    torch: str
    forward: Direction
    backward: Direction | None = None
    saved: int = 0

    @property
    def directions(self) -> tuple[Direction, ...]:
        """Those that there are."""
        return (self.forward,) if self.backward is None else (self.forward, self.backward)

    @property
    def mib(self) -> float:
        """What is read and written of maps in elementwise kernels, reductions and epilogues, in MiB."""
        return sum(direction.mib for direction in self.directions)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """What ``dataclasses.asdict`` made of one."""
        directions = {}
        for name in ("forward", "backward"):
            if values[name] is not None:
                kernels = tuple(Kernel(**kernel) for kernel in values[name]["kernels"])
                directions[name] = Direction(kernels, values[name]["extern"])
        return cls(**values | directions)

    @property
    def saved_mib(self) -> float:
        """What is kept, in MiB."""
        return self.saved / MIB

    def row(self) -> dict[str, Any]:
        """The figures as a row of a table."""
        row: dict[str, Any] = {"network": self.network, "torch": self.torch}
        for name, direction in zip(("forward", "backward"), self.directions, strict=False):
            row |= {
                f"{name} MiB": round(direction.mib),
                f"{name} kernels": direction.large,
                f"{name} small": len(direction.kernels) - direction.large - direction.products,
                f"{name} extern": sum(direction.extern.values()),
            }
        if self.backward is None:
            return row | {"products": self.forward.products, "epilogues": self.forward.epilogues}
        return row | {"step MiB": round(self.mib), "saved MiB": round(self.saved_mib, 1)}


@dataclass(frozen=True)
class Generated:
    """What Inductor wrote for one direction.

    Args:
        code: the Python module, with its Triton kernels as strings.
        sizes: the bytes of each of its buffers.
        saved: for the backward, the bytes of what it gets of what the forward computed.
    """

    code: str
    sizes: dict[str, int]
    saved: int


def account(network: str, forward: Generated, backward: Generated | None = None, *, small: int) -> Lowered:
    """The figures of a training step or of inference; a buffer of more than ``small`` bytes is a map."""
    if backward is None:
        return Lowered(network, torch.__version__, read(forward, small))
    return Lowered(
        network, torch.__version__, read(forward, small), read(backward, small), saved=backward.saved
    )


def read(generated: Generated, small: int) -> Direction:
    """The kernels that are launched, and what is called beside them."""
    tree = ast.parse(generated.code)
    sizes = dict(generated.sizes)
    accesses: dict[str, _Accesses] = {}
    kernels = []
    extern: dict[str, int] = {}
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)):
            continue
        call, name = node.value, ast.unparse(node.targets[0])
        called = ast.unparse(call.func)
        if called == "async_compile.triton":
            accesses[name] = _Accesses(ast.literal_eval(call.args[1]))
        elif called == "empty_strided_cuda" and name not in sizes:
            shape, itemsize = ast.literal_eval(call.args[0]), _itemsize(ast.unparse(call.args[2]))
            sizes[name] = prod(shape) * itemsize
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        kernel, _, method = called.rpartition(".")
        if method == "run" and kernel in accesses:
            kernels.append(accesses[kernel].of(node.args, sizes, small))
        elif called.startswith(("extern_kernels.", "torch.ops.")):
            extern[called] = extern.get(called, 0) + 1
    return Direction(tuple(kernels), extern)


def _itemsize(dtype: str) -> int:
    itemsize: int = getattr(torch, dtype.removeprefix("torch.")).itemsize
    return itemsize


class _Accesses:
    """Which of its arguments a Triton kernel loads from and stores to.

    Args:
        source: the kernel's Python.
    """

    def __init__(self, source: str) -> None:
        (function,) = (node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef))
        self.name = function.name
        # Of a template. What its product reads it calls by other names than the arguments'.
        self.product = any("heuristics.template" in ast.unparse(each) for each in function.decorator_list)
        self.arguments = [argument.arg for argument in function.args.args]
        # Loops that stand side by side read in turn; what stands outside of them is a place too.
        self.loads: dict[str, set[int]] = {}
        self.stores: dict[str, set[int]] = {}
        for place, statement in enumerate(function.body):
            place = place if isinstance(statement, ast.For) else -1
            for node in ast.walk(statement):
                if not isinstance(node, ast.Call):
                    continue
                called = ast.unparse(node.func)
                if called == "tl.load":
                    self._note(self.loads, node, place)
                elif called == "tl.store" or called.startswith("tl.atomic_"):
                    self._note(self.stores, node, place)

    def _note(self, where: dict[str, set[int]], call: ast.Call, place: int) -> None:
        names = {node.id for node in ast.walk(call.args[0]) if isinstance(node, ast.Name)}
        for name in names.intersection(self.arguments):
            where.setdefault(name, set()).add(place)

    def of(self, values: Sequence[ast.expr], sizes: dict[str, int], small: int) -> Kernel:
        """The bytes of a launch."""
        read = written = maps = map_bytes = again = 0
        # The result is no pass of the epilogue's.
        results = int(self.product)
        for argument, value in zip(self.arguments, values, strict=False):
            if not (argument in self.loads or argument in self.stores):
                continue
            size = next(sizes[node.id] for node in ast.walk(value) if isinstance(node, ast.Name))
            loads, stores = len(self.loads.get(argument, ())), argument in self.stores
            if stores and results:
                stores, results = False, 0
            read += size * (loads > 0)
            written += size * stores
            if size > small:
                accesses = (loads > 0) + stores
                maps += accesses
                map_bytes += accesses * size
                again += size * max(loads - 1, 0)
        return Kernel(self.name, read, written, maps, map_bytes, again, self.product)
