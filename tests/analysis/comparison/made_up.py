"""Comparisons as runs could have given them: random, but plausible."""

import math
import random
from collections.abc import Sequence
from typing import Any

from senet.analysis.comparison.comparison import Comparison, Group, Pair
from senet.analysis.comparison.result import RunResult

# What a table, a page and a picture must show as it is.
HOSTILE = "<script>document.title='owned'</script> & \"x\" $\\frac{1}{2}$ %{x} a|b"

_PASSPORT = {"command": "senet compare a b", "versions": {"torch": "2.15.0"}, "machine": {"cores": 2}}


def result(*, top1: float = 91.0, train: float = 97.5, parameters: int = 272_474, **others: Any) -> RunResult:
    """A run of a small network on 10,000 images."""
    values: dict[str, Any] = {
        "test_top1": top1,
        "test_top5": 100 - (100 - top1) / 20,
        "test_loss": (100 - top1) / 30,
        "test_images": 10_000,
        "train_top1": train,
        "train_loss": (100 - train) / 30,
        "train_images": 50_000,
        "best_top1": min(100.0, top1 + 0.1),
        "epochs": 20,
        "steps": 7_800,
        "parameters": parameters,
        "macs": 150 * parameters,
        "seconds_per_step": 0.04 + parameters / 1e7,
        "saved_bytes": 8 * parameters,
        "peak_bytes": None,
        "seconds": 400.0,
        "device": "cpu",
        "processes": 1,
    }
    return RunResult.from_dict(values | others)


def curve(top1: float, noise: random.Random, epochs: int = 20) -> list[dict[str, Any]]:
    """Rows of metrics.csv that end at this accuracy."""
    rows = []
    for epoch in range(1, epochs + 1):
        short = math.exp(-6 * epoch / epochs) - math.exp(-6)
        top = top1 - (top1 - 15) * short + (noise.gauss(0, 1.2) if epoch < epochs else 0)
        row = {"epoch": epoch, "train_loss": 0.15 + 2 * short + noise.uniform(0, 0.03), "test_top1": top}
        rows.append(row | {"test_loss": 0.3 + 2 * short, "test_top5": 100 - (100 - top) / 20})
    return rows


def group(label: str, gain: float = 0.0, *, seeds: Sequence[int] = range(5), **options: Any) -> Group:
    """A group that is so many points better than 91 %; what a seed changes is the same in all groups."""
    network, parameters = options.pop("network", label), options.pop("parameters", 272_474)
    results, curves = {}, {}
    for seed in seeds:
        own, noise = random.Random(f"{label} {seed}"), random.Random(seed)
        top1 = round(91 + gain + noise.gauss(0, 0.25) + own.gauss(0, 0.2), 2)
        results[seed] = result(
            top1=top1, train=round(97 + gain + own.gauss(0, 0.2), 2), parameters=parameters
        )
        curves[seed] = curve(top1, own)
    return Group(label=label, network=network, results=results, curves=curves, **options)


def comparison(groups: Sequence[Group] | None = None, **options: Any) -> Comparison:
    """Two groups of five seeds, unless other groups are given; the first is the baseline."""
    if groups is None:
        groups = [group("resnet20"), group("se_resnet20", 0.8, parameters=275_000)]
    values: dict[str, Any] = {
        "title": "resnet20 and se_resnet20",
        "question": "Does SE help resnet20 on these images?",
        "name": "compare",
        "baseline": groups[0].label if groups else "",
        "conditions": {"data": "shards:cifar10", "recipe": "cifar", "epochs": "20"},
        "passport": _PASSPORT,
    }
    return Comparison(groups=groups, **(values | options))


def reduction(seeds: Sequence[int] = range(5)) -> Comparison:
    """A grid with the paper's numbers, a cell that is not defined, a failed and a missing one."""
    printed = [("23.30", "25.6"), ("22.29", "45.7"), ("22.25", "35.7"), ("22.28", "28.1"), ("22.72", "26.9")]
    paper = [{"top1": top1, "parameters": parameters} for top1, parameters in printed]
    groups = [
        group("original", network="resnet20", printed=paper[0], seeds=seeds),
        group("r = 2", 0.7, network="se_resnet20", printed=paper[1], seeds=seeds, parameters=290_000),
        group("r = 4", 0.8, network="se_resnet20", printed=paper[2], seeds=seeds, parameters=281_000),
        group(
            "r = 16",
            0.1,
            network="se_resnet20",
            printed=paper[3],
            seeds=list(seeds)[:-2],
            failed={3: "RunError: the loss is nan\nTraceback"},
            missing=[4],
            parameters=275_000,
        ),
        Group(label="r = 32", network="se_resnet20", undefined="16 channels // 32 is 0", printed=paper[4]),
    ]
    return comparison(
        groups,
        title="Reduction ratio: se_resnet20 on cifar10",
        question="How much narrower can the hidden layer be?",
        name="reduction",
        origin="Table 10: SE-ResNet-50 on ImageNet",
    )


def depths(seeds: Sequence[int] = range(5), gains: Sequence[float] = (0.6, 0.7, 0.5)) -> Comparison:
    """Plain and SE at 20, 32 and 56 layers."""
    groups, pairs = [], []
    for depth, gain in zip((20, 32, 56), gains, strict=True):
        pair = Pair(f"resnet{depth}", f"se_resnet{depth}", depth)
        better, size = depth / 40, 13_600 * depth
        groups.append(group(pair.plain, better, seeds=seeds, parameters=size))
        groups.append(group(pair.se, better + gain, seeds=seeds, parameters=size + 130 * depth))
        pairs.append(pair)
    return comparison(
        groups,
        title="Depth: resnet with and without SE on cifar10",
        question="Is the gain the same at every depth?",
        name="depth",
        baseline="",
        pairs=pairs,
    )
