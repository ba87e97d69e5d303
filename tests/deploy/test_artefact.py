from pathlib import Path

import numpy as np
import pytest
import torch
from tests.deploy.small import CLASSES, header, network

import senet
from senet.deploy.artefact import ExportedNetwork, is_artefact, opened_artefact, takes_engine
from senet.deploy.onnx import traced
from senet.errors import DeploymentError, OptionError, ShapeError, WeightsError

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.mark.parametrize("to", ["onnx", "pt2"])
def test_what_a_file_says_of_itself(to: str, tmp_path: Path) -> None:
    path = tmp_path / f"small.{to}"
    senet.export(network(), path, to=to, header=header(data="digits"), pixels=True)
    found = opened_artefact(path)
    assert found.input == (-1, 3, 32, 32)
    assert found.pixels
    assert found.header["classes"] == CLASSES
    assert found.header["data"] == "digits"
    assert found.header["preprocessing"]["size"] == 32
    assert found.header["network"] == "se_resnet50"


@pytest.mark.parametrize("to", ["onnx", "pt2"])
@pytest.mark.parametrize("batch", ["any", 3])
def test_a_module_runs_any_batch(to: str, batch: int, tmp_path: Path) -> None:
    model, path = network(), tmp_path / f"small.{to}"
    senet.export(model, path, to=to, size=32, batch=batch)
    exported = ExportedNetwork(opened_artefact(path))
    for images in (torch.randn(count, 3, 32, 32) for count in (1, 3, 7)):
        with torch.no_grad():
            wanted = model(images)
        torch.testing.assert_close(exported(images), wanted, rtol=1e-4, atol=1e-5)
    with pytest.raises(ShapeError, match="it takes images of 3 x 32 x 32"):
        exported(torch.randn(1, 3, 48, 48))


def test_openvino_runs_it_too(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    model, path = network(), tmp_path / "small.onnx"
    senet.export(model, path, size=32)
    images = torch.randn(4, 3, 32, 32)
    found = ExportedNetwork(opened_artefact(path, "openvino"))(images)
    with torch.no_grad():
        torch.testing.assert_close(found, model(images), rtol=1e-4, atol=1e-5)


def test_a_file_of_others(tmp_path: Path) -> None:
    traced(torch.nn.Conv2d(3, 4, 1).eval(), torch.zeros(1, 3, 8, 8), []).save(str(tmp_path / "theirs.onnx"))
    found = opened_artefact(tmp_path / "theirs.onnx")
    assert (found.header, found.input, found.pixels) == ({}, (1, 3, 8, 8), False)
    assert np.shape(found.session(np.zeros((1, 3, 8, 8), np.float32))[0]) == (1, 4, 8, 8)


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    path = tmp_path / "small.onnx"
    with pytest.raises(WeightsError, match="there is no such file"):
        opened_artefact(path)
    for content in (b"", b"no network", bytes(range(256))):
        path.write_bytes(content)
        with pytest.raises(WeightsError, match=r"small\.onnx': (this is no whole ONNX|it takes no images)"):
            opened_artefact(path)
    senet.export(network(), path, size=32)
    with pytest.raises(OptionError, match="'tensorrt' is unknown"):
        opened_artefact(path, "tensorrt")
    # Its engine is on the CPU, wherever images are.
    assert opened_artefact(path, device="cuda").input == (-1, 3, 32, 32)
    model = onnx.load(path)
    model.graph.node[0].op_type = "Nothing"
    onnx.save(model, path)
    with pytest.raises(DeploymentError, match="onnxruntime cannot run it"):
        opened_artefact(path)
    senet.export(network(), tmp_path / "small.pt2", to="pt2", size=32)
    with pytest.raises(OptionError, match="'openvino' is unknown"):
        opened_artefact(tmp_path / "small.pt2", "openvino")


def test_which_names_are_files_of_that_kind() -> None:
    assert is_artefact("a/b.onnx")
    assert is_artefact("b.PT2")
    assert takes_engine("a.ONNX")
    assert not takes_engine("b.pt2")
    assert not is_artefact("se_resnet50")
    assert not is_artefact("w.safetensors")
