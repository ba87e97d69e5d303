r"""What a training run on N GPUs would do: what is measured on one machine, and what is computed from it.

    python benchmarks/scale.py                                      the tables, of what was measured last
    python benchmarks/scale.py --between 3.1 --images_per_second 938    on other machines
    python benchmarks/scale.py --measure --photographs DIR --write      all anew, and docs/scale.md

Measured: what a step sends, by DDP's own hook; a checkpoint; a step of two processes, against what the
formulas of ``scale_model`` say of it. No GPU and no network card has been: their rates are options.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import wire
from scale_model import Cluster, Link, StepTime, Traffic, exposed, one_ring, ring, step_time
from scale_traffic import bytes_to_device, image_bytes, kept, sent
from timing import RESULTS, write

from senet.analysis.cost.latency import Spread
from senet.files import write_text
from senet.tables import Table

DOCUMENT = Path(__file__).parents[1] / "docs" / "scale.md"
NETWORKS = (
    *("resnet50", "se_resnet50", "resnext50_32x4d", "se_resnext50_32x4d", "senet154"),
    *("mobilenet_v1", "se_mobilenet_v1"),
)
PREDICTED = ("resnet50", "se_resnet50", "senet154")
GPUS = (1, 8, 64, 512)
# Of ImageNet-1k, to train on.
IMAGES = 1_281_167
# On the interface as it is, and on one that is slow enough to be waited for.
CHECKS = (
    wire.Spec("se_resnet20", size=32, images=32),
    wire.Spec("se_resnet20", size=32, images=32, rate=200e6),
    wire.Spec("se_mobilenet_v1", size=96, images=8),
    wire.Spec("se_resnet50", size=96, images=4),
    wire.Spec("se_resnet50", size=96, images=4, rate=2e9),
    wire.Spec("resnet50", size=96, images=4, rate=2e9),
)
AGREEING = (2, 4, 8)
PARTS = ("traffic", "agreement", "processes")
# The links between nodes, in parts of what is assumed.
SLOWER = (1, 1 / 8, 1 / 64)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures where that is asked, prints, and writes where that is."""
    options = options_of(arguments)
    if options.measure is not None:
        measure(options)
    found = tables(options)
    for name, table in found.items():
        print(f"\n{name}\n{table}")
    if options.write:
        write_text(DOCUMENT, with_tables(DOCUMENT.read_text(encoding="utf-8"), found))


