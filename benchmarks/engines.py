"""What SE costs in ONNX Runtime and OpenVINO on a CPU, in each form that ``senet.export`` gives it.

    python benchmarks/engines.py
    python benchmarks/engines.py --network timm:seresnet50 --batch 1 --rounds 25 --threads 1

The files of a network, which take turns within one process, in each engine:

    plain      the same without SE, as ``senet.export`` writes it
    theirs     with SE, as PyTorch's exporter writes it
    canonical  with SE simplified, each block in six nodes
    blocked    with SE simplified, in the form for ONNX Runtime

Weights are random, and norms as after training. Each file is compared with PyTorch as it is exported, and
again as it is measured; what the engine made of it is counted: nodes, and those that move a map from one
memory layout to another. ONNX Runtime says what each kind of node takes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from inference import check, without_se
from subjects import load, randomise
from timing import RESULTS, alternate, compare, write
from torch import Tensor, nn

import senet
from senet.deploy.engines import ENGINES, opened
from senet.tables import Table

NETWORKS = (
    "timm:seresnet50",
    "timm:seresnext50_32x4d",
    "timm:efficientnet_b0",
    "torchvision:mobilenet_v3_large",
    "torchvision:regnet_y_400mf",
    "se_resnet50",
)
BASE = "plain"
# Nodes that move a map, as the engines call them.
MOVES = ("ReorderInput", "ReorderOutput", "Reorder")
# Bar R23 of an artefact, in parts of the largest number.
LARGEST = 1e-5
WARM_UP = 3
PROFILED = 15


def main(arguments: Sequence[str] | None = None) -> None:
    """Checks, measures, prints and writes after every network."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", nargs="+", default=NETWORKS, help="as subjects.load takes them")
    parser.add_argument("--engine", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8], help="images at a time")
    parser.add_argument("--size", type=int, default=224, help="their height and width")
    parser.add_argument("--threads", type=int, default=1, help="of the engine")
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--out", type=Path, default=RESULTS / "engines-cpu.json", help="a .json")
    options = parser.parse_args(arguments)

    settings = {
        "dtype": "float32",
        "size": options.size,
        "threads": options.threads,
        "largest difference": LARGEST,
    }
    rows: list[dict[str, Any]] = []
    for name in options.network:
        models, images = prepared(name, options.size, max(options.batch))
        for batch in options.batch:
            with tempfile.TemporaryDirectory() as folder:
                files = exported(models, images[:batch], Path(folder))
                for engine in options.engine:
                    found = measure(
                        name, engine, files, models, images[:batch], options.threads, options.rounds
                    )
                    print(f"{name}, {options.size}x{options.size}, {engine}, {options.threads} threads")
                    print(Table([shown(row) for row in found]), flush=True)
                    rows += found
                    write(options.out, rows, settings)


def prepared(name: str, size: int, batch: int) -> tuple[dict[str, nn.Module], Tensor]:
    """The network without SE and with it, and images."""
    torch.manual_seed(0)
    theirs = load(name)
    randomise(theirs, torch.randn(8, 3, size, size))
    images = torch.randn(batch, 3, size, size)
    return {BASE: without_se(theirs, images[:2]), "theirs": theirs}, images


def exported(models: dict[str, nn.Module], images: Tensor, folder: Path) -> dict[str, Path]:
    """The files by form, each for this many images: engines do not look at shapes again at each run."""
    files = {form: folder / f"{form}.onnx" for form in (BASE, "theirs", "canonical", "blocked")}
    shape: Any = {"batch": len(images), "size": tuple(images.shape[2:])}
    senet.export(models[BASE], files[BASE], **shape)
    senet.export(models["theirs"], files["canonical"], **shape)
    senet.export(models["theirs"], files["blocked"], engine="onnxruntime", **shape)
    program: Any = torch.onnx.export(models["theirs"], (images,), dynamo=True, verbose=False)
    program.save(str(files["theirs"]))
    return files


def measure(
    name: str,
    engine: str,
    files: dict[str, Path],
    models: dict[str, nn.Module],
    images: Tensor,
    threads: int,
    rounds: int,
) -> list[dict[str, Any]]:
    """A row a form, for a batch in an engine."""
    array = images.numpy()
    sessions = {form: opened(file, engine, threads=threads) for form, file in files.items()}
    wanted = {form: inferred(model, images) for form, model in models.items()}
    further: dict[str, dict[str, Any]] = {}
    for form, session in sessions.items():
        for _ in range(WARM_UP):
            (given,) = session(array)
        expected = wanted.get(form, wanted["theirs"])
        difference = check(name, f"{form} in {engine}", torch.from_numpy(given), expected, LARGEST)
        made = session.operators()
        further[form] = {
            "nodes": made.total(),
            "moves": sum(made[move] for move in MOVES),
            "difference": difference,
            "operators": dict(made),
        }
        if engine == "onnxruntime":
            further[form]["ms by operator"] = profiled(files[form], images, threads)
    runs = {form: partial(session, array) for form, session in sessions.items()}
    found = []
    for row in compare(alternate(runs, rounds), BASE):
        found.append(
            {"network": name, "engine": engine, "batch": len(images), **row} | further[row["candidate"]]
        )
    return found


def profiled(file: Path, images: Tensor, threads: int) -> dict[str, float]:
    """Milliseconds that ONNX Runtime itself counts for each kind of node, in the median run."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.enable_profiling = True
    options.profile_file_prefix = str(file.with_suffix(""))
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    for _ in range(PROFILED):
        session.run(None, {session.get_inputs()[0].name: images.numpy()})
    times: dict[tuple[str, str], list[float]] = {}
    for event in json.loads(Path(session.end_profiling()).read_text()):
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            times.setdefault((event["args"]["op_name"], event["name"]), []).append(event["dur"] / 1000)
    found: dict[str, float] = {}
    for (kind, _), each in times.items():
        found[kind] = found.get(kind, 0.0) + statistics.median(each)
    return found


def inferred(model: nn.Module, images: Tensor) -> Tensor:
    """What PyTorch gives."""
    with torch.inference_mode():
        given: Tensor = model(images)
    return given


def shown(row: dict[str, Any]) -> dict[str, Any]:
    """A row as it is printed: the ratio with its quartiles in one place."""
    low, high = row["low quartile"], row["high quartile"]
    return {
        "batch": row["batch"],
        "candidate": row["candidate"],
        "median ms": row["median ms"],
        f"ratio to {BASE}": f"{row[f'ratio to {BASE}']:.3f} ({low:.3f} to {high:.3f})",
        "rounds": row["rounds"],
        "nodes": row["nodes"],
        "moves": row["moves"],
        "difference": row["difference"],
    }


if __name__ == "__main__":
    main()
