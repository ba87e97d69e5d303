import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

import senet
from senet import SEConfig, SqueezeExcitation, detection
from senet.detection.detector import DetectorConfig, ForeignBackbone, backbone_of, is_detector, is_of_detector
from senet.errors import MissingExtraError, OptionError, WeightsError
from senet.models import NetworkConfig
from senet.normalisation import is_batch_norm


def small(**values: Any) -> DetectorConfig:
    backbone = NetworkConfig("mobilenet_v1", se=SEConfig(), options={"width": 0.25})
    return DetectorConfig(backbone, 3, **{"min_size": 64, "max_size": 96, **values})


def targets() -> list[dict[str, torch.Tensor]]:
    one = {"boxes": torch.tensor([[4.0, 4, 40, 50], [10, 8, 60, 30]]), "labels": torch.tensor([1, 3])}
    return [one, {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}]


def test_losses_in_training_and_boxes_in_evaluation() -> None:
    model = small().build()
    images = [torch.rand(3, 60, 80), torch.rand(3, 90, 64)]
    losses = model(images, targets())
    assert set(losses) == {"loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg"}
    sum(losses.values()).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    found = model.eval()(images)
    assert len(found) == 2
    for each, image in zip(found, images, strict=True):
        assert each["boxes"].shape[1:] == (4,)
        assert (each["boxes"] >= 0).all()
        assert (each["boxes"][:, [0, 2]] <= image.shape[2]).all()
        assert set(each["labels"].tolist()) <= {1, 2, 3}
        assert each["scores"].tolist() == sorted(each["scores"].tolist(), reverse=True)
    with pytest.raises(OptionError, match="images"):
        model([])


def test_every_level_of_the_pyramid_has_256_channels() -> None:
    model = small().build().eval()
    with torch.no_grad():
        maps = model.rcnn.backbone(torch.randn(1, 3, 128, 64))
    shapes = [tuple(each.shape[1:]) for each in maps.values()]
    assert shapes == [(256, 32, 16), (256, 16, 8), (256, 8, 4), (256, 4, 2), (256, 2, 1)]


def test_what_is_frozen_does_not_learn() -> None:
    model = small().build()
    model.freeze(stages=2, norms=True)
    assert all(not parameter.requires_grad for norm in model.norms for parameter in norm.parameters())
    assert all(is_batch_norm(norm) for norm in model.norms)
    blocks = [module for module in model.modules() if isinstance(module, SqueezeExcitation)]
    learning = [any(parameter.requires_grad for parameter in block.parameters()) for block in blocks]
    assert learning == sorted(learning), "the first blocks are frozen, the others learn"
    assert len(set(learning)) == 2


@pytest.mark.parametrize(
    "config",
    [
        small(),
        DetectorConfig(ForeignBackbone("torchvision:mobilenet_v3_small"), 2, min_size=64, max_size=64),
        DetectorConfig(ForeignBackbone("timm:resnet10t", SEConfig(reduction=4)), 2, mean=(0.1, 0.2, 0.3)),
    ],
    ids=lambda config: str(config.name),
)
def test_a_file_makes_it_again(config: DetectorConfig, tmp_path: Path) -> None:
    model = config.build().eval()
    detection.save(
        model, tmp_path / "detector.safetensors", header={"classes": ["a", "b", "c"][: config.num_classes]}
    )
    again = detection.load(tmp_path / "detector.safetensors")
    assert again.config == config
    assert not again.training
    state = again.state_dict()
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(state[key], tensor) for key, tensor in model.state_dict().items())
    assert is_of_detector(str(tmp_path / "detector.safetensors"))
    with pytest.raises(WeightsError, match=r"those of a detector.*senet\.detection\.load"):
        senet.load(tmp_path / "detector.safetensors")


def test_on_a_network_with_inserted_blocks(tmp_path: Path) -> None:
    from torchvision.models import resnet18

    network = resnet18()
    senet.insert(network)
    model = detection.faster_rcnn(network, 3, min_size=64, max_size=64)
    assert sum(isinstance(module, SqueezeExcitation) for module in model.modules()) == 8
    losses = model([torch.rand(3, 64, 64)] * 2, targets())
    assert all(math.isfinite(loss.item()) for loss in losses.values())
    detection.save(model, tmp_path / "own.safetensors")
    with pytest.raises(OptionError, match="code of yours, which is not run because a file says so"):
        detection.load(tmp_path / "own.safetensors")
    again = detection.faster_rcnn(senet.build("se_resnet18"), 3)
    assert again.config.backbone == NetworkConfig("se_resnet18", se=SEConfig())


