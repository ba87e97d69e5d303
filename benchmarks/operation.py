"""The tail of a residual branch alone: batch norm, SE, sum and ReLU, forward and backward.

    python benchmarks/operation.py
    python benchmarks/operation.py --device cpu --batch 8 --dtype float32 --shapes 64x56x56

Candidates: ours, the layers one by one (eager and compiled), batch norm + sum + ReLU without SE (eager
and compiled), and a copy of the map, which gives the bandwidth that the machine has. Before it
reports, every candidate's outputs and gradients are compared with the layers in float64.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from timing import alternate, compare, publish
from torch import Tensor
from torch.nn import functional as F

from senet.kernels import backends
from senet.kernels.reference import Tail, TailTensors

# C × H × W: where SE costs most first, then the other stages of ResNet-50 (SENet-154 has the same).
SHAPES = ("256x56x56", "512x28x28", "1024x14x14", "2048x7x7")
# Reads and writes of a map that the mathematics needs, forward and backward.
NECESSARY_PASSES = 11
# The largest error that is let pass, of the largest number.
BOUNDS = {torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}


def main() -> None:
    """Checks, measures, prints and writes the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--dtype", default="bfloat16", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--shapes", nargs="+", default=SHAPES, help="C x H x W")
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--backend", default="auto", help="of ours, see senet.kernels.why")
    parser.add_argument("--no-compile", action="store_true", help="leave the compiled candidates out")
    options = parser.parse_args()
    dtype = getattr(torch, options.dtype)
    rows = []
    for shape in options.shapes:
        size = (options.batch, *map(int, shape.split("x")))
        tensors = make(size, dtype, options.device)
        candidates = make_candidates(tensors, options.backend, compiled=not options.no_compile)
        check(candidates, tensors)
        copied = tensors.u.detach()
        runs = {name: step(run, tensors) for name, run in candidates.items()}
        seconds = alternate({**runs, "copy": copied.clone}, options.rounds, repeats=5)
        bandwidth = [2 * copied.nbytes / each for each in seconds["copy"]]
        for row in compare(seconds, "plain, eager"):
            values = seconds[str(row["candidate"])]
            needed = [NECESSARY_PASSES * copied.nbytes / each for each in values]
            shares = sorted(one / other for one, other in zip(needed, bandwidth, strict=True))
            share = None if row["candidate"] == "copy" else shares[len(shares) // 2]
            served = backends.chosen(Tail(), tensors.u, options.backend).name
            rows.append({"shape": shape, **row, "of copy bandwidth": share, "backend of ours": served})
    settings = {key: getattr(options, key) for key in ("device", "batch", "dtype")}
    publish(f"operation-{torch.device(options.device).type}", rows, settings)


def make(size: tuple[int, ...], dtype: torch.dtype, device: str) -> TailTensors:
    """A channels-last map, its shortcut, and the parameters of a tail with r = 16."""
    torch.manual_seed(0)
    channels = size[1]

    def learns(*shape: int) -> Tensor:
        drawn: Tensor = torch.randn(shape, device=device) / shape[-1] ** 0.5
        return drawn.requires_grad_()

    def a_map() -> Tensor:
        u = torch.randn(size, device=device).to(dtype)
        return u.contiguous(memory_format=torch.channels_last).requires_grad_()

    hidden = channels // 16
    vectors = learns(channels), learns(channels)
    excitation = learns(hidden, channels), learns(hidden), learns(channels, hidden), learns(channels)
    return TailTensors(a_map(), a_map(), None, *vectors, None, None, *excitation)


def make_candidates(
    tensors: TailTensors, backend: str, *, compiled: bool
) -> dict[str, Callable[[TailTensors], Tensor]]:
    """What is compared, by name."""

    def ours(given: TailTensors) -> Tensor:
        return backends.run(Tail(), given, backend).out

    def layers(given: TailTensors) -> Tensor:
        return backends.run(Tail(), given, "reference").out

    def plain(given: TailTensors) -> Tensor:
        v = F.batch_norm(given.u, None, None, given.weight, given.bias, True)
        summed: Tensor = v if given.residual is None else v + given.residual
        return F.relu(summed)

    found: dict[str, Callable[[TailTensors], Tensor]]
    found = {"plain, eager": plain, "ours, eager": ours, "layers, eager": layers}
    if compiled:
        found["plain, compiled"] = torch.compile(plain)
        found["ours, compiled"] = torch.compile(lambda given: backends.run(Tail(), given).out)
        found["layers, compiled"] = torch.compile(layers)
    return found


def step(run: Callable[[TailTensors], Tensor], tensors: TailTensors) -> Callable[[], object]:
    """Forward and backward of a candidate."""
    leaves = [each for each in tensors if each is not None and each.requires_grad]
    g = torch.randn_like(tensors.u)
    # The plain candidate has no excitation to give gradients to.
    return lambda: torch.autograd.grad(run(tensors), leaves, g, allow_unused=True)


def check(candidates: dict[str, Callable[[TailTensors], Tensor]], tensors: TailTensors) -> None:
    """Raises unless all that have SE compute the same as the layers in float64, gradients included."""
    few = slice(0, min(8, len(tensors.u)))

    def part(each: Tensor | None, dtype: torch.dtype | None) -> Tensor | None:
        if each is None:
            return None
        each = each.detach()[few] if each.ndim == 4 else each.detach()
        return (each if dtype is None else each.to(dtype)).clone().requires_grad_()

    small = TailTensors(*(part(each, None) for each in tensors))  # type: ignore[arg-type]
    wide = TailTensors(*(part(each, torch.float64) for each in tensors))  # type: ignore[arg-type]
    g = torch.randn_like(wide.u)

    def results(run: Callable[[TailTensors], Tensor], given: TailTensors) -> list[Tensor]:
        leaves = [each for each in given if each is not None]
        out = run(given)
        return [out, *torch.autograd.grad(out, leaves, g.to(out.dtype))]

    wanted = results(candidates["layers, eager"], wide)
    for name, run in candidates.items():
        if name.startswith("plain"):
            continue
        for found, want in zip(results(run, small), wanted, strict=True):
            error = ((found - want).abs().max() / want.abs().max()).item()
            if not error < BOUNDS[tensors.u.dtype]:
                raise SystemExit(f"{name} is wrong by {error:g} of the largest number: nothing is reported")


if __name__ == "__main__":
    main()
