from pathlib import Path
from typing import Any

import pytest
import torch
from tests.deploy.small import CLASSES, header, network, preprocessing

import senet
from senet.deploy.members import ExportedMember, member_of, network_named
from senet.errors import OptionError, WeightsError

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


def written(path: Path, **header: Any) -> Path:
    senet.weights.save(senet.build("se_resnet20", num_classes=4), path, header=header)
    return path


@pytest.mark.parametrize("pixels", [False, True])
def test_an_exported_file_is_a_network_to_evaluate(pixels: bool, tmp_path: Path) -> None:
    path = tmp_path / "small.onnx"
    senet.export(network(), path, header=header(), pixels=pixels)
    member = member_of(str(path))
    assert isinstance(member, ExportedMember)
    assert member.header["classes"] == CLASSES
    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    found = member.preprocessing(None, None)
    assert found.size == 32
    prepared = found.normalise(images)
    assert prepared.dtype == (torch.uint8 if pixels else torch.float32)
    with torch.no_grad():
        wanted = network()(preprocessing().normalise(images))
    torch.testing.assert_close(member.network()(prepared), wanted, rtol=1e-4, atol=1e-5)


def test_options_that_are_for_others(tmp_path: Path) -> None:
    weights = written(tmp_path / "w.safetensors")
    assert member_of(str(weights)).network().training is False
    with pytest.raises(OptionError, match="None, for a network that is not exported"):
        member_of(str(weights), engine="openvino")
    senet.export(network(), tmp_path / "small.onnx", size=32)
    with pytest.raises(OptionError, match="None, for an exported file"):
        member_of(str(tmp_path / "small.onnx"), "w.safetensors")
    with pytest.raises(WeightsError, match="do not say how images are prepared"):
        member_of(str(tmp_path / "small.onnx")).preprocessing(None, None)


def test_what_is_exported_by_name(tmp_path: Path) -> None:
    weights = written(tmp_path / "w.safetensors", classes=CLASSES)
    model, said = network_named(str(weights))
    assert said is not None
    assert said["classes"] == CLASSES
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 4)
    fresh, none = network_named("se_resnet20")
    assert none is None
    assert not fresh.training
    of_another, none = network_named("torchvision:mobilenet_v3_small")
    assert (type(of_another).__name__, none) == ("MobileNetV3", None)
    torch.save(of_another.state_dict(), tmp_path / "theirs.pth")
    again, said = network_named("torchvision:mobilenet_v3_small", str(tmp_path / "theirs.pth"))
    assert said is not None
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in of_another.state_dict().items())
    with pytest.raises(OptionError, match="it is exported already"):
        network_named("a.onnx")
    with pytest.raises(OptionError, match="neither a network's name nor a path"):
        network_named("se_resnet21")
