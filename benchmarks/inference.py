"""What SE costs at inference: a network as it is, after ``senet.simplify``, and without SE.

    python benchmarks/inference.py
    python benchmarks/inference.py --network timm:seresnet50 --batch 256 --compiled max-autotune
    python benchmarks/inference.py --network se_resnet50 --device cpu --batch 1 --rounds 15

The forms of a network, which take turns within one process:

    plain          the same without SE: the network of that name, or each block replaced by the identity
    plain, norms   that with its batch norms folded into its convolutions
    theirs         as it is, in evaluation mode
    norms          with its batch norms folded: what is won apart from SE
    squeeze        norms, and SE squeezed before the pointwise convolution that it gates
    scale          norms, and the gates in the weights of the pointwise convolution after SE
    simplified     all of it

A form in which nothing of its kind can be rewritten is left out, and so is one that is the same as
``simplified``. Weights are random, and norms as after training. Before it reports, each form is compared in
float64 with the network that it is made from, and then, as it is measured, with that one's float64.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from subjects import load, plain_name, randomise
from timing import RESULTS, alternate, compare, write
from torch import Tensor, nn

import senet
from senet.acceleration.rewriting import KINDS, NORM, SCALE, SQUEEZE
from senet.acceleration.simplify import SimplifyReport, simplified
from senet.analysis.cost.replica import on_meta, without
from senet.errors import AccelerationError
from senet.graph.examples import trace_with
from senet.runtime.device import device_named
from senet.tables import Table

NETWORKS = (
    "timm:seresnet50",
    "timm:seresnext50_32x4d",
    "timm:efficientnet_b0",
    "torchvision:mobilenet_v3_large",
    "torchvision:regnet_y_400mf",
    "se_resnet50",
)
# What is switched on in each form of the network with SE.
REWRITTEN = {"norms": (NORM,), SQUEEZE: (NORM, SQUEEZE), SCALE: (NORM, SCALE), "simplified": KINDS}
# What a form may be the same as, and is then not measured twice.
SAME = {"squeeze": "simplified", "scale": "simplified", "simplified": "norms"}
BASES = ("plain", "plain, norms", "theirs")
# In float64, of the largest output: what is more is no rounding.
EXACT = 1e-10
# Images that are compared; float64 takes its time.
COMPARED = 2
# A compiled network on a GPU is captured in the first runs, and replayed in those after them.
WARM_UP = 3
MIB = 2**20


def main(arguments: Sequence[str] | None = None) -> None:
    """Checks, measures, prints and writes after every network."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", nargs="+", default=NETWORKS, help="as subjects.load takes them")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8], help="images at a time")
    parser.add_argument("--size", type=int, default=224, help="their height and width")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N")
    parser.add_argument(
        "--dtype", choices=["float32", "bfloat16", "float16"], help="bfloat16 on a GPU, float32 elsewhere"
    )
    parser.add_argument(
        "--compiled", default="off", choices=["off", "default", "max-autotune"], help="torch.compile's mode"
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, help="a .json; by default in results/, by device and mode")
    options = parser.parse_args(arguments)
    device = device_named(options.device)
    dtype = getattr(torch, options.dtype or ("bfloat16" if device.type == "cuda" else "float32"))
    torch.backends.cudnn.benchmark = True
    # Else convolutions of float32 round to 10 bits, and matrix products in their place do not.
    torch.backends.cudnn.allow_tf32 = False
    mode = "" if options.compiled == "off" else f"-{options.compiled}"
    out = options.out or RESULTS / f"inference-{device.type}{mode}.json"

    settings: dict[str, Any] = {
        "device": str(device),
        "dtype": str(dtype).removeprefix("torch."),
        "size": options.size,
        "compiled": options.compiled,
        "memory format": "channels-last",
        "largest error in float64": EXACT,
        f"largest error in {dtype}": bound(dtype),
        "left out": {},
        "blocks that stay": {},
    }
    rows: list[dict[str, Any]] = []
    for name in options.network:
        subject = prepared(name, options.size)
        settings["left out"][name] = subject.left_out
        settings["blocks that stay"][name] = subject.stay
        found = []
        for batch in options.batch:
            found += measure(subject, batch, device, dtype, options.compiled, options.rounds)
        print(f"{name}, {options.size}x{options.size}, {dtype}, {device}, compiled: {options.compiled}")
        print(Table([shown(row) for row in found]))
        for form, reason in subject.left_out.items():
            print(f"not measured: {form}: {reason}")
        if subject.stay:
            block, reason = next(iter(subject.stay.items()))
            print(f"{len(subject.stay)} SE blocks stay as they are, such as {block}: {reason}")
        print(flush=True)
        rows += found
        write(out, rows, settings)


