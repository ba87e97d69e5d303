import copy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.acceleration.held import stirred
from tests.acceleration.networks import NETWORKS, bottlenecks, inserted
from tests.deploy.small import DEFINITIONS, normed
from torch import Tensor, nn

import senet
from senet.deploy import export as exporting
from senet.deploy.engines import OnnxRuntime, opened
from senet.errors import DeploymentError, InsertionError, MissingExtraError, OptionError
from senet.models import resnet
from senet.models.registry import NetworkConfig
from senet.models.units import BottleneckUnit

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

BLOCK = ["GlobalAveragePool", "Conv", "Relu", "Conv", "Sigmoid", "Mul"]
MOVES = ("ReorderInput", "ReorderOutput")


def written(model: nn.Module, path: Path, **options: Any) -> Any:
    senet.export(model, path, **options)
    return onnx.load(path)


def bottleneck() -> nn.Module:
    return stirred(bottlenecks()).float().eval()


def test_a_block_is_six_nodes_of_the_standard(tmp_path: Path) -> None:
    model = bottleneck()
    report = senet.export(model, tmp_path / "small.onnx", size=32)
    graph = onnx.load(tmp_path / "small.onnx").graph
    assert {node.domain for node in graph.node} <= {""}
    made = {output: node for node in graph.node for output in node.output}
    products = [node for node in graph.node if node.op_type == "Mul"]
    assert len(products) == report.blocks == 3
    for node in products:
        kinds = [node.op_type]
        while kinds[0] != "GlobalAveragePool":
            # The gate is the second factor; what is not computed is a weight.
            node = made[node.input[1] if node.op_type == "Mul" else node.input[0]]
            kinds.insert(0, node.op_type)
        assert kinds == BLOCK
    assert report.nodes.total() == len(graph.node)
    assert "BatchNormalization" not in report.nodes


def test_the_report(tmp_path: Path) -> None:
    model = bottleneck()
    report = senet.export(model, tmp_path / "small.onnx", size=(32, 48))
    assert report.input == (-1, 3, 32, 48)
    assert [row["images"] for row in report.rows] == [f"{batch} x 3 x 32 x 48" for batch in (1, 2, 5)]
    assert all(0 <= row["difference"] <= 1e-5 for row in report.rows)
    text = str(report)
    assert "input of any x 3 x 32 x 48" in text
    assert "3 SE blocks in the canonical form" in text
    report.save(tmp_path / "checks.csv")
    assert (tmp_path / "checks.csv").read_text().count("\n") == 4


def blocks_of_16() -> nn.Module:
    """Each of its channels is in a whole block of ONNX Runtime."""
    row = resnet.Row(BottleneckUnit, (2, 1), planes=16, stem="conv3")
    config = NetworkConfig("se_resnet50", 4, se=senet.SEConfig(hidden=16), placement="standard")
    return stirred(resnet.ResNet(row, config)).float().eval()


def test_it_stays_in_the_blocked_layout_of_onnxruntime(tmp_path: Path) -> None:
    model = blocks_of_16()
    counts = {}
    for engine in (None, "onnxruntime"):
        senet.export(model, tmp_path / "small.onnx", size=32, engine=engine)
        made = opened(tmp_path / "small.onnx", "onnxruntime").operators()
        counts[engine] = [made[move] for move in MOVES]
        if engine is not None:
            assert made["Upsample"] == made["Mul"] == 3
            # They are in the convolutions that carry them.
            assert made["Add"] == made["Relu"] == 0
    assert counts["onnxruntime"] == [0, 1]
    assert sum(counts[None]) > 3


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_openvino_runs_it(engine: str, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    report = senet.export(bottleneck(), tmp_path / "small.onnx", size=32, engine=engine)
    assert {row["engine"] for row in report.rows} == {"onnxruntime", engine}
    operators = opened(tmp_path / "small.onnx", "openvino").operators()
    # Scale, sum and activation are one node, a block.
    assert operators["Eltwise"] + operators["Subgraph"] <= 2 * 3
    assert operators["Reorder"] <= 2


@pytest.mark.parametrize("name", ["inserted", "torchvision", "timm efficientnet", "user"])
def test_any_network_is_written(name: str, tmp_path: Path) -> None:
    model = stirred(NETWORKS[name]()).float().eval()
    before = copy.deepcopy(model.state_dict())
    for engine in (None, "onnxruntime"):
        report = senet.export(model, tmp_path / "found.onnx", size=64, batch=2, engine=engine)
        assert report.blocks > 0
        assert not report.left
        assert [row["images"] for row in report.rows] == ["2 x 3 x 64 x 64"]
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_any_size(tmp_path: Path) -> None:
    model = bottleneck()
    report = senet.export(model, tmp_path / "small.onnx", size="any")
    assert report.input == (-1, 3, -1, -1)
    session = opened(tmp_path / "small.onnx", "onnxruntime")
    images = torch.randn(3, 3, 40, 56)
    with torch.no_grad():
        np.testing.assert_allclose(session(images.numpy())[0], model(images), rtol=1e-4, atol=1e-5)
    with pytest.raises(OptionError, match='one size, for engine="onnxruntime"'):
        senet.export(model, tmp_path / "small.onnx", size="any", engine="onnxruntime")


def test_accelerated_and_simplified_networks_and_those_in_training(tmp_path: Path) -> None:
    model = stirred(inserted()).float().eval()
    plainly = senet.export(model, tmp_path / "a.onnx", size=32).nodes
    accelerated = copy.deepcopy(model)
    senet.accelerate(accelerated)
    for given in (accelerated, senet.simplify(model, scale=False), copy.deepcopy(model).train()):
        assert senet.export(given, tmp_path / "b.onnx", size=32).nodes == plainly
    assert given.training
    as_it_is = senet.export(model, tmp_path / "c.onnx", size=32, simplify=False)
    assert as_it_is.blocks == 3


class Wrong(OnnxRuntime):
    """Gives one number more than the network does."""

    def __call__(self, images: Any) -> Any:
        (scores,) = super().__call__(images)
        scores[0, 0] += 1e-4 * abs(scores).max() * (len(images) == 2)
        return [scores]


def test_a_file_that_computes_something_else_is_not_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "small.onnx").write_text("of before")
    monkeypatch.setattr(exporting, "opened", lambda path, engine: Wrong(path))
    with pytest.raises(
        DeploymentError, match=r"in onnxruntime, for images of \(2, 3, 32, 32\), it is wrong by .*: nothing"
    ):
        senet.export(bottleneck(), tmp_path / "small.onnx", size=32)
    assert [path.name for path in tmp_path.iterdir()] == ["small.onnx"]
    assert (tmp_path / "small.onnx").read_text() == "of before"


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch.onnx.ONNXProgram, "save", full)
    with pytest.raises(DeploymentError, match="No space left"):
        senet.export(bottleneck(), tmp_path / "small.onnx", size=32)
    assert not list(tmp_path.iterdir())


