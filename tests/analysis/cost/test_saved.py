"""Bytes saved, by hand, and the same with memory as without."""

import pytest
import torch
from torch import nn

import senet
from senet.analysis.cost.replica import on_meta
from senet.analysis.cost.saved import saved_bytes


def test_by_hand() -> None:
    # The convolution keeps its input, the first ReLU its output, which the second layer keeps as well.
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 1), nn.Sigmoid())
    positions = 2 * 5 * 5
    for device in ("cpu", "meta"):
        images = torch.zeros(2, 3, 5, 5, device=device)
        assert saved_bytes(model.to(device), images) == 4 * positions * (3 + 4 + 2)


def test_frozen_layers_and_no_grad() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU()).requires_grad_(False)
    with torch.no_grad():
        assert saved_bytes(model, torch.zeros(1, 3, 5, 5)) == 0
        model.requires_grad_(True)
        assert saved_bytes(model, torch.zeros(1, 3, 5, 5)) == 4 * 25 * (3 + 4)


@pytest.mark.parametrize("name", ["se_resnet20", "torchvision:mobilenet_v3_small"])
def test_without_memory_it_is_the_same(name: str) -> None:
    if name.startswith("torchvision"):
        pytest.importorskip("torchvision")
    model = senet.load(name).train()
    fused = any(isinstance(module, senet.SqueezeExcitation) for module in model.modules())
    if fused:
        # The steps of the fused operation in plain PyTorch: no compiler is needed.
        senet.accelerate(model, backend="composite")
    images = torch.zeros(2, 3, 64, 64)
    assert saved_bytes(on_meta(model, fused=True).train(), images.to("meta")) == saved_bytes(model, images)