@dataclass
class Subject:
    """A network in its forms, in float64 until they are measured.

    Args:
        name: of the network.
        images: that all are compared on.
        forms: the networks by form.
        wanted: of each, the outputs that it has to give.
        errors: of each, its largest error in float64.
        rewritten: of each, the rewritings and how many of each kind.
        left_out: why other forms are not here.
        stay: SE blocks that ``simplified`` leaves as they are, and why.
    """

    name: str
    images: Tensor
    forms: dict[str, nn.Module] = field(default_factory=dict)
    wanted: dict[str, Tensor] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)
    rewritten: dict[str, dict[str, int]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    stay: dict[str, str] = field(default_factory=dict)

    def add(self, form: str, wanted: Tensor, model: nn.Module, report: SimplifyReport | None = None) -> None:
        """Takes a form if it gives what it has to; ends the program if not."""
        self.errors[form] = check(self.name, form, outputs(model, self.images), wanted, EXACT)
        steps = () if report is None else report.steps
        self.rewritten[form] = {kind: sum(step.kind == kind for step in steps) for kind in KINDS}
        self.forms[form], self.wanted[form] = model, wanted


def prepared(name: str, size: int) -> Subject:
    """The forms of a network on the CPU, each compared with what it is made from."""
    torch.manual_seed(0)
    theirs = load(name)
    randomise(theirs, torch.randn(8, 3, size, size))
    theirs.double()
    # Numbers that each dtype has: then what differs later is the network's.
    images = torch.randn(COMPARED, 3, size, size).bfloat16().double()
    subject = Subject(name, images)
    bare = without_se(theirs, images)
    plain = named_plain(name, theirs) or bare
    wanted = outputs(bare, images)
    subject.add("plain", wanted, plain)
    try:
        subject.add("plain, norms", wanted, *simplified(plain, squeeze=False, scale=False))
    except AccelerationError as error:
        subject.left_out["plain, norms"] = str(error)

    wanted = outputs(theirs, images)
    subject.add("theirs", wanted, theirs)
    found, left_out = rewritings(theirs, torch.empty_like(images, device="meta"))
    for form, (model, report) in found.items():
        if form not in left_out:
            subject.add(form, wanted, model, report)
    if "simplified" in found:
        subject.stay = {left.module: left.reason for left in found["simplified"][1].left}
    subject.left_out |= left_out
    return subject


def rewritings(
    model: nn.Module, example: Tensor
) -> tuple[dict[str, tuple[nn.Module, SimplifyReport]], dict[str, str]]:
    """The forms of a network with SE, each with its report; and why some are none of their own."""
    found: dict[str, tuple[nn.Module, SimplifyReport]] = {}
    left_out: dict[str, str] = {}
    for form, kinds in REWRITTEN.items():
        switches = {"norms": NORM in kinds, "squeeze": SQUEEZE in kinds, "scale": SCALE in kinds}
        try:
            # The size decides what is rewritten.
            found[form] = simplified(model, example=example, **switches)
        except AccelerationError as error:
            left_out[form] = str(error)
    reports = {form: report for form, (_, report) in found.items()}
    left_out |= {form: reason for form in found if (reason := why_not(form, reports))}
    return found, left_out


def why_not(form: str, reports: Mapping[str, SimplifyReport]) -> str:
    """Why a form is not measured; empty if it is."""
    steps, same = reports[form].steps, SAME.get(form, "")
    if form in KINDS and all(step.kind != form for step in steps):
        return f"there is no {form} to rewrite"
    if same in reports and reports[same].steps == steps:
        return f"the same as {same}"
    return ""


def without_se(model: nn.Module, images: Tensor) -> nn.Module:
    """The same network with the same weights, each SE block replaced by the identity."""
    report = senet.cost(model, tuple(images.shape[1:]), runs=0)
    if not report.blocks or report.inside:
        raise SystemExit(f"{report.network}: SE cannot be taken out ({report.inside or 'there is none'})")
    return without(model, [block.name for block in report.blocks]).eval()


def named_plain(name: str, theirs: nn.Module) -> nn.Module | None:
    """The plain network of that name with the weights of the network with SE, if there is one."""
    twin = plain_name(name)
    if twin is None:
        return None
    plain = load(twin).double()
    state = theirs.state_dict()
    own = {key: state[key] for key in plain.state_dict() if key in state}
    try:
        plain.load_state_dict(own)
    except RuntimeError as error:
        raise SystemExit(f"{twin} is not {name} without SE: {error}") from error
    return plain


def measure(
    subject: Subject, batch: int, device: torch.device, dtype: torch.dtype, mode: str, rounds: int
) -> list[dict[str, Any]]:
    """A row a form, for a batch. The forms are from then on of that dtype, and on the device."""
    repeats = -(-batch // COMPARED)
    x = subject.images.repeat(repeats, 1, 1, 1)[:batch]
    x = x.to(device, dtype, memory_format=torch.channels_last)
    torch._dynamo.reset()
    runs: dict[str, Run] = {}
    further: dict[str, dict[str, Any]] = {}
    for form, model in subject.forms.items():
        run = runs[form] = Run(ready(model, device, dtype), x, mode)
        for _ in range(WARM_UP):
            given = run().double().cpu()
        wanted = subject.wanted[form].repeat(repeats, 1)[:batch]
        further[form] = {
            "eager MiB an image": moved(model, x) / MIB / batch,
            "error in float64": subject.errors[form],
            "error": check(subject.name, form, given, wanted, bound(dtype)),
            "rewritten": subject.rewritten[form],
        }
    # On a GPU one run is short beside the wait for its end.
    seconds = alternate(runs, rounds, repeats=10 if device.type == "cuda" else 1)
    rows: dict[str, dict[str, Any]] = {}
    for base in (base for base in BASES if base in seconds):
        for each in compare(seconds, base):
            form, ms = each["candidate"], each["median ms"]
            row = rows.setdefault(form, {"network": subject.name, "batch": batch, "candidate": form})
            row |= {"median ms": ms, "images/s": 1000 * batch / ms, "rounds": each["rounds"]}
            row[f"ratio to {base}"] = {
                "median": each[f"ratio to {base}"],
                "low quartile": each["low quartile"],
                "high quartile": each["high quartile"],
            }
    return [row | further[form] for form, row in rows.items()]


class Run:
    """A network at work, ready to be called.

    Args:
        model: in evaluation mode.
        x: a batch.
        mode: torch.compile's, or "off".
    """

    def __init__(self, model: nn.Module, x: Tensor, mode: str) -> None:
        self.x = x
        # With several networks in turn, each run is one of its own.
        self.begins = mode != "off" and x.is_cuda
        # Whole, or not at all: what falls back is not what is asked for.
        self.model: Callable[[Tensor], Tensor] = (
            model if mode == "off" else torch.compile(model, mode=mode, dynamic=False, fullgraph=True)
        )

    def __call__(self) -> Tensor:
        """Forward."""
        if self.begins:
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        with torch.inference_mode():
            return self.model(self.x)


def ready(model: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """A form as it is measured."""
    model = model.to(device, dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model.requires_grad_(False)


def outputs(model: nn.Module, images: Tensor) -> Tensor:
    """What a network gives for the images that all are compared on."""
    with torch.inference_mode():
        given: Tensor = model(images)
    return given


def check(name: str, form: str, given: Tensor, wanted: Tensor, largest: float) -> float:
    """The largest difference, of the largest number; ends the program if it is no rounding."""
    error = float((given - wanted).abs().max() / wanted.abs().max())
    if not error <= largest:
        raise SystemExit(
            f"{name}: {form} is wrong by {error:g} of the largest number, {largest:g} is let pass: "
            "nothing is reported"
        )
    return error


def bound(dtype: torch.dtype) -> float:
    """Half of the digits: what is lost by rounding adds up over the layers."""
    return float(torch.finfo(dtype).eps ** 0.5)


def moved(model: nn.Module, x: Tensor) -> int:
    """The bytes that the operations of a run read and write, each by itself: exact on any machine."""
    graph, _ = trace_with(on_meta(model, fused=False), torch.empty_like(x, device="meta"))
    return sum(op.moved for op in graph.ops)


def shown(row: dict[str, Any]) -> dict[str, Any]:
    """A row as it is printed: each ratio with its quartiles in one place."""
    found = {key: row[key] for key in ("batch", "candidate", "median ms")}
    for key, ratio in row.items():
        if key.startswith("ratio"):
            low, high = ratio["low quartile"], ratio["high quartile"]
            found[key] = f"{ratio['median']:.3f} ({low:.3f} to {high:.3f})"
    found |= {key: row[key] for key in ("rounds", "eager MiB an image", "error")}
    done = [f"{count} {kind}" for kind, count in row["rewritten"].items() if count]
    return found | {"rewritten": ", ".join(done) or None}


if __name__ == "__main__":
    main()