class Depends(nn.Module):
    """What it does depends on numbers, which no graph holds."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x if float(x.sum()) > 0 else -x


def test_what_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, model = tmp_path / "found.onnx", bottlenecks().eval()
    with pytest.raises(DeploymentError, match=r"PyTorch cannot write it \(.+\)"):
        senet.export(Depends(), path, size=8, simplify=False)
    with pytest.raises(DeploymentError, match=r"parameters of torch.float64.*Convert it with .float()"):
        senet.export(bottlenecks().double(), path)
    with pytest.raises(InsertionError, match="DataParallel"):
        senet.export(nn.DataParallel(model), path)
    for wrong in ({"batch": 0}, {"batch": "all"}, {"size": (1, 2, 3)}, {"size": 0}, {"size": True}):
        with pytest.raises(OptionError, match=next(iter(wrong))):
            senet.export(model, path, **wrong)
    with pytest.raises(DeploymentError, match="there is no folder"):
        senet.export(model, tmp_path / "none" / "found.onnx")
    with pytest.raises(DeploymentError, match="there is a folder of that name"):
        senet.export(model, tmp_path)
    with pytest.raises(OptionError, match=r"'onx' is unknown.*Did you mean 'onnx'"):
        senet.export(model, path, to="onx")
    with pytest.raises(OptionError, match="'tensorrt' is unknown"):
        senet.export(model, path, engine="tensorrt")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'senet\[onnx\]'"):
        senet.export(model, path)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("name", DEFINITIONS)
def test_every_architecture(name: str, tmp_path: Path) -> None:
    """Bar R23: batches of 1, 2 and 5, standard operators, 1e-5 of the largest number in both engines."""
    pytest.importorskip("openvino")
    report = senet.export(normed(name), tmp_path / "found.onnx", engine="openvino")
    assert len(report.rows) == 6
    assert not report.left
    assert report.blocks > 0
    graph = onnx.load(tmp_path / "found.onnx").graph
    assert {node.domain for node in graph.node} <= {""}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "theirs", "ours"),
    [("timm:seresnet50", 60, 1), ("timm:efficientnet_b0", 60, 7), ("torchvision:mobilenet_v3_large", 30, 7)],
)
def test_reorders_of_whole_networks(name: str, theirs: int, ours: int, tmp_path: Path) -> None:
    """Nodes of ONNX Runtime that move a map: as PyTorch writes the network, and in our form."""
    pytest.importorskip("timm")
    model = senet.load(name).eval()
    program: Any = torch.onnx.export(model, (torch.randn(1, 3, 224, 224),), dynamo=True, verbose=False)
    program.save(str(tmp_path / "theirs.onnx"))
    senet.export(model, tmp_path / "ours.onnx", size=224, engine="onnxruntime")
    found = []
    for file in ("theirs.onnx", "ours.onnx"):
        operators = opened(tmp_path / file, "onnxruntime").operators()
        found.append(sum(operators[move] for move in MOVES))
    assert found[0] >= theirs
    assert found[1] <= ours
