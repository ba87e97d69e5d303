"""Compiling what the launchers would start, for GPUs that are not there.

The launchers run on tensors without memory, of any size; what they would start is recorded as Triton
would specialise it, then compiled to machine code whose registers and memory are read.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

TYPES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}


class Launch(NamedTuple):
    """One start of a kernel: what it was given, by the names of its parameters."""

    kernel: Any
    programs: int
    values: dict[str, Any]
    options: dict[str, Any]

    @property
    def name(self) -> str:
        return str(self.kernel.__name__)

    @property
    def key(self) -> str:
        """Equal for launches that are the same machine code."""
        signature, constants, attributes = self.specialised()
        return repr((self.name, signature, constants, attributes, self.options))

    def specialised(self) -> tuple[dict[str, str], dict[tuple[int, ...], Any], dict[tuple[int, ...], Any]]:
        """Types, constants and known divisors, as Triton's own launch would find them."""
        signature: dict[str, str] = {}
        constants: dict[tuple[int, ...], Any] = {}
        attributes: dict[tuple[int, ...], Any] = {}
        for index, parameter in enumerate(self.kernel.params):
            value = self.values[parameter.name]
            if parameter.is_constexpr or value is None or (isinstance(value, int) and value == 1):
                signature[parameter.name], constants[(index,)] = "constexpr", value
            elif isinstance(value, Tensor):
                signature[parameter.name] = "*" + TYPES[value.dtype]
                attributes[(index,)] = [["tt.divisibility", 16]]
            elif isinstance(value, float):
                signature[parameter.name] = "fp32"
            else:
                signature[parameter.name] = "i32" if value < 2**31 else "i64"
                if value % 16 == 0:
                    attributes[(index,)] = [["tt.divisibility", 16]]
        return signature, constants, attributes


class Usage(NamedTuple):
    """What machine code takes: registers a thread, bytes of stack (spills), bytes of shared memory."""

    registers: int
    stack: int
    shared: int


@contextmanager
def recorded() -> Iterator[list[Launch]]:
    """The launches inside, none of which happens."""
    launches: list[Launch] = []

    def record(kernel: Any, *arguments: Any, grid: Any, warmup: bool, **named: Any) -> None:
        names = [parameter.name for parameter in kernel.params]
        values = dict(zip(names, arguments, strict=False))
        values |= {name: value for name, value in named.items() if name in names}
        options = {name: value for name, value in named.items() if name not in names}
        assert set(values) == set(names), f"{kernel.__name__} was not given {set(names) - set(values)}"
        launches.append(Launch(kernel, grid[0], values, options))

    with mock.patch.object(triton.JITFunction, "run", record):
        yield launches


def usage(launch: Launch, capability: int) -> Usage:
    """Compiles for sm_80 or sm_90 and reads the machine code."""
    signature, constants, attributes = launch.specialised()
    source = ASTSource(fn=launch.kernel, signature=signature, constexprs=constants, attrs=attributes)
    compiled: Any = triton.compile(
        source, target=GPUTarget("cuda", capability, 32), options=dict(launch.options)
    )
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        told = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True)
    found = {name: int(number) for name, number in re.findall(r"(REG|STACK|LOCAL):(\d+)", told.stdout)}
    return Usage(found["REG"], found["STACK"] + found["LOCAL"], compiled.metadata.shared)
