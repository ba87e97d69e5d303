import json
from pathlib import Path
from typing import Any

import pytest
import torch

import senet
from senet import weights
from senet.errors import OptionError, WeightsError
from senet.models import convert
from senet.weights.layouts import PREPROCESSINGS


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    model = senet.build("se_resnet18", se=senet.SEConfig(width_rule="timm"), num_classes=7)
    weights.save(model, tmp_path / "theirs.safetensors", layout="timm")
    return tmp_path / "theirs.safetensors"


def test_to_a_file_of_ours_and_back(theirs: Path, tmp_path: Path) -> None:
    out = tmp_path / "ours.safetensors"
    done = convert(theirs, out, preprocessing={"size": 224})
    assert (done.origin, done.layout, done.network.name, done.tensors) == (
        "timm",
        "senet",
        "se_resnet18",
        154,
    )
    assert "se_resnet18, layout modern, 7 classes, 154 tensors" in str(done)
    assert json.loads(json.dumps(done.to_dict()))["network"]["se"]["width_rule"] == "timm"
    header, _ = weights.read(out)
    assert header["preprocessing"] == {"size": 224}
    assert header["source"] == {"weights": "theirs.safetensors", "layout": "timm"}
    back = tmp_path / "back.safetensors"
    assert convert(out, back, to="timm").layout == "timm"
    tensors, original = weights.read(back)[1], weights.read(theirs)[1]
    assert tensors.keys() == original.keys()
    assert all(torch.equal(tensors[key], original[key]) for key in original)


def test_what_another_librarys_file_cannot_say_is_not_made_up(tmp_path: Path) -> None:
    """The images of the original release are prepared otherwise than for Cadene's ports."""
    model = senet.build("se_resnet50", layout="original", num_classes=3)
    weights.save(model, tmp_path / "a", header={"preprocessing": PREPROCESSINGS["caffe"]})
    weights.save(model, tmp_path / "silent")
    convert(tmp_path / "a", tmp_path / "b", to="timm")
    convert(tmp_path / "silent", tmp_path / "silent_b", to="timm")
    again = convert(tmp_path / "b", tmp_path / "c")
    assert again.preprocessing == PREPROCESSINGS["caffe"]
    assert weights.read(tmp_path / "c")[0]["source"]["weights"] == "b"
    assert convert(tmp_path / "silent_b", tmp_path / "d").preprocessing is None
    assert "`senet eval` will ask" in str(convert(tmp_path / "silent_b", tmp_path / "d"))


def test_what_cannot_be_converted_writes_nothing(theirs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    refused: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"to": "tim"}, OptionError, "Did you mean 'timm'"),
        ({"to": "cadene"}, WeightsError, "cadene has no se_resnet18"),
        ({"origin": "cadene"}, WeightsError, "none of cadene"),
        ({"layout": "original"}, WeightsError, "layout modern, not original"),
        ({"layout": "nonsense"}, OptionError, "'nonsense' is unknown"),
    ]
    for arguments, kind, words in refused:
        with pytest.raises(kind, match=words):
            convert(theirs, out, **arguments)
    torch.save({"a": torch.ones(1)}, tmp_path / "none.pth")
    with pytest.raises(WeightsError, match="do not say which network"):
        convert(tmp_path / "none.pth", out)
    assert not out.exists()


def test_the_command_says_what_it_did(
    theirs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from senet.cli import main

    out = tmp_path / "ours.safetensors"
    assert main(["convert", str(theirs), str(out), "--preprocessing", "imagenet,size=288,resize=303"]) == 0
    assert "se_resnet18, layout modern" in capsys.readouterr().out
    assert weights.read(out)[0]["preprocessing"]["resize"] == 303
    assert main(["convert", str(theirs), str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["preprocessing"] is None
    assert main(["convert", str(theirs), str(out), "--to", "caffee"]) == 1
    assert "'caffee' is unknown" in capsys.readouterr().err