def options_of(arguments: Sequence[str] | None) -> argparse.Namespace:
    """What is asked, and what is assumed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--measure", nargs="*", choices=PARTS, help="anew, into results/: all, or a part")
    parser.add_argument("--write", action="store_true", help="the tables into docs/scale.md")
    parser.add_argument("--rounds", type=int, default=11, help="of each candidate of a check")
    parser.add_argument("--turns", type=int, default=5, help="of each checkpoint")
    parser.add_argument("--size", type=int, default=224, help="of the images")
    parser.add_argument("--photographs", type=Path, help="a folder of JPEG files")
    parser.add_argument("--note", default="", help="about the machine, for the record")
    assumed = parser.add_argument_group("assumed")
    assumed.add_argument(
        "--images_per_second",
        type=float,
        default=2470,
        help="of a GPU that trains ResNet-50; others in proportion to their multiply-adds",
    )
    assumed.add_argument("--images", type=int, default=128, help="of each GPU, a step")
    assumed.add_argument("--batch", type=int, default=1024, help="of all GPUs, where it stays the same")
    assumed.add_argument("--node", type=int, default=8, help="GPUs in one")
    assumed.add_argument("--inside", type=float, default=240, help="GB/s of a GPU to the next in a node")
    assumed.add_argument("--between", type=float, default=20, help="GB/s of a GPU to the next node")
    assumed.add_argument(
        "--latency", type=float, nargs=3, default=[3, 10, 30], help="us: inside, between, and of TCP"
    )
    assumed.add_argument("--image_kb", type=float, default=110, help="of a compressed image")
    assumed.add_argument("--cores", type=int, default=16, help="that prepare the images of a GPU")
    return parser.parse_args(arguments)


def measure(options: argparse.Namespace) -> None:
    """Counts and times what the tables are made of."""
    parts = options.measure or PARTS
    settings = {"size": options.size, "note": options.note, "namespace": wire.has_namespaces()}
    if "traffic" in parts:
        rows = [sent(name, options.size) | kept(name, options.turns) for name in NETWORKS]
        photographs = image_bytes(options.photographs) if options.photographs else {"images": 0}
        images = {"photographs": photographs, "bytes to the device": bytes_to_device(options.size)}
        write(RESULTS / "scale.json", rows, settings | images)
    if "agreement" in parts:
        rows = [{"processes": count} | wire.measure(wire.Spec(processes=count)) for count in AGREEING]
        write(RESULTS / "scale_agreement-cpu.json", rows, settings)
    if "processes" in parts:
        rows = []
        for spec in CHECKS:
            if spec.rate and not settings["namespace"]:
                print(f"left out, as no rate can be limited without a network namespace: {spec}")
                continue
            rows.append(check(spec, options.rounds))
            print(Table(rows[-1:]), flush=True)
        write(RESULTS / "scale_two_processes-cpu.json", rows, settings)


def check(spec: wire.Spec, rounds: int) -> dict[str, Any]:
    """A row: a step of two processes as it was, and as computed from a step alone and an all-reduce alone.

    What is predicted was decided before: an interface as it is takes the cores' time, so that no core is free
    to hide anything; one that is slow is waited for, and the backward hides it.
    """
    found = wire.measure(wire.Spec(**{**vars(spec), "rounds": rounds}))
    each = [
        dict(zip(found["seconds"], values, strict=True))
        for values in zip(*found["seconds"].values(), strict=True)
    ]
    hidden, bare = (
        [two_processes(found, seconds, spec.probe, hides) for seconds in each] for hides in (1, 0)
    )
    predicted = hidden if spec.rate else bare
    measured = [seconds["together"] for seconds in each]
    spread = Spread.of([one / other for one, other in zip(predicted, measured, strict=True)])
    payload = 2 * sum(found["buckets"]) + found["buffers"] + 2 * 24
    return {
        "network": spec.model,
        "images": f"2 × {spec.images} of {spec.size}",
        "interface": f"{spec.rate / 1e6:,.0f} Mb/s" if spec.rate else "as it is",
        "gradient bytes": sum(found["buckets"]),
        "bytes sent : computed": found["bytes"] and found["bytes"] / payload,
        "alone ms": 1e3 * statistics.median(found["seconds"]["alone"]),
        "predicted ms": 1e3 * statistics.median(predicted),
        "measured ms": 1e3 * statistics.median(measured),
        "predicted : measured": spread.median,
        "low quartile": spread.low,
        "high quartile": spread.high,
        "with hiding": statistics.median(map(float.__truediv__, hidden, measured)),
        "without": statistics.median(map(float.__truediv__, bare, measured)),
        "rounds": rounds,
        "GB/s": statistics.median(spec.probe / (one["probe"] - one["agree"]) for one in each) / 1e9,
        "us a message": 1e6 * statistics.median(one["agree"] / 2 for one in each),
    }


def two_processes(
    found: Mapping[str, Any], seconds: Mapping[str, float], probe: int, hides: bool | int
) -> float:
    """The predicted seconds of a step together.

    Args:
        found: buckets, when they are ready, buffers.
        seconds: of a forward, a step alone, the probe's all-reduce and an agreement.
        probe: its bytes.
        hides: whether the backward hides what is sent meanwhile.
    """
    link = Link(probe / (seconds["probe"] - seconds["agree"]), seconds["agree"] / 2)
    times = [ring(size, 2, link) for size in found["buckets"]]
    backward = seconds["alone"] - seconds["forward"]
    shown = exposed(times, found["ready"], backward) if hides else sum(times)
    buffers = found["buffers"] / link.bandwidth + found["broadcasts"] * link.latency
    return float(seconds["alone"] + shown + buffers + seconds["agree"])


def tables(options: argparse.Namespace) -> dict[str, Table]:
    """Every table, by its name in the document, from what was measured last."""
    kept_rows = {row["network"]: row for row in results("scale")["rows"]}
    spec = Cluster(
        options.node,
        Link(1e9 * options.inside, 1e-6 * options.latency[0]),
        Link(1e9 * options.between, 1e-6 * options.latency[1]),
        Link(1e9, 1e-6 * options.latency[2]),
    )
    prepare_us = results("input_stages-se_resnet50-cpu")["rows"][-1]["us an image"]
    usual = kept_rows["resnet50"]["multiply-adds"]

    def step(name: str, gpus: int, images: int, cluster: Cluster = spec) -> StepTime:
        row = kept_rows[name]
        rate = options.images_per_second * usual / row["multiply-adds"]
        return step_time(
            traffic(row),
            gpus,
            cluster,
            images=images,
            images_per_second=rate,
            prepared_per_second=options.cores * 1e6 / prepare_us,
        )

    return {
        "sent": Table([_sent(row) for row in kept_rows.values()]),
        "steps": Table([_step(kept_rows[n], g, options.images, step, spec) for n in PREDICTED for g in GPUS]),
        "SE": Table([_links(share, options.images, step, spec) for share in SLOWER]),
        "same batch": Table([_same(n, g, options.batch, step) for n in PREDICTED[:2] for g in GPUS]),
        "input": Table([_input(gpus, options, kept_rows["se_resnet50"], prepare_us) for gpus in GPUS]),
        "agreement": Table([_agreement(row) for row in results("scale_agreement-cpu")["rows"]]),
        "check": Table([_check(row) for row in results("scale_two_processes-cpu")["rows"]]),
    }


def results(name: str) -> dict[str, Any]:
    """What was measured last."""
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return found


def traffic(row: Mapping[str, Any]) -> Traffic:
    """What a step of a network sends, of its row."""
    sizes = (tuple(row["buckets"]), tuple(row["ready"]))
    return Traffic(*sizes, row["buffer bytes"], row["broadcasts"], row["flag bytes"])


def with_tables(text: str, found: Mapping[str, Table]) -> str:
    """A document with each table between its marks."""
    for name, table in found.items():
        begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->\n"
        if begin in text:
            head, _, rest = text.partition(begin)
            text = head + begin + table.to_markdown() + end + rest.partition(end)[2]
    return text


def _sent(row: Mapping[str, Any]) -> dict[str, Any]:
    share = 100 * row["of SE"] / row["gradient bytes"]
    return {
        "network": f"`{row['network']}`",
        "gradients MB": f"{row['gradient bytes'] / 1e6:.1f}",
        "of them SE's": f"{row['of SE'] / 1e6:.2f} ({share:.1f} %)" if row["of SE"] else "-",
        "buckets": len(row["buckets"]),
        "the last MB": f"{row['buckets'][-1] / 1e6:.1f}",
        "buffers kB": f"{row['buffer bytes'] / 1e3:.0f}",
        "checkpoint MB": f"{row['checkpoint bytes'] / 1e6:.0f}",
        "write s": f"{row['write s']:.2f} ({row['write s, all'][0]:.2f} to {row['write s, all'][-1]:.2f})",
        "read s": f"{row['read s']:.2f}",
    }


def _step(
    row: Mapping[str, Any], gpus: int, images: int, step: Callable[..., StepTime], cluster: Cluster
) -> dict[str, Any]:
    found = step(row["network"], gpus, images)
    alone = sum(one_ring(size, gpus, cluster) for size in row["buckets"]) if gpus > 1 else 0.0
    return {
        "network": f"`{row['network']}`",
        "GPUs": gpus,
        "batch": gpus * images,
        "compute ms": _ms(found.compute),
        "input ms": _ms(found.input),
        "all-reduce ms": _ms(found.all_reduce),
        "by one ring": _ms(alone),
        "not hidden": _ms(found.exposed),
        "buffers": _ms(found.broadcast),
        "flags": _ms(found.agreement),
        "step ms": _ms(found.whole),
        "efficiency": _percent(found.efficiency),
        "flags by TCP": _ms(ring(row["flag bytes"], gpus, cluster.host)) if gpus > 1 else "0",
    }


def _links(share: float, images: int, step: Callable[..., StepTime], cluster: Cluster) -> dict[str, Any]:
    link = dataclasses.replace(cluster.between, bandwidth=share * cluster.between.bandwidth)
    slower = dataclasses.replace(cluster, between=link)
    row: dict[str, Any] = {"GB/s of a GPU to the next node": f"{link.bandwidth / 1e9:.3g}"}
    for name in ("resnet50", "se_resnet50"):
        for gpus in GPUS[2:]:
            found = step(name, gpus, images, slower)
            row[f"`{name}`, {gpus} GPUs"] = f"{_ms(found.exposed)} ms, {_percent(found.efficiency)}"
    return row


def _same(name: str, gpus: int, batch: int, step: Callable[..., StepTime]) -> dict[str, Any]:
    found = step(name, gpus, batch // gpus)
    faster = step(name, 1, batch).whole / found.whole
    return {
        "network": f"`{name}`",
        "GPUs": gpus,
        "images of each": batch // gpus,
        "compute ms": _ms(found.compute),
        "not hidden": _ms(found.exposed),
        "buffers": _ms(found.broadcast),
        "flags": _ms(found.agreement),
        "step ms": _ms(found.whole),
        "times as fast as 1": f"{faster:.1f}",
    }


def _input(
    gpus: int, options: argparse.Namespace, row: Mapping[str, Any], prepare_us: float
) -> dict[str, Any]:
    rate = options.images_per_second * gpus
    in_node = min(gpus, options.node)
    to_device = results("scale")["settings"]["bytes to the device"]
    return {
        "GPUs": gpus,
        "images/s": round(rate),
        "from the store GB/s": f"{rate * options.image_kb / 1e6:.3g}",
        "into a node GB/s": f"{rate / gpus * in_node * options.image_kb / 1e6:.2g}",
        "to a node's GPUs GB/s": f"{rate / gpus * in_node * to_device / 1e9:.2g}",
        "cores of a node": round(rate / gpus * in_node * prepare_us / 1e6),
        "epoch s": f"{IMAGES / rate:.3g}",
        "files at its end s": f"{3 * row['write s']:.2g}",
    }


def _agreement(row: Mapping[str, Any]) -> dict[str, Any]:
    steps = 2 * (row["processes"] - 1)
    return {
        "processes": row["processes"],
        "ms": _ms(row["seconds"]),
        "steps of a ring": steps,
        "ms a step": f"{1e3 * row['seconds'] / steps:.2f}",
        "packets": row["packets"] and round(row["packets"]),
    }


def _check(row: Mapping[str, Any]) -> dict[str, Any]:
    quartiles = f"{row['low quartile']:.2f} to {row['high quartile']:.2f}"
    wired = row["bytes sent : computed"]
    return {
        "network": f"`{row['network']}`",
        "images": row["images"],
        "interface": row["interface"],
        "MB": f"{row['gradient bytes'] / 1e6:.1f}",
        "bytes sent : computed": wired and f"{wired:.4f}",
        "alone ms": f"{row['alone ms']:.0f}",
        "predicted": f"{row['predicted ms']:.0f}",
        "measured": f"{row['measured ms']:.0f}",
        "predicted : measured": f"**{row['predicted : measured']:.2f}** ({quartiles})",
        "with hiding": f"{row['with hiding']:.2f}",
        "without": f"{row['without']:.2f}",
    }


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.3g}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


if __name__ == "__main__":
    main()
