"""What simplifying and exporting do to a trained network: the same images, classified before and after.

    python benchmarks/accuracy.py RUN --data shards:DIR

RUN is a folder of ``senet train``, or what else names a network with its weights. Each form classifies
all test images in float32:

    as it is, norms, squeeze, scale, simplified    in PyTorch, as in inference.py
    canonical, blocked                             in ONNX Runtime and OpenVINO, as in engines.py

Rounding may turn a prediction whose two largest scores are equal but for rounding. Each that turned is looked
at: the program ends with an error if a margin was larger than what the scores changed by.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from engines import LARGEST
from inference import rewritings
from timing import RESULTS, write
from torch import nn

import senet
from senet.deploy.artefact import ExportedNetwork, opened_artefact
from senet.deploy.engines import ENGINES
from senet.evaluation.classification import Scored, batches_of, evaluate
from senet.evaluation.subject import Subject, subject_named
from senet.tables import Table

BEFORE = "as it is"


def main(arguments: Sequence[str] | None = None) -> None:
    """Classifies, compares, prints and writes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="a run folder, or a network whose weights are known")
    parser.add_argument("--data", help="as for `senet eval`; by default what it was trained on")
    parser.add_argument("--preprocessing", help="as for `senet eval`; by default what the weights say")
    parser.add_argument("--batch", type=int, default=250, help="images at a time")
    parser.add_argument("--out", type=Path, help="a .json; by default in results/, by the network's name")
    options = parser.parse_args(arguments)

    subject = subject_named(
        options.model, data=options.data, preprocessing=options.preprocessing, device="cpu"
    )
    if subject.random:
        raise SystemExit(f"{options.model} is not trained: there is nothing to lose")
    rows: list[dict[str, Any]] = []
    before: list[Scored] = []
    with tempfile.TemporaryDirectory() as folder:
        for form, network in forms(subject, Path(folder)):
            scored: list[Scored] = []
            batches = batches_of(subject.splits.test, subject.preprocessing, batch_size=options.batch)
            found = evaluate(network, batches, subject.preprocessing, device=subject.device, keep=scored)
            before = before or scored
            rows.append(
                {"form": form, "images": found.images, "correct": found.correct1, "top-1 %": found.top1}
                | changes(form, before, scored)
            )
    print(Table(rows))
    name = Path(options.model).name.replace(":", "-")
    settings = {"network": name, "data": subject.splits.description, "size": subject.preprocessing.size}
    write(options.out or RESULTS / f"accuracy-{name}.json", rows, settings)


def forms(subject: Subject, folder: Path) -> Iterator[tuple[str, nn.Module]]:
    """The network as it is, then in every other form that it has."""
    network, size = subject.network, subject.preprocessing.size
    example = torch.empty(2, subject.splits.channels, size, size, device="meta")
    yield BEFORE, network
    found, left_out = rewritings(network, example)
    yield from ((form, rewritten) for form, (rewritten, _) in found.items() if form not in left_out)
    for form, reason in left_out.items():
        print(f"{form}: {reason}")
    for form, engine in (("canonical", None), ("blocked", "onnxruntime")):
        file = folder / f"{form}.onnx"
        senet.export(network, file, size=size, engine=engine)
        for runs in ENGINES:
            yield f"{form}, {runs}", ExportedNetwork(opened_artefact(file, runs))


def changes(form: str, before: Sequence[Scored], after: Sequence[Scored]) -> dict[str, Any]:
    """How the scores changed; ends the program if a prediction turned that rounding does not turn."""
    was, now = (torch.cat([each.scores for each in scored]) for scored in (before, after))
    change = (now - was).abs().amax(1)
    largest = float(change.max() / was.abs().max())
    if not largest <= LARGEST:
        raise SystemExit(f"{form} is wrong by {largest:g} of the largest score: nothing is reported")
    top = was.topk(2).values
    turned = was.argmax(1) != now.argmax(1)
    if not bool((top[:, 0] - top[:, 1] <= 2 * change)[turned].all()):
        raise SystemExit(f"{form} turns a prediction that rounding does not turn: nothing is reported")
    return {"turned": int(turned.sum()), "difference": largest}


if __name__ == "__main__":
    main()
