"""What SE costs whole networks in training: ours, timm's, timm's accelerated, and plain ones.

    python benchmarks/networks.py                      all rows, in order of value; goes on where it stopped
    python benchmarks/networks.py --rows resnet50/compiled/256
    python benchmarks/networks.py --device cpu --batch 4 --size 64 --rounds 3 --no-compile

A row measures one candidate in turn with timm's plain network, in one process: same mode, layout,
optimizer and precision (bfloat16 by autocast, channels-last, SGD). Before it reports, a candidate that
has a twin is compared with it on the same weights. Rows are written when they are done, and a row that
the file has already, from the same versions and hardware, is not measured again.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from subjects import bare, load, randomise
from timing import RESULTS, alternate, compare, publish
from torch import nn
from torch.nn import functional as F

from senet.passport import passport

# By network: the plain one that all are compared with, and the candidates, with the one whose
# weights each takes and whose outputs it must give (itself for none).
NETWORKS: dict[str, tuple[str, dict[str, str]]] = {
    "resnet50": (
        "timm:resnet50",
        {
            "timm:seresnet50": "",
            "se_resnet50": "timm:seresnet50",
            "accelerated timm:seresnet50": "timm:seresnet50",
            "resnet50": "timm:resnet50",
            "fused resnet50": "timm:resnet50",
            "torchvision:resnet50": "timm:resnet50",
        },
    ),
    "resnext50": (
        "timm:resnext50_32x4d",
        {
            "timm:seresnext50_32x4d": "",
            "accelerated timm:seresnext50_32x4d": "timm:seresnext50_32x4d",
            "se_resnext50_32x4d": "",
            "resnext50_32x4d": "timm:resnext50_32x4d",
        },
    ),
    "efficientnet_b0": (
        "timm:efficientnet_b0",
        {
            "accelerated timm:efficientnet_b0": "timm:efficientnet_b0",
            "torchvision:efficientnet_b0": "",
            "accelerated torchvision:efficientnet_b0": "torchvision:efficientnet_b0",
        },
    ),
}
# (network, mode, batch), in order of value.
ROWS = [
    *(("resnet50", mode, 256) for mode in ("compiled", "eager")),
    *((network, mode, 256) for network in ("resnext50", "efficientnet_b0") for mode in ("eager", "compiled")),
    ("resnet50", "paper", 256),
    *(("resnet50", mode, batch) for batch in (32, 8, 1) for mode in ("eager", "compiled")),
]


@dataclass(frozen=True)
class Row:
    """One measurement.

    Args:
        network: of ``NETWORKS``.
        mode: "eager", "compiled" or "paper": eager in float32, forward and backward without an update,
            as the paper's section 4 times ResNet-50 and SE-ResNet-50.
        batch: images a step.
        candidate: measured in turn with the plain network.
    """

    network: str
    mode: str
    batch: int
    candidate: str

    @property
    def name(self) -> str:
        """As it is asked for, the candidate aside."""
        return f"{self.network}/{self.mode}/{self.batch}"


def main() -> None:
    """Measures what is missing; prints and writes after every row."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rows", nargs="*", help="NETWORK/MODE/BATCH; all if none is named")
    parser.add_argument("--batch", type=int, help="in place of every row's")
    parser.add_argument("--size", type=int, default=224, help="height and width of the images")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--no-compile", action="store_true", help="leave the compiled rows out")
    options = parser.parse_args()
    torch.backends.cudnn.benchmark = True
    name = f"networks-{torch.device(options.device).type}"
    settings = {"device": options.device, "size": options.size, "precision": "bfloat16 by autocast"}
    done = _done(name, settings)
    for row in _asked(options):
        if any(each["row"] == row.name and each["candidate"] == row.candidate for each in done):
            continue
        done.append(measure(row, options.device, options.size, options.rounds))
        publish(name, done, settings)
        torch._dynamo.reset()
        gc.collect()


