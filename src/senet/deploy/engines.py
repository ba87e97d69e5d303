"""The engines that run an exported network: opened, run, and asked what they made of it."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from senet.errors import MissingExtraError, check_choice

Array = NDArray[Any]


class Session(Protocol):
    """A file, opened by an engine on the CPU."""

    def __call__(self, images: Array) -> list[Array]:
        """What the network gives for images (N, C, H, W)."""

    def operators(self) -> Counter[str]:
        """How many nodes of each kind there are in the graph that the engine runs."""


class OnnxRuntime:
    """ONNX Runtime.

    Args:
        path: a .onnx file.
        threads: None leaves it to the engine.
    """

    def __init__(self, path: str | Path, threads: int | None = None) -> None:
        self.path = path
        self.session = self._opened(threads)
        self.name = self.session.get_inputs()[0].name

    def __call__(self, images: Array) -> list[Array]:
        """What the network gives for images (N, C, H, W)."""
        given: list[Array] = self.session.run(None, {self.name: images})
        return given

    def operators(self) -> Counter[str]:
        """How many nodes of each kind there are in its optimised graph; Reorder* move maps."""
        import onnx

        with tempfile.TemporaryDirectory() as folder:
            written = Path(folder) / "optimised.onnx"
            self._opened(None, written)
            graph = onnx.load(written, load_external_data=False).graph
        return Counter(node.op_type for node in graph.node)

    def _opened(self, threads: int | None, write: Path | None = None) -> Any:
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingExtraError.of("onnxruntime", extra="onnx", need="running ONNX files") from error
        options = onnxruntime.SessionOptions()
        # What it says of a graph that is written for this machine alone is known.
        options.log_severity_level = 3
        if threads is not None:
            options.intra_op_num_threads = threads
        if write is not None:
            options.optimized_model_filepath = str(write)
        return onnxruntime.InferenceSession(
            str(self.path), sess_options=options, providers=["CPUExecutionProvider"]
        )


class OpenVino:
    """OpenVINO, in float32, for latency.

    Args:
        path: a .onnx file.
        threads: None leaves it to the engine.
    """

    def __init__(self, path: str | Path, threads: int | None = None) -> None:
        try:
            import openvino
        except ImportError as error:
            raise MissingExtraError.of(
                "openvino", extra="openvino", need="running a network in OpenVINO"
            ) from error
        # By itself it takes bfloat16 where the CPU has it.
        options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        if threads is not None:
            options["INFERENCE_NUM_THREADS"] = str(threads)
        self.model = _only(openvino.Core).compile_model(str(path), "CPU", options)
        self.request = self.model.create_infer_request()

    def __call__(self, images: Array) -> list[Array]:
        """What the network gives for images (N, C, H, W)."""
        results = self.request.infer([images])
        return [np.array(results[output]) for output in self.model.outputs]

    def operators(self) -> Counter[str]:
        """How many nodes of each kind there are in its runtime model; a Reorder moves a map."""
        ops = self.model.get_runtime_model().get_ops()
        return Counter(str(op.get_rt_info()["layerType"].value) for op in ops)


@cache
def _only(core: Callable[[], Any]) -> Any:
    """OpenVINO's one core of the process, never freed.

    A core gives the thread a stack for its signals. Two that are freed in the order in which they were
    made leave the thread with a stack that is gone, and the next signal that Python takes, as Ctrl-C,
    ends the process in a segmentation fault.
    """
    return core()


ENGINES: dict[str, type[OnnxRuntime] | type[OpenVino]] = {
    "onnxruntime": OnnxRuntime,
    "openvino": OpenVino,
}


def opened(path: str | Path, engine: str, *, threads: int | None = None) -> Session:
    """A .onnx file, opened by an engine on the CPU.

    Raises:
        MissingExtraError: the engine is not installed.
        OptionError: there is no such engine.
    """
    check_choice(f"engine={engine!r}", engine, ENGINES)
    return ENGINES[engine](path, threads)
