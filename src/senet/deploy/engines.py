"""The engines that run an exported network: opened, run, and asked what they made of it."""

from __future__ import annotations

import contextlib
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from senet.errors import DeploymentError, MissingExtraError, check_choice, first_line

Array = NDArray[Any]


class Session(Protocol):
    """A file, opened by an engine."""

    def __call__(self, images: Array) -> list[Array]:
        """What the network gives for images (N, C, H, W)."""


class Engine(Session, Protocol):
    """One that tells what it made of the file."""

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
        with _errors("onnxruntime", self.path):
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
        with _errors("onnxruntime", self.path):
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
        self.path = path
        with _errors("openvino", path):
            self.model = _only(openvino.Core).compile_model(str(path), "CPU", options)
            self.request = self.model.create_infer_request()

    def __call__(self, images: Array) -> list[Array]:
        """What the network gives for images (N, C, H, W)."""
        with _errors("openvino", self.path):
            results = self.request.infer([images])
        return [np.array(results[output]) for output in self.model.outputs]

    def operators(self) -> Counter[str]:
        """How many nodes of each kind there are in its runtime model; a Reorder moves a map."""
        ops = self.model.get_runtime_model().get_ops()
        return Counter(str(op.get_rt_info()["layerType"].value) for op in ops)


@contextlib.contextmanager
def _errors(engine: str, path: str | Path) -> Iterator[None]:
    """What an engine raises, whose errors are of no common kind, as DeploymentError."""
    try:
        yield
    except Exception as error:
        raise DeploymentError(f"{str(path)!r}", f"{engine} cannot run it ({first_line(error)})") from error


@cache
def _only(core: Callable[[], Any]) -> Any:
    """OpenVINO's one core of the process, never freed.

    A core gives the thread a stack for its signals. Two that are freed in the order in which they were
    made leave the thread with a stack that is gone, and the next signal that Python takes, as Ctrl-C,
    ends the process in a segmentation fault.
    """
    return core()


PYTORCH = "pytorch"

ENGINES: dict[str, type[OnnxRuntime] | type[OpenVino]] = {
    "onnxruntime": OnnxRuntime,
    "openvino": OpenVino,
}


def opened(path: str | Path, engine: str, *, threads: int | None = None) -> Engine:
    """A .onnx file, opened by an engine on the CPU.

    Raises:
        DeploymentError: the engine cannot run it, here or when it is called.
        MissingExtraError: the engine is not installed.
        OptionError: there is no such engine.
    """
    check_choice(f"engine={engine!r}", engine, ENGINES)
    return ENGINES[engine](path, threads)
