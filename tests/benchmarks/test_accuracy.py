"""Accuracy before and after: what turns a prediction by more than rounding is not reported."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import senet
from senet.evaluation.classification import Scored

pytest.importorskip("onnxscript")
pytest.importorskip("openvino")
pytest.importorskip("sklearn")

# Scripts, that find each other beside them.
sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import accuracy


def test_every_form_classifies_all_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = senet.build("se_resnet20", num_classes=10, in_channels=1)
    senet.weights.save(model, tmp_path / "trained.safetensors")
    out = tmp_path / "found.json"
    images = "--data digits --preprocessing data".split()
    accuracy.main([str(tmp_path / "trained.safetensors"), *images, "--out", str(out)])
    found = json.loads(out.read_text())
    assert [row["form"] for row in found["rows"]] == [
        "as it is", "norms",
        "canonical, onnxruntime", "canonical, openvino", "blocked, onnxruntime", "blocked, openvino",
    ]  # fmt: skip
    assert len({row["images"] for row in found["rows"]}) == 1
    for row in found["rows"][1:]:
        # Each image whose prediction turned is right in one of the two at most.
        assert abs(row["correct"] - found["rows"][0]["correct"]) <= row["turned"]
        assert 0 < row["difference"] <= 1e-5
    assert "squeeze: there is no squeeze to rewrite" in capsys.readouterr().out


def test_random_weights_have_no_accuracy() -> None:
    with pytest.raises(SystemExit, match="se_resnet20 is not trained"):
        accuracy.main(["se_resnet20", "--data", "digits"])


@pytest.mark.parametrize(
    ("now", "found"),
    [
        ([[2.0, 1.0], [1.0, 1.000001]], {"turned": 1}),
        ([[2.001, 1.0], [1.000001, 1.0]], "wrong by"),
    ],
)
def test_only_rounding_turns_a_prediction(now: list[list[float]], found: Any) -> None:
    labels = torch.zeros(2, dtype=torch.int64)
    was = Scored(torch.tensor([[2.0, 1.0], [1.000001, 1.0]]), labels, [])
    scored = Scored(torch.tensor(now), labels, [])
    if isinstance(found, str):
        with pytest.raises(SystemExit, match=found):
            accuracy.changes("this", [was], [scored])
    else:
        assert accuracy.changes("this", [was], [scored]).items() >= found.items()
