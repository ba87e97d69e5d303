import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.deploy.small import CLASSES, preprocessing
from torch import nn

import senet
from senet.deploy import cost
from senet.deploy.artefact import opened_artefact
from senet.deploy.cost import quantize_and_compare
from senet.errors import DataError, DeploymentError, OptionError, WeightsError

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.fixture
def exported(tmp_path: Path, image_folder: Path) -> Path:
    """A network for the two classes of the image folder."""
    model = senet.build("se_resnet20", num_classes=2)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model(torch.randn(8, 3, 32, 32))
    said = {
        "classes": ["cat", "dog"],
        "preprocessing": preprocessing().to_dict(),
        "data": f"folder:{image_folder}",
    }
    senet.export(model.eval(), tmp_path / "a.onnx", header=said)
    return tmp_path / "a.onnx"


def test_both_are_evaluated_on_the_same_images(exported: Path, tmp_path: Path) -> None:
    found = quantize_and_compare(exported, tmp_path / "a8.onnx", images=4, batch_size=2, most_lost=100)
    before, after = found.rows
    assert before["images"] == after["images"] == 4
    assert before["same_class"] == 100
    assert after["bytes"] == (tmp_path / "a8.onnx").stat().st_size < before["bytes"]
    assert min(found.milliseconds) > 0
    text = str(found)
    assert text.startswith(f"{tmp_path / 'a8.onnx'}: ")
    assert "9 of 9 SE blocks in float32" in text
    found.save(tmp_path / "cost.json")
    assert json.loads((tmp_path / "cost.json").read_text()) == found.rows
    again = quantize_and_compare(
        tmp_path / "a.onnx", tmp_path / "b8.onnx", images=4, batch_size=2, most_lost=100
    )
    # One command gives one file.
    assert (tmp_path / "b8.onnx").read_bytes() == (tmp_path / "a8.onnx").read_bytes()
    assert again.same == found.same


def test_a_file_of_other_classes_is_refused(tmp_path: Path) -> None:
    said = {"preprocessing": preprocessing().to_dict()}
    senet.export(senet.build("se_resnet20", num_classes=10).eval(), tmp_path / "a.onnx", header=said)
    with pytest.raises(WeightsError, match=r"it gives scores of \(10,\), the data has 12 classes"):
        quantize_and_compare(
            tmp_path / "a.onnx", tmp_path / "b.onnx", data="fake:3x32x32,images=24,classes=12"
        )
    assert not (tmp_path / "b.onnx").exists()


def test_nothing_is_left_where_too_much_is_lost(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a8.onnx").write_text("of before")
    evaluated = cost._evaluated

    def worse(*given: object) -> object:
        (before, _), same = evaluated(*given)  # type: ignore[arg-type]
        return (type(before)(4, 4, 4, 0.0), type(before)(4, 3, 4, 0.0)), same

    monkeypatch.setattr(cost, "_evaluated", worse)
    with pytest.raises(DeploymentError, match=r"it loses 25\.00 points of 100\.00 % top-1.*nothing"):
        quantize_and_compare(exported, tmp_path / "a8.onnx", images=2)
    assert (tmp_path / "a8.onnx").read_text() == "of before"
    assert {each.name for each in tmp_path.iterdir()} == {"a.onnx", "a8.onnx", "images"}


def test_images_to_calibrate_on(image_folder: Path) -> None:
    source = senet.data.open_data(f"folder:{image_folder}").train

    def sizes(count: int, batch_size: int, whole: bool) -> list[int]:
        return [len(each) for each in cost._batches(source, preprocessing(), count, batch_size, whole=whole)]

    assert sizes(5, 4, False) == [4, 1]
    assert sizes(100, 4, False) == [4, 2]
    # Where a file takes only whole batches, some images come twice.
    assert sizes(5, 4, True) == [4, 4]
    assert sizes(2, 16, True) == [16]
    (image_folder / "train" / "cat" / "0.png").write_bytes(b"broken")
    assert sizes(6, 3, False) == [3, 3]


def test_what_cannot_be_compared(exported: Path, tmp_path: Path) -> None:
    out = tmp_path / "a8.onnx"
    with pytest.raises(DeploymentError, match="there is no folder"):
        quantize_and_compare(exported, tmp_path / "none" / "a8.onnx")
    senet.weights.save(senet.build("resnet20"), tmp_path / "w.safetensors")
    with pytest.raises(OptionError, match=r"'w\.safetensors' does not end in \.onnx"):
        quantize_and_compare(tmp_path / "w.safetensors", out)
    with pytest.raises(DataError):
        quantize_and_compare(exported, out, data="folder:none")
    with pytest.raises(WeightsError, match="class 0 is 'cat' for the weights"):
        quantize_and_compare(exported, out, data="fake:3x32x32,images=4,classes=2")
    senet.export(
        senet.build("se_resnet20", num_classes=4).eval(),
        tmp_path / "without.onnx",
        header={"classes": CLASSES, "preprocessing": preprocessing().to_dict()},
    )
    with pytest.raises(OptionError, match="no data is named"):
        quantize_and_compare(tmp_path / "without.onnx", out)
    assert not out.exists()
    with pytest.raises(OptionError, match="it would replace the file in float32"):
        quantize_and_compare(exported, exported)
    with pytest.raises(OptionError, match="'all' is unknown"):
        quantize_and_compare(exported, out, keep="all")
    with pytest.raises(DataError, match="it cannot be written"):
        quantize_and_compare(exported, "/proc/a8.onnx")


@pytest.mark.parametrize("options", [{"size": 48}, {"batch": 16}, {"size": "any"}])
def test_files_of_every_kind_are_quantized(options: Any, exported: Path, tmp_path: Path) -> None:
    header = opened_artefact(exported).header
    model = senet.build("se_resnet20", num_classes=2).eval()
    senet.export(model, tmp_path / "b.onnx", header=header, **options)
    found = quantize_and_compare(tmp_path / "b.onnx", tmp_path / "b8.onnx", images=3, most_lost=100)
    assert [each.images for each in found.evaluations] == [4, 4]
