"""What a compiled training step or inference moves over memory, read from Inductor's code for a GPU.

    python benchmarks/lowering.py se_resnet50 timm:seresnet50 timm:resnet50
    python benchmarks/lowering.py se_resnet50 --part layer1 --batch 8 --kernels
    python benchmarks/lowering.py timm:resnet50 "simplified timm:seresnet50" --inference max-autotune

No GPU is needed: the network is compiled by ``torch.compile`` on the CPU, so Dynamo, the joint graph's
passes and the partitioner are those of every user, and ``torch.compiler.is_compiling()`` is True where
they ask. Only where a graph is handed to code generation, it is moved to a pretended H200 (sm_90), and
the generated code is read and not run. A convolution or matrix product is an extern call there, whose
bytes nobody fuses and nobody counts here; what autotuning can make of one is a Triton kernel, of which only
the epilogue is counted. No candidate can be timed: each matrix product is Triton's, with what can be fused
into it, and each other convolution the library's.

Torch is told of a GPU that is not there: ``lower`` therefore works in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from math import prod
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from generated import Generated, Lowered, account
from pretended import pretend_gpu, pretend_timings
from subjects import load
from torch import Tensor, nn

# Of one image: the smallest map of a ResNet at 224 × 224, (512, 7, 7) in half precision, has three times
# as much, and what is there once for all images stays below at the batches that matter.
SMALL = 2**14


def lower(
    *networks: str,
    batch: int = 256,
    size: int = 224,
    part: str | None = None,
    inference: str | None = None,
    python: str = sys.executable,
) -> list[Lowered]:
    """Lowers training steps in bfloat16 autocast or inference in bfloat16, channels-last, in an own process.

    Args:
        networks: as ``subjects.load`` takes them.
        batch: how many images.
        size: their height and width.
        part: only this module of the network, on the map that it gets there; its input needs a gradient.
        inference: not a training step but inference, in this mode of ``torch.compile``.
        python: the interpreter, and with it the torch.

    Raises:
        RuntimeError: the process failed; with what it said.
    """
    command = [python, __file__, *networks, "--batch", str(batch), "--size", str(size), "--json"]
    if part is not None:
        command += ["--part", part]
    if inference is not None:
        command += ["--inference", inference]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
    return [Lowered.from_dict(each) for each in json.loads(done.stdout.splitlines()[-1])]


def main() -> None:
    """Lowers the networks in this process and prints the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("networks", nargs="+", help="as subjects.load takes them")
    parser.add_argument("--batch", type=int, default=256, help="how many images")
    parser.add_argument("--size", type=int, default=224, help="their height and width")
    parser.add_argument("--part", help="only this module of the network")
    parser.add_argument(
        "--inference", choices=["default", "max-autotune"], help="in this mode of torch.compile"
    )
    parser.add_argument("--json", action="store_true", help="print everything as one line of JSON")
    parser.add_argument("--kernels", action="store_true", help="print the kernels that touch maps, too")
    parser.add_argument("--code", type=Path, help="a folder for the generated code")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        # Inductor writes files, of which none shall stay.
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
        _main(options)


def _main(options: argparse.Namespace) -> None:
    # While there is no GPU: what rewrites networks runs them.
    built = [
        build(network, options.batch, options.size, options.part, training=options.inference is None)
        for network in options.networks
    ]
    pretend_gpu()
    pretend_timings()
    found = []
    for network, (model, example) in zip(options.networks, built, strict=True):
        torch.compiler.reset()
        codes = lower_here(model, example, options.inference)
        if options.code is not None:
            options.code.mkdir(parents=True, exist_ok=True)
            for name, generated in zip(("forward", "backward"), codes, strict=False):
                (options.code / f"{network.replace(':', '-')}-{name}.py").write_text(generated.code)
        found.append(account(network, *codes, small=SMALL * options.batch))
    if options.json:
        print(json.dumps([asdict(each) for each in found]))
        return

    from senet.tables import Table

    if options.kernels:
        for each in found:
            for direction in each.directions:
                print(Table([asdict(kernel) for kernel in direction.kernels if kernel.maps]))
    print(Table([each.row() for each in found]))


def build(
    network: str, batch: int, size: int, part: str | None, *, training: bool = True
) -> tuple[nn.Module, Tensor]:
    """A network or a part of it, ready to train or to infer in channels-last, and what enters it."""
    model = load(network)
    shape = torch.Size([batch, 3, size, size])
    if part is not None:
        shape = _entering(model, model.get_submodule(part), shape)
        model = model.get_submodule(part)
    # Nobody reads what is in it: it is compiled and not run.
    example = torch.empty(shape, dtype=torch.bfloat16).contiguous(memory_format=torch.channels_last)
    model = model.train(training).to(memory_format=torch.channels_last)
    if not training:
        return model.to(torch.bfloat16).requires_grad_(False), example
    return model, example.requires_grad_(part is not None)