def test_files_that_are_none_of_detectors(tmp_path: Path) -> None:
    senet.weights.save(senet.build("resnet20"), tmp_path / "w.safetensors")
    assert not is_of_detector(str(tmp_path / "w.safetensors"))
    assert not is_of_detector(str(tmp_path / "none"))
    with pytest.raises(WeightsError, match=r"of no detector.*senet\.load"):
        detection.load(tmp_path / "w.safetensors")
    senet.weights.save(
        senet.build("resnet20"), tmp_path / "x.safetensors", header={"detector": {"backbone": 1}}
    )
    with pytest.raises(WeightsError, match="cannot be built"):
        detection.load(tmp_path / "x.safetensors")


@pytest.mark.parametrize("values", [{"num_classes": 10**7}, {"backbone": {"options": {"width": 900.0}}}])
def test_what_a_file_claims_takes_no_memory(values: dict[str, Any], tmp_path: Path) -> None:
    model = small().build()
    told = model.config.to_dict()
    backbone = {**told["backbone"], **values.pop("backbone", {})}
    header = {"detector": {**told, "backbone": backbone, **values}}
    senet.weights.save(model, tmp_path / "w.safetensors", header=header)
    with pytest.raises(WeightsError, match="their tensors are not those of the fasterrcnn_mobilenet_v1_fpn"):
        detection.load(tmp_path / "w.safetensors")


def test_other_classes_than_a_file_has(tmp_path: Path) -> None:
    detection.save(small().build(), tmp_path / "w.safetensors", header={"classes": ["a"]})
    with pytest.raises(WeightsError, match="they name 1 classes and have 3"):
        detection.load(tmp_path / "w.safetensors")


def test_buffers_that_no_file_has_are_as_they_were(tmp_path: Path) -> None:
    config = DetectorConfig(ForeignBackbone("timm:resnetblur18"), 2, min_size=64, max_size=64)
    model = config.build().eval()
    detection.save(model, tmp_path / "w.safetensors")
    again = detection.load(tmp_path / "w.safetensors")
    buffers = dict(again.named_buffers())
    assert [name for name in buffers if name.endswith("filt")]
    for name, buffer in model.named_buffers():
        assert torch.equal(buffers[name], buffer)


def test_weights_of_a_library_and_blocks_inserted_after(tmp_path: Path) -> None:
    import timm

    network = timm.create_model("lcnet_050")
    safetensors.torch.save_file(network.state_dict(), tmp_path / "model.safetensors")
    images = {"input_size": [3, 64, 64], "crop_pct": 0.9, "interpolation": "bicubic"}
    images |= {"mean": [0.5, 0.5, 0.4], "std": [0.5, 0.5, 0.6]}
    said = {"architecture": "lcnet_050", "pretrained_cfg": images}
    (tmp_path / "config.json").write_text(json.dumps(said))
    found = senet.weights.as_they_are(tmp_path / "model.safetensors")
    assert found.header["preprocessing"]["mean"] == [0.5, 0.5, 0.4]
    built = ForeignBackbone("timm:lcnet_050", SEConfig(reduction=4)).build(found)
    state = built.state_dict()
    assert all(torch.equal(state[key], value) for key, value in network.state_dict().items())
    assert any(".se" in key for key in state.keys() - network.state_dict().keys())


def test_names() -> None:
    assert is_detector("fasterrcnn_se_resnet50_fpn")
    assert not is_detector("se_resnet50")
    assert backbone_of("fasterrcnn_timm:seresnet50_fpn") == "timm:seresnet50"
    assert "fasterrcnn_se_resnet101_fpn" in detection.list_detectors()
    with pytest.raises(
        OptionError, match=r"'se_resnet51' is no network.*Did you mean 'fasterrcnn_se_resnet50_fpn'"
    ):
        backbone_of("fasterrcnn_se_resnet51_fpn")


@pytest.mark.parametrize(
    "values",
    [{"min_size": 0}, {"max_size": 32}, {"sampled_boxes": -1}, {"mean": (0.5,)}, {"std": (0.0, 1.0, 1.0)}],
)
def test_values_that_are_not_possible(values: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        small(**values)


def test_without_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision.models.detection", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'senet\[detection\]'"):
        small().build()
