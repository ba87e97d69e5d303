"""The survey of insertion: every CNN classifier of torchvision, and the CNNs of timm.

    python -m surveys.insertion              # all of them (hours on 2 cores); goes on where it stopped
    python -m surveys.insertion resnet18 timm:resnet50
    python -m surveys.insertion --write      # what is known so far, into docs/insertion.md

Weights are random, inputs small. For each network: how many sites in which kinds of unit, whether the
outputs are the same bits, all keys kept, each block's gradient finite and not zero, and whether the
network still exports; and where it has attention of its own, whether ours stands there too.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision
from torch import Tensor, nn

from senet import insert, plan
from senet.errors import InsertionError
from senet.files import write_text
from surveys.oracle import agreement

HERE = Path(__file__).parent
RESULTS = HERE / "insertion.jsonl"
DOCUMENT = HERE.parent / "docs" / "insertion.md"
LARGEST = 100e6  # parameters, of timm's
OUTCOMES = ("inserted", "has it already", "refused", "failed")
ALREADY = "channel attention is there already"
# Every network has these; the table is about the rest.
USUAL = ("in the stem", "in the head", "in a shortcut", "between the units")
MARKS = ("<!-- survey: begin -->\n", "<!-- survey: end -->\n")

# timm's convolutional families; those whose units are attention or tokens are not among them.
FAMILIES = (
    "byobnet convmixer convnext cspnet cspnext densenet dla dpn efficientnet fasternet ghostnet "
    "hardcorenas hgnet hrnet inception_next inception_resnet_v2 inception_v3 inception_v4 lcnetv2 "
    "mobilenetv3 nasnet nfnet pnasnet rdnet regnet repghost repvit res2net resnest resnet resnetv2 "
    "rexnet selecsls senet sknet starnet tresnet vgg vovnet xception xception_aligned"
).split()


def names() -> list[str]:
    """The networks of the survey."""
    of_torchvision = [
        name
        for name in torchvision.models.list_models(module=torchvision.models)
        if not name.startswith(("vit_", "swin_"))
    ]
    of_timm: dict[str, list[str]] = {each: [] for each in FAMILIES}
    for name in timm.list_models():
        if family(f"timm:{name}") in FAMILIES:
            of_timm[family(f"timm:{name}")].append(f"timm:{name}")
    # One of each family in turn, so that an unfinished survey has seen them all.
    in_turn = itertools.chain.from_iterable(itertools.zip_longest(*of_timm.values()))
    return of_torchvision + [name for name in in_turn if name is not None]


def family(name: str) -> str:
    """The family of a network: timm's module, or torchvision's name without its sizes."""
    library, _, model = name.rpartition(":")
    if library == "timm":
        return str(timm.models._registry._model_to_module[model])
    return str(torchvision.models.get_model_builder(model).__module__.rpartition(".")[2])


def made(name: str) -> tuple[nn.Module, int]:
    """The network with random weights, in evaluation mode, and the side of a small input that it takes."""
    library, _, model = name.rpartition(":")
    if library == "timm":
        network = timm.create_model(model)
        config: dict[str, Any] = network.pretrained_cfg  # type: ignore[assignment]
        side = config["input_size"][1] if config.get("fixed_input_size") else 96
        least = config.get("min_input_size") or (3, 0, 0)
        return network.eval(), max(side, least[1])
    fixed = {"inception_v3": 299, "maxvit_t": 224}
    options = {"init_weights": True} if model in ("googlenet", "inception_v3") else {}
    return torchvision.models.get_model(model, weights=None, **options).eval(), fixed.get(model, 96)


def examine(name: str, *, export: bool = True) -> dict[str, Any]:
    """The row of one network."""
    start = time.perf_counter()
    torch.manual_seed(0)
    model, side = made(name)
    x = torch.randn(2, 3, side, side)
    found = plan(model)
    row: dict[str, Any] = {
        "network": name,
        "family": family(name),
        "sites": len(found),
        "kinds": dict(Counter(site.kind for site in found)),
        "left": dict(Counter(each.reason for each in found.left)),
    }
    if found.sites:
        with torch.no_grad():
            before, keys = model(x), list(model.state_dict())
        base_exports = export and _exports(model, x)
        insert(model, found, hidden=16)  # enough that not all are dead
        with torch.no_grad():
            row["unchanged"] = torch.equal(before, model(x))
        row["keys kept"] = [key for key in model.state_dict() if key in set(keys)] == keys
        row["trains"] = _trains(model, x)
        row["exports"] = (_exports(model, x) if base_exports else None) if export else None
    row["agreement"] = _agreement(name, x)
    row["seconds"] = round(time.perf_counter() - start, 1)
    return row


def _agreement(name: str, x: Tensor) -> str | None:
    """How many of the network's own places are ours, in the placement that has the most of them."""
    best: tuple[int, str] | None = None
    for placement in ("standard", "3x3"):
        model, _ = made(name)
        try:
            found = agreement(model, x, placement)
        except InsertionError:
            continue  # It has no residual unit with a 3×3 inside.
        if found is not None and (best is None or found.shared > best[0]):
            best = found.shared, f"{found}" if placement == "standard" else f"{found} at {placement}"
        if found is None or not found.missed:
            break
    return None if best is None else best[1]


