import json
from pathlib import Path
from typing import Any

import pytest
from tests.deploy.small import preprocessing

import senet
from senet.cli import main

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.fixture
def exported(image_folder: Path) -> str:
    said = {"preprocessing": preprocessing().to_dict(), "data": f"folder:{image_folder}"}
    senet.export(senet.build("se_resnet20", num_classes=2).eval(), "a.onnx", header=said)
    return "a.onnx"


def test_before_and_after(exported: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--out", "a8.onnx", "--images", "4", "--most_lost", "100"]
    assert main(["quantize", exported, *words, "--json"]) == 0
    rows: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    assert [row["numbers"] for row in rows] == ["float32", "8-bit integers"]
    assert [row["file"] for row in rows] == [exported, "a8.onnx"]
    assert rows[0]["keep"] == "gates"
    assert rows[1]["bytes"] == Path("a8.onnx").stat().st_size
    assert main(["quantize", exported, *words, "--keep", "nothing"]) == 0
    assert "0 of 9 SE blocks in float32" in capsys.readouterr().out
    # It is a file to evaluate, also beside the other.
    assert main(["eval", exported, "a8.onnx", "--json"]) == 0
    assert [row["images"] for row in json.loads(capsys.readouterr().out)] == [4, 4, 4]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--keep", "all"], "'all' is unknown"),
        (["--images", "0"], "--images=0"),
        (["--workers", "-1"], "--workers=-1"),
        (["--most_lost", "-1"], "--most_lost=-1"),
        (["--data", "folder:none"], "none"),
    ],
)
def test_what_is_not_possible(
    words: list[str], said: str, exported: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["quantize", exported, "--out", "a8.onnx", *words]) == 1
    assert said in capsys.readouterr().err
    assert not Path("a8.onnx").exists()