def measure(row: Row, device: str, size: int, rounds: int) -> dict[str, Any]:
    """What is measured of the candidate beside the plain network, as a row of the result."""
    base, candidates = NETWORKS[row.network]
    torch.manual_seed(0)
    x = torch.randn(row.batch, 3, size, size, device=device).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(1000, (row.batch,), device=device)
    twin = candidates[row.candidate]
    difference = None
    models = {base: _built(base, device), row.candidate: _built(row.candidate, device)}
    if twin:
        difference = _difference(models[row.candidate], _built(twin, device), x[:2])
    steps, memory = {}, {}
    for name, model in models.items():
        run = torch.compile(model) if row.mode == "compiled" else model
        step = Step(run, x, labels, paper=row.mode == "paper")
        step()
        memory[name] = step.peak_memory()
        steps[name] = step
    compared = {each["candidate"]: each for each in compare(alternate(steps, rounds), base)}
    return {
        "row": row.name,
        **compared[row.candidate],
        "images/s": 1000 * row.batch / compared[row.candidate]["median ms"],
        "plain images/s": 1000 * row.batch / compared[base]["median ms"],
        "peak MiB": memory[row.candidate],
        "plain peak MiB": memory[base],
        "difference to its twin": difference,
    }


class Step:
    """A training step, ready to be called; the paper's has no update and no half precision."""

    def __init__(
        self, model: Callable[..., torch.Tensor], x: torch.Tensor, labels: torch.Tensor, *, paper: bool
    ) -> None:
        self.model, self.x, self.labels, self.paper = model, x, labels, paper
        parameters = model.parameters()  # type: ignore[attr-defined]
        self.optimizer = torch.optim.SGD(parameters, lr=1e-3, momentum=0.9)

    def __call__(self) -> None:
        """Forward, backward, update."""
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.x.device.type, dtype=torch.bfloat16, enabled=not self.paper):
            scores = self.model(self.x)
        F.cross_entropy(scores.float(), self.labels).backward()  # type: ignore[no-untyped-call]
        if not self.paper:
            self.optimizer.step()

    def peak_memory(self) -> float | None:
        """MiB that a step needs at most; None on a CPU."""
        if self.x.device.type != "cuda":
            return None
        torch.cuda.reset_peak_memory_stats()
        self()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() / 2**20


def _built(name: str, device: str) -> nn.Module:
    torch.manual_seed(0)
    model = load(name).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model.train()  # type: ignore[no-any-return]


def _difference(model: nn.Module, twin: nn.Module, x: torch.Tensor) -> float:
    """Takes the twin's weights, and compares: the largest difference, of the largest number."""
    own, theirs = model.state_dict(), twin.state_dict()
    if own.keys() != theirs.keys():
        raise SystemExit(f"{type(model).__name__} and its twin differ in their parameters: no report")
    randomise(twin, x)
    # Layers of an excitation are matrices here and 1×1 convolutions there.
    model.load_state_dict({key: value.reshape(own[key].shape) for key, value in theirs.items()})
    model.eval()
    twin.eval()
    with torch.no_grad():
        one, other = model(x), twin(x)
    model.train()
    difference = float((one - other).abs().max() / other.abs().max())
    if not difference < 1e-3:
        raise SystemExit(f"the candidate is wrong by {difference:g} of the largest number: no report")
    return difference


def _asked(options: argparse.Namespace) -> Iterator[Row]:
    for network, mode, batch in ROWS:
        if options.no_compile and mode == "compiled":
            continue
        if options.rows and f"{network}/{mode}/{batch}" not in options.rows:
            continue
        _, candidates = NETWORKS[network]
        for candidate in candidates:
            library = bare(candidate).partition(":")[0]
            if ":" in candidate and importlib.util.find_spec(library) is None:
                continue
            yield Row(network, mode, options.batch or batch, candidate)


def _done(name: str, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows that an earlier run on this machine has written."""
    try:
        content = json.loads((RESULTS / f"{name}.json").read_text())
    except FileNotFoundError:
        return []
    now = passport()
    same = content["settings"] == settings and all(
        content["passport"][key] == now[key] for key in ("versions", "machine")
    )
    return list(content["rows"]) if same else []


if __name__ == "__main__":
    main()
