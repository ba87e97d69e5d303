from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.acceleration.held import stirred
from tests.acceleration.networks import NETWORKS
from tests.deploy.small import header, network

import senet
from senet.deploy.artefact import opened_artefact
from senet.deploy.onnx import traced
from senet.deploy.quantization import gates_in, quantize
from senet.errors import DeploymentError, OptionError, WeightsError

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

GATE = {"GlobalAveragePool", "Sigmoid"}


def images(count: int = 3) -> list[Any]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(8, 3, 32, 32, generator=generator).numpy() for _ in range(count)]


def exported(path: Path, **options: Any) -> Path:
    senet.export(network(), path, size=32, header=header(), **options)
    return path


def inputs_of(model: Any, kinds: set[str]) -> Counter[str]:
    """What gives the inputs of nodes of these kinds."""
    made = {output: node.op_type for node in model.graph.node for output in node.output}
    return Counter(
        made[name]
        for node in model.graph.node
        if node.op_type in kinds
        for name in node.input
        if name in made
    )


@pytest.mark.parametrize("keep", ["gates", "scale", "nothing"])
def test_what_stays_in_float32(keep: str, tmp_path: Path) -> None:
    source = exported(tmp_path / "small.onnx")
    report = quantize(source, tmp_path / "small8.onnx", images(), keep=keep)
    model = onnx.load(tmp_path / "small8.onnx")
    assert report.gates == 3
    assert report.kept == (0 if keep == "nothing" else 3)
    assert 0 < report.bytes < report.bytes_before
    gates, products = inputs_of(model, {"Sigmoid"}), inputs_of(model, {"Mul"})
    assert ("DequantizeLinear" in gates) == (keep == "nothing")
    assert (products["DequantizeLinear"] == 6) == (keep != "scale")
    # A scale a channel for weights.
    scales = {each.name: onnx.numpy_helper.to_array(each) for each in model.graph.initializer}
    assert any(value.shape == (32,) for name, value in scales.items() if name.endswith("_scale"))


def test_scores_are_near_those_in_float32(tmp_path: Path) -> None:
    source = exported(tmp_path / "small.onnx")
    quantize(source, tmp_path / "small8.onnx", images())
    (given,) = images(1)
    before, after = (
        opened_artefact(tmp_path / name).session(given)[0] for name in ("small.onnx", "small8.onnx")
    )
    assert 0 < np.abs(before - after).max() < 0.05 * np.abs(before).max()
    found = opened_artefact(tmp_path / "small8.onnx")
    assert found.header["quantized"] == {"keep": "gates", "calibration": "minmax"}
    assert found.header["classes"] == header()["classes"]


@pytest.mark.parametrize("calibration", ["percentile", "entropy"])
def test_calibrations_are_quiet(calibration: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = exported(tmp_path / "small.onnx", pixels=True)
    pixels = [(each * 50 + 128).clip(0, 255).astype(np.uint8) for each in images()]
    quantize(source, tmp_path / "small8.onnx", pixels, calibration=calibration, reduce_range=True)
    assert opened_artefact(tmp_path / "small8.onnx").pixels
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["timm efficientnet", "torchvision", "inserted"])
def test_blocks_of_others_are_found_too(name: str, tmp_path: Path) -> None:
    """Also where others wrote the file, and not in the canonical form."""
    model = stirred(NETWORKS[name]()).float().eval()
    report = senet.export(model, tmp_path / "ours.onnx", size=64, batch=2, simplify=False)
    traced(model, torch.randn(2, 3, 64, 64), []).save(str(tmp_path / "theirs.onnx"))
    for file in ("ours.onnx", "theirs.onnx"):
        assert len(gates_in(onnx.load(tmp_path / file).graph)) == report.blocks > 0


def test_a_network_without_se(tmp_path: Path) -> None:
    senet.export(senet.build("resnet20", num_classes=4).eval(), tmp_path / "plain.onnx")
    report = quantize(tmp_path / "plain.onnx", tmp_path / "plain8.onnx", images())
    assert (report.gates, report.kept) == (0, 0)
    assert report.integers > 20


class Scaled(torch.nn.Module):
    """Scores of pooled means, times a number: no gate."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = torch.nn.Conv2d(3, 8, 3), torch.nn.Linear(8, 4)
        self.factor = torch.nn.Parameter(torch.full((4,), 1.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.fc(self.conv(x).mean((2, 3)))
        return scores * self.factor


def test_what_is_and_what_is_no_gate(tmp_path: Path) -> None:
    senet.export(Scaled().eval(), tmp_path / "scaled.onnx", size=32)
    assert not gates_in(onnx.load(tmp_path / "scaled.onnx").graph)
    # Gates that begin as the identity are twice a sigmoid.
    model = senet.build("resnet20", num_classes=4)
    senet.insert(model, init="identity")
    senet.export(stirred(model).float().eval(), tmp_path / "identity.onnx", size=32)
    assert len(gates_in(onnx.load(tmp_path / "identity.onnx").graph)) == 9


def test_images_of_another_size(tmp_path: Path) -> None:
    source = exported(tmp_path / "small.onnx")
    with pytest.raises(DeploymentError, match="ONNX Runtime cannot quantize it"):
        quantize(source, tmp_path / "small8.onnx", [np.zeros((1, 3, 48, 48), np.float32)])
    assert [each.name for each in tmp_path.iterdir()] == ["small.onnx"]


def test_what_cannot_be_quantized(tmp_path: Path) -> None:
    source, path = exported(tmp_path / "small.onnx"), tmp_path / "small8.onnx"
    with pytest.raises(OptionError, match=r"'gate' is unknown.*Did you mean 'gates'"):
        quantize(source, path, images(), keep="gate")
    with pytest.raises(OptionError, match="'max' is unknown"):
        quantize(source, path, images(), calibration="max")
    with pytest.raises(OptionError, match=r"does not end in \.onnx"):
        quantize(source, tmp_path / "small.pt2", images())
    with pytest.raises(WeightsError, match="there is no such file"):
        quantize(tmp_path / "none.onnx", path, images())
    quantize(source, path, images(1))
    with pytest.raises(OptionError, match="it is in integers already"):
        quantize(path, tmp_path / "again.onnx", images())
    assert {each.name for each in tmp_path.iterdir()} == {"small.onnx", "small8.onnx"}
