"""What each choice of `senet quantize` costs a trained network: accuracy, bytes and time in 8-bit integers.

    python benchmarks/quantization.py RUN --data shards:DIR

RUN is a folder of ``senet train``, or what else names weights. It is exported in the canonical form, and
quantized in each way; all files classify all test images. Times are of one image in ONNX Runtime, one thread,
in turn with the file in float32: the median of 60, and their ratio. OpenVINO runs the same files.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from timing import RESULTS, write

import senet
from senet.data import open_data
from senet.deploy.cost import quantize_and_compare
from senet.deploy.members import member_of, network_named
from senet.evaluation.together import evaluate_models
from senet.tables import Table

CHOICES: dict[str, dict[str, Any]] = {
    "gates in float32": {},
    "gates and product in float32": {"keep": "scale"},
    "all in integers": {"keep": "nothing"},
    "gates in float32, percentile": {"calibration": "percentile"},
    "gates in float32, 7-bit weights": {"reduce_range": True},
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Quantizes, compares, prints and writes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="a run folder, or weights that say what they are for")
    parser.add_argument("--data", help="as for `senet eval`; by default what it was trained on")
    parser.add_argument("--images", type=int, default=512, help="training images to calibrate on")
    parser.add_argument("--out", type=Path, help="a .json; by default in results/, by the network's name")
    options = parser.parse_args(arguments)

    network, header = network_named(options.model)
    if header is None:
        raise SystemExit(f"{options.model} is not trained: there is nothing to lose")
    data = options.data or header["data"]
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "float32.onnx"
        senet.export(network, source, header=header)
        for choice, how in CHOICES.items():
            file = Path(folder) / f"{len(rows)}.onnx"
            found = quantize_and_compare(source, file, data=data, images=options.images, most_lost=100, **how)
            before, after = found.rows
            if not rows:
                rows.append({"numbers": "float32"} | columns(before, source, data) | {"time": 1.0})
            time = after["ms_an_image"] / before["ms_an_image"]
            rows.append({"numbers": choice} | columns(after, file, data) | {"time": time})
    print(Table(rows))
    name = Path(options.model).name.replace(":", "-")
    settings = {
        "network": name,
        "data": open_data(data).description,
        "images to calibrate on": options.images,
    }
    write(options.out or RESULTS / f"quantization-{name}.json", rows, settings)


def columns(row: dict[str, Any], file: Path, data: str) -> dict[str, Any]:
    """What is told of a file: the same images in both engines."""
    in_openvino = evaluate_models(member_of(str(file), engine="openvino"), data=data).rows[0]
    return {
        "images": row["images"],
        "correct": row["correct1"],
        "correct in OpenVINO": in_openvino["correct1"],
        "same class %": row["same_class"],
        "bytes": row["bytes"],
    }


if __name__ == "__main__":
    main()
