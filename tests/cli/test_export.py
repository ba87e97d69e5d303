import json
from pathlib import Path
from typing import Any

import pytest
from tests.deploy.small import CLASSES, preprocessing

import senet
from senet.cli import main
from senet.deploy.artefact import opened_artefact

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.fixture
def weights() -> str:
    header = {"classes": CLASSES, "preprocessing": preprocessing().to_dict()}
    senet.weights.save(senet.build("se_resnet20", num_classes=4), "w.safetensors", header=header)
    return "w.safetensors"


@pytest.mark.parametrize("to", ["onnx", "pt2"])
def test_weights_as_a_file_for_others(to: str, weights: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", weights, "--out", f"a.{to}", "--pixels"]) == 0
    out, err = capsys.readouterr()
    assert "input of any x 3 x 32 x 32 pixels" in out
    assert "9 SE blocks in the canonical form" in out
    assert not err
    assert opened_artefact(f"a.{to}").header["classes"] == CLASSES


def test_for_programs(weights: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "--out",
        "a.onnx",
        "--to",
        "onnx",
        "--batch",
        "2",
        "--size",
        "40x24",
        "--simplify",
        "false",
        "--json",
    ]
    assert main(["export", weights, *words]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert found["input"] == [2, 3, 40, 24]
    assert found["nodes"]["Conv"] > 20
    assert [each["images"] for each in found["checks"]] == ["2 x 3 x 40 x 24"]
    assert found["path"] == "a.onnx"


def test_fresh_networks_and_those_of_others(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--size", "32", "--preprocessing", "imagenet,size=32,resize=32"]
    assert main(["export", "torchvision:resnet18", "--out", "a.onnx", *words]) == 0
    assert "The weights are fresh: this network knows nothing" in capsys.readouterr().err
    assert opened_artefact("a.onnx").header["preprocessing"]["mean"] == [0.485, 0.456, 0.406]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--out", "a.onnx", "--to", "pt2"], "by its ending a file is known"),
        (["--out", "a.tflite"], "Allowed: .onnx for onnx, .pt2 for pt2"),
        (["--out", "none/a.onnx"], "there is no folder"),
        (["--out", "a.onnx", "--batch", "0"], "--batch '0'"),
        (["--out", "a.onnx", "--size", "1x2x3"], "--size '1x2x3'"),
        (
            ["--out", "a.onnx", "--size", "64x"],
            "--size '64x': it is no size. Allowed: pixels, HEIGHTxWIDTH, any",
        ),
        (["--out", "a.pt2", "--engine", "openvino"], "engine"),
        (["--out", "a.onnx", "--weights", "w.safetensors"], "the weights are of se_resnet20"),
    ],
)
def test_what_is_not_possible(
    words: list[str], said: str, weights: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", "resnet20", *words]) == 1
    assert said in capsys.readouterr().err
    assert [path.name for path in Path().iterdir()] == [weights]
