import json
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.deploy.small import preprocessing

import senet

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
pytest.importorskip("openvino")

# Scripts, that find each other beside them.
sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import quantization


def test_each_choice_classifies_the_same_images(
    tmp_path: Path, image_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = f"folder:{image_folder}"
    said = {"preprocessing": preprocessing().to_dict(), "data": data}
    senet.weights.save(senet.build("se_resnet20", num_classes=2), tmp_path / "w.safetensors", header=said)
    monkeypatch.setattr(quantization, "CHOICES", {"a": {}, "b": {"keep": "nothing"}})
    words = ["--images", "4", "--out", str(tmp_path / "found.json")]
    quantization.main([str(tmp_path / "w.safetensors"), *words])
    found: dict[str, Any] = json.loads((tmp_path / "found.json").read_text())
    rows = found["rows"]
    assert [row["numbers"] for row in rows] == ["float32", "a", "b"]
    assert all(row["images"] == 4 and 0 <= row["correct in OpenVINO"] <= 4 for row in rows)
    assert rows[1]["bytes"] < rows[0]["bytes"]
    assert min(row["time"] for row in rows) > 0
