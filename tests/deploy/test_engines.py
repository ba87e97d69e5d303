import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from senet.deploy.engines import ENGINES, opened
from senet.errors import MissingExtraError, OptionError

onnx = pytest.importorskip("onnx")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A convolution of each channel with 2, and a mean over positions."""
    weight = onnx.numpy_helper.from_array(np.full((16, 1, 1, 1), 2, np.float32), "weight")
    nodes = [
        onnx.helper.make_node("Conv", ["images", "weight"], ["map"], group=16),
        onnx.helper.make_node("ReduceMean", ["map"], ["mean"], axes=[2, 3], keepdims=0),
    ]
    sizes = [onnx.helper.make_tensor_value_info("images", 1, ["batch", 16, 4, 4])]
    results = [onnx.helper.make_tensor_value_info(name, 1, None) for name in ("map", "mean")]
    graph = onnx.helper.make_graph(nodes, "graph", sizes, results, [weight])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, tmp_path / "small.onnx")
    return tmp_path / "small.onnx"


@pytest.mark.parametrize("engine", ENGINES)
def test_it_runs_and_says_what_it_made_of_the_graph(engine: str, file: Path) -> None:
    pytest.importorskip(engine)
    session = opened(file, engine, threads=1)
    for batch in (1, 3):
        images = np.random.default_rng(0).standard_normal((batch, 16, 4, 4)).astype(np.float32)
        doubled, mean = session(images)
        np.testing.assert_array_equal(doubled, 2 * images)
        np.testing.assert_allclose(mean, 2 * images.mean((2, 3)), rtol=1e-5, atol=1e-6)
    operators = session.operators()
    convolution, reduction = ("Conv", "ReduceMean") if engine == "onnxruntime" else ("Convolution", "Reduce")
    assert operators[convolution] == operators[reduction] == 1


def test_nothing_is_left_beside_the_file(file: Path) -> None:
    pytest.importorskip("onnxruntime")
    before = set(file.parent.iterdir())
    opened(file, "onnxruntime").operators()
    assert set(file.parent.iterdir()) == before


def test_signals_are_taken_after_sessions_are_freed(file: Path) -> None:
    pytest.importorskip("openvino")
    program = f"""
import signal
from senet.deploy.engines import opened
signal.signal(signal.SIGTERM, lambda *_: print("taken"))
first, second = (opened({str(file)!r}, "openvino") for _ in range(2))
del first
del second
signal.raise_signal(signal.SIGTERM)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (0, "taken\n"), ended.stderr


def test_an_unknown_engine(file: Path) -> None:
    with pytest.raises(OptionError, match="Did you mean 'openvino'"):
        opened(file, "open_vino")


@pytest.mark.parametrize(("engine", "extra"), [("onnxruntime", "onnx"), ("openvino", "openvino")])
def test_an_engine_that_is_not_installed(
    engine: str, extra: str, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, engine, None)
    with pytest.raises(MissingExtraError, match=rf"pip install 'senet\[{extra}\]'"):
        opened(file, engine)