def _exports(model: nn.Module, x: Tensor) -> bool:
    try:
        torch.export.export(model, (x,), strict=False)
    except Exception:
        return False
    return True


def _trains(model: nn.Module, x: Tensor) -> bool:
    """Whether every block gets a gradient: at the identity start, its last layer does."""
    torch.manual_seed(0)
    model.train()
    for module in model.modules():
        # What is dropped, and what starts at zero, would let no gradient through.
        if type(module).__name__ in ("DropPath", "StochasticDepth", "Dropout"):
            module.eval()
        own = () if getattr(module, "inserted", False) else module.parameters(recurse=False)
        for parameter in own:
            if parameter.ndim <= 1 and not bool(parameter.any()):
                nn.init.constant_(parameter, 0.1)
    result = model(x)
    tensors = result if isinstance(result, tuple) else (result,)
    sum(each.square().mean() for each in tensors if isinstance(each, Tensor)).backward()  # type: ignore[union-attr]
    blocks = [module for module in model.modules() if getattr(module, "inserted", False)]
    gradients = [block.get_parameter("fc2.weight").grad for block in blocks]
    return all(each is not None and bool(each.isfinite().all()) and bool(each.any()) for each in gradients)


def known() -> dict[str, dict[str, Any]]:
    """The rows so far; of a network that was examined again, the last."""
    lines = RESULTS.read_text(encoding="utf-8").splitlines() if RESULTS.exists() else []
    return {row["network"]: row for row in map(json.loads, lines)}


def outcome(row: dict[str, Any]) -> str:
    """What became of a network: inserted, has it already, refused or failed."""
    if "error" in row:
        return "failed"
    if row["sites"]:
        checks = (row["unchanged"], row["keys kept"], row["trains"], row["exports"] is not False)
        return "inserted" if all(checks) else "failed"
    return "has it already" if ALREADY in row["left"] else "refused"


def write(rows: list[dict[str, Any]]) -> None:
    """Puts the summary and the table between the marks in the document."""
    lines = []
    for library, chosen in (
        ("torchvision", [r for r in rows if ":" not in r["network"]]),
        ("timm", [r for r in rows if ":" in r["network"]]),
    ):
        counts = Counter(map(outcome, chosen))
        told = ", ".join(f"{counts[each]} {each}" for each in OUTCOMES if counts[each])
        handled = counts["inserted"] + counts["has it already"]
        places = sum(row.get("sites", 0) for row in chosen)
        families = len({row["family"] for row in chosen})
        lines.append(
            f"- {library}: {len(chosen)} networks in {families} families: {told}. "
            f"{100 * handled / len(chosen):.1f} % have SE afterwards, in {places:,} new places."
        )
    tried = [row for row in rows if row.get("sites")]
    exported = sum(row["exports"] is True for row in tried)
    lines.append(
        f"- Of the {len(tried)} that were inserted into, {exported} export with torch.export, "
        f"{sum(row['exports'] is None for row in tried)} did not before either."
    )
    versions = f"timm {timm.__version__}, torchvision {torchvision.__version__}, torch {torch.__version__}"
    lines += ["", f"Versions: {versions}.", "", *_table(rows)]
    text = DOCUMENT.read_text(encoding="utf-8")
    head, _, rest = text.partition(MARKS[0])
    _, _, tail = rest.partition(MARKS[1])
    write_text(DOCUMENT, head + MARKS[0] + "\n".join(lines) + "\n" + MARKS[1] + tail)


def _table(rows: list[dict[str, Any]]) -> list[str]:
    lines = ["| network | outcome | places | left alone | agrees |", "|---|---|---|---|---|"]
    for row in sorted(rows, key=lambda row: (":" in row["network"], row["family"], row["network"])):
        kinds = ", ".join(f"{count} {kind}" for kind, count in row.get("kinds", {}).items())
        left = {key: count for key, count in row.get("left", {}).items() if key not in USUAL}
        told = "; ".join(f"{count} × {reason}" for reason, count in left.items())
        result = row["error"] if "error" in row else outcome(row)
        lines.append(f"| {row['network']} | {result} | {kinds} | {told} | {row.get('agreement') or ''} |")
    return lines


def main(words: list[str]) -> None:
    """Examines what is named, or all that is not known yet."""
    warnings.simplefilter("ignore")
    asked = [word for word in words if not word.startswith("--")]
    done = known()
    if "--write" in words:
        write(list(done.values()))
        return
    for name in asked or [name for name in names() if name not in done]:
        try:
            with torch.device("meta"):
                size = sum(each.numel() for each in made(name)[0].parameters())
        except Exception:
            size = 0
        if size > LARGEST and name.startswith("timm:") and not asked:
            continue
        try:
            row = examine(name, export="--no-export" not in words)
        except Exception as error:
            row = {"network": name, "family": family(name), "error": f"{type(error).__name__}: {error}"[:300]}
            if asked:
                traceback.print_exc()
        print(json.dumps(row), flush=True)
        with RESULTS.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