def _entering(model: nn.Module, module: nn.Module, shape: torch.Size) -> torch.Size:
    """The shape of the map that enters a module of a model."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    shapes: list[torch.Size] = []
    handle = module.register_forward_pre_hook(lambda _, args: shapes.append(args[0].shape))
    # In evaluation mode, for nothing is to be counted or updated.
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        model.eval()(torch.empty(shape))
    handle.remove()
    return shapes[0]


def lower_here(model: nn.Module, example: Tensor, inference: str | None = None) -> list[Generated]:
    """The code of a training step's two directions, or of inference in a mode; after ``pretend_gpu``."""
    from torch._inductor import config, list_mode_options
    from torch._inductor.compile_fx import compile_fx

    found: list[Generated] = []
    backend = partial(compile_fx, inner_compile=partial(_generate, found))
    compiled = torch.compile(model, backend=backend, fullgraph=True, dynamic=False)
    if inference is not None:
        with torch.no_grad(), config.patch(list_mode_options(inference)):
            compiled(example)
        return found
    with torch.autocast("cpu", torch.bfloat16):
        out = compiled(example)
    torch.autograd.backward(out, torch.empty_like(out))
    return found


def _generate(found: list[Generated], module: Any, inputs: Sequence[Any], **options: Any) -> Any:
    """In place of Inductor's compilation of a graph: keeps its code, and gives back what does not compute."""
    from torch._functorch.aot_autograd import make_boxed_func  # type: ignore[attr-defined]
    from torch._guards import TracingContext, tracing
    from torch._inductor.compile_fx import compile_fx_inner
    from torch._inductor.graph import GraphLowering
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.passes.fake_tensor_prop import FakeTensorProp

    stub = _Stub(module)
    # By the names that AOTAutograd gives: what is neither a parameter, a buffer or the input, nor a
    # gradient that enters, is saved.
    saved = sum(
        node.meta["val"].nbytes
        for node in module.graph.find_nodes(op="placeholder")
        if not node.name.startswith(("primals", "tangents"))
    )
    gpu = torch.device("cuda", 0)

    def moved(value: Any) -> Any:
        return gpu if isinstance(value, torch.device) else value

    for node in module.graph.nodes:
        node.args = torch.fx.node.map_aggregate(node.args, moved)
        node.kwargs = torch.fx.node.map_aggregate(node.kwargs, moved)
    module.recompile()
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    with fake:
        on_gpu = [
            torch.empty_strided(each.shape, each.stride(), dtype=each.dtype, device=gpu)
            if isinstance(each, Tensor)
            else each
            for each in inputs
        ]
    FakeTensorProp(module, fake).propagate_dont_convert_inputs(*on_gpu)

    kept = len(found)

    def keep(graph: Any) -> Any:
        code, _ = graph.codegen()
        sizes = {}
        for name, buffer in (*graph.graph_inputs.items(), *graph.name_to_buffer.items()):
            shape, dtype = buffer.maybe_get_size(), buffer.maybe_get_dtype()
            if shape is not None and dtype is not None:
                sizes[name] = prod(int(each) for each in shape) * dtype.itemsize
        found.append(Generated(code.value, sizes, saved))
        raise _KeptError

    with fake, tracing(TracingContext(fake)), mock.patch.object(GraphLowering, "compile_to_module", keep):
        try:
            compile_fx_inner(module, on_gpu, **options)
        except Exception:
            # What is raised within Inductor comes out as an error of its own.
            if len(found) == kept:
                raise
    return make_boxed_func(stub)


class _KeptError(Exception):
    """The code is there: Inductor shall not load it."""


class _Stub:
    """Called like a graph, gives tensors of the right shapes with nothing in them."""

    def __init__(self, module: Any) -> None:
        (self.results,) = module.graph.output_node().args
        placeholders = module.graph.find_nodes(op="placeholder")
        self.places = {node: index for index, node in enumerate(placeholders)}
        self.shapes = [
            (node.meta["val"].shape, node.meta["val"].stride(), node.meta["val"].dtype)
            if isinstance(node, type(placeholders[0]))
            else None
            for node in self.results
        ]

    def __call__(self, *args: Any) -> list[Any]:
        given = []
        for node, like in zip(self.results, self.shapes, strict=True):
            if like is None:
                given.append(node)
            elif node in self.places:
                given.append(args[self.places[node]])
            else:
                # Memory that nobody touches costs nothing.
                given.append(torch.empty_strided(*like[:2], dtype=like[2]))
        return given


if __name__ == "__main__":
    main()
