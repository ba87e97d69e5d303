from pathlib import Path

import pytest
import torch
from tests.deploy.small import header, network

import senet
from senet.deploy.engines import opened
from senet.deploy.onnx import ends, traced, with_outputs

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


def test_the_file_names_nothing_of_the_machine_that_wrote_it(tmp_path: Path) -> None:
    senet.export(network(), tmp_path / "small.onnx", header=header())
    model = onnx.load(tmp_path / "small.onnx")
    assert [each.key for each in model.metadata_props] == ["senet"]
    assert not any(node.metadata_props for node in model.graph.node)
    assert str(Path(senet.__file__).parent).encode() not in (tmp_path / "small.onnx").read_bytes()
    onnx.checker.check_model(model, full_check=True)


def test_values_between_are_named_by_modules(tmp_path: Path) -> None:
    model = network()
    program = traced(model, torch.randn(2, 3, 32, 32), [0])
    names = ends(program)
    assert {"layer1.0.bn3", "layer2", "fc"} <= names.keys()
    program.save(str(tmp_path / "small.onnx"))
    outputs = with_outputs(tmp_path / "small.onnx", [names["layer1"], names["fc"]], tmp_path / "wider.onnx")
    assert outputs == [names["fc"], names["layer1"]]
    images, seen = torch.randn(3, 3, 32, 32), []
    model.get_submodule("layer1").register_forward_hook(lambda *given: seen.append(given[-1]))
    with torch.no_grad():
        scores = model(images)
    given = opened(tmp_path / "wider.onnx", "onnxruntime")(images.numpy())
    torch.testing.assert_close(torch.from_numpy(given[0]), scores, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(torch.from_numpy(given[1]), seen[0], rtol=1e-4, atol=1e-5)
