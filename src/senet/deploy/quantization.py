"""``quantize``: an ONNX file in 8-bit integers, its gates computed in float32.

Weights and maps are rounded to 256 steps between the extremes that calibration images show. A map survives
that; a gate is made of C means by two small layers, of which every map is multiplied, and what is rounded
there is wrong at each position. Its cost in float32 is small, as it has one position.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from senet.deploy import header as headers
from senet.deploy.artefact import opened_artefact
from senet.deploy.engines import opened as opened_session
from senet.errors import DeploymentError, MissingExtraError, OptionError, SenetError, check_choice, first_line
from senet.files import replacing

# What stays in float32.
KEEP = {
    "gates": "squeeze and excitation; the product with the map is in integers",
    "scale": "these, and the product",
    "nothing": "nothing: gates are in integers as all else",
}
CALIBRATIONS = {"minmax": "MinMax", "percentile": "Percentile", "entropy": "Entropy"}

_POOLS = ("GlobalAveragePool", "ReduceMean")
# From the product back to the pool: two layers, what activates them, and what shapes their vectors.
_MOST_NODES = 20


@dataclass(frozen=True)
class Quantized:
    """What ``quantize`` wrote.

    Args:
        path: the file.
        gates: SE blocks that were found.
        kept: those of them that stay in float32.
        integers: nodes between rounded inputs and a rounded output.
        bytes_before: of the file in float32.
        bytes: of this one.
    """

    path: Path
    gates: int
    kept: int
    integers: int
    bytes_before: int
    bytes: int

    def __str__(self) -> str:
        return (
            f"{self.path}: {self.integers} nodes in 8-bit integers, {self.kept} of {self.gates} SE blocks in "
            f"float32; {self.bytes:,} bytes, {self.bytes / self.bytes_before:.2f} of {self.bytes_before:,}"
        )


def quantize(
    source: str | Path,
    path: str | Path,
    images: Iterable[NDArray[Any]],
    *,
    keep: str = "gates",
    calibration: str = "minmax",
    reduce_range: bool = False,
) -> Quantized:
    """Writes an ONNX file in 8-bit integers (QDQ): weights signed, a scale a channel; maps unsigned.

    Args:
        source: an .onnx file in float32, best the canonical one of ``senet.export``.
        path: of the file in integers; what is there is replaced.
        images: batches (N, C, H, W) as the file takes them, as will come; some hundred images.
        keep: what stays in float32: "gates", "scale" (the product too) or "nothing".
        calibration: between which values maps are rounded: "minmax", their extremes; "percentile" cuts off
            0.001 % at each end; "entropy" chooses by the divergence of the distributions. These two hold
            all maps of all images in memory.
        reduce_range: weights of 7 bits, for x86 CPUs without VNNI, whose sums of two products overflow.

    Returns:
        The report.

    Raises:
        DeploymentError: ONNX Runtime cannot quantize or run it.
        MissingExtraError: a package of the extra ``onnx`` is not installed.
        OptionError: there is no such choice, or the file is in integers already.
        WeightsError: there is no such file, or it is damaged.
    """
    asked = f"quantize({str(source)!r})"
    check_quantization(asked, source, path, keep, calibration)
    source, path = Path(source), Path(path)
    opened = opened_artefact(source)
    try:
        import onnx
        from onnxruntime import quantization as tool
    except ImportError as error:
        raise MissingExtraError.of("onnxruntime", extra="onnx", need="quantizing") from error
    model = onnx.load(source)
    if any(node.op_type == "QuantizeLinear" for node in model.graph.node):
        raise OptionError(asked, "it is in integers already", "a file in float32")
    for number, node in enumerate(model.graph.node):
        # Nodes are kept by their names, which are not everybody's habit.
        node.name = node.name or f"node_{number}"
    blocks = gates_in(model.graph)
    left = [name for gate in blocks if keep != "nothing" for name in gate.nodes]
    left += [gate.product for gate in blocks if keep == "scale"]

    class Reader(tool.CalibrationDataReader):  # type: ignore[misc, unused-ignore]
        def __init__(self) -> None:
            self.batches = iter(images)
            self.name = model.graph.input[0].name

        def get_next(self) -> dict[str, Any] | None:
            batch = next(self.batches, None)
            return None if batch is None else {self.name: np.ascontiguousarray(batch)}

    said = {**opened.header, "quantized": {"keep": keep, "calibration": calibration}}
    try:
        with replacing(path) as temporary, _quiet():
            tool.quantize_static(
                model,
                temporary,
                Reader(),
                quant_format=tool.QuantFormat.QDQ,
                per_channel=True,
                reduce_range=reduce_range,
                # On x86 signed activations have no fast products.
                activation_type=tool.QuantType.QUInt8,
                weight_type=tool.QuantType.QInt8,
                nodes_to_exclude=left,
                calibrate_method=getattr(tool.CalibrationMethod, CALIBRATIONS[calibration]),
            )
            done = onnx.load(temporary)
            del done.metadata_props[:]
            onnx.helper.set_model_props(done, {headers.KEY: headers.written(asked, said)})
            onnx.save(done, temporary)
            # What the engine does not run is no file.
            opened_session(temporary, "onnxruntime")
    except SenetError:
        raise
    except Exception as error:  # the engine's errors are of no common kind
        raise DeploymentError(asked, f"ONNX Runtime cannot quantize it ({first_line(error)})") from error
    made = {name for node in done.graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    integers = sum(
        node.op_type not in ("QuantizeLinear", "DequantizeLinear") and bool(set(node.input) & made)
        for node in done.graph.node
    )
    sizes = source.stat().st_size, path.stat().st_size
    return Quantized(path, len(blocks), len(blocks) * (keep != "nothing"), integers, *sizes)


def check_quantization(asked: str, source: str | Path, path: str | Path, keep: str, calibration: str) -> None:
    """Raises OptionError where ``quantize`` is asked for what it does not do."""
    check_choice(f"{asked}: keep={keep!r}", keep, KEEP)
    check_choice(f"{asked}: calibration={calibration!r}", calibration, CALIBRATIONS)
    for each in map(Path, (source, path)):
        if each.suffix != ".onnx":
            raise OptionError(asked, f"{each.name!r} does not end in .onnx", "ONNX files")
    if Path(path).exists() and Path(path).samefile(source):
        raise OptionError(asked, "it would replace the file in float32", do="Name another file.")


@dataclass(frozen=True)
class Gate:
    """An SE block in an ONNX graph, by the names of its nodes.

    Args:
        nodes: from the pool to the gate.
        product: multiplies the map.
    """

    nodes: tuple[str, ...]
    product: str


def gates_in(graph: Any) -> list[Gate]:
    """The SE blocks of an ONNX graph: products of a map with what is computed of pooled means alone."""
    made = {output: node for node in graph.node for output in node.output}
    images = {each.name for each in graph.input} - {each.name for each in graph.initializer}
    found = []
    for node in graph.node:
        if node.op_type != "Mul":
            continue
        # A product of two vectors, or of one with a number, is within a gate or a classifier.
        for gate, other in (node.input, reversed(node.input)):
            path = _from_pool(gate, made, images)
            if path and _is_map(other, made, images):
                found.append(Gate(tuple(sorted(path)), node.name))
    return found


def _from_pool(value: str, made: dict[str, Any], images: set[str]) -> set[str]:
    """The names of the nodes that compute a value of pooled means; none where more goes into it."""
    path: set[str] = set()
    pooled, todo = False, [value]
    while todo:
        name = todo.pop()
        node = made.get(name)
        if name in images or len(path) > _MOST_NODES:
            return set()
        if node is None or node.name in path:
            continue  # a weight
        path.add(node.name)
        if node.op_type in _POOLS:
            pooled = True
        else:
            todo += node.input
    return path if pooled else set()


def _is_map(value: str, made: dict[str, Any], images: set[str]) -> bool:
    """Whether a value comes from the images by a way without a pool."""
    seen: set[str] = set()
    todo = [value]
    while todo:
        name = todo.pop()
        if name in images:
            return True
        node = made.get(name)
        if node is not None and node.name not in seen and node.op_type not in _POOLS:
            seen.add(node.name)
            todo += node.input
    return False


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """ONNX Runtime's tools print what they do, and warn of what is meant so."""
    root, before = logging.getLogger(), logging.root.manager.disable
    handlers = list(root.handlers)
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)
        # Its first warning gives the program a handler.
        root.handlers[:] = handlers
