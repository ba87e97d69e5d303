"""Networks with gates: of every make, and one whose blocks are worth something known, with images for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import senet

CLASSES = 8


class Gated(nn.Module):
    """Eight classes that only the gates of ``needed`` tell apart; ``idle`` has the same gates for all images.

    The first eight channels of an image are ones. The gates of ``needed`` open that of the class, which the
    other eight channels tell.
    """

    def __init__(self) -> None:
        super().__init__()
        self.idle = senet.SqueezeExcitation(2 * CLASSES, hidden=2)
        self.down = nn.MaxPool2d(2)
        self.needed = senet.SqueezeExcitation(2 * CLASSES, hidden=CLASSES)
        with torch.no_grad():
            self.idle.fc2.weight.zero_()
            self.idle.fc2.bias.copy_(torch.linspace(0, 0.2, 2 * CLASSES))
            self.needed.fc1.weight.copy_(torch.eye(2 * CLASSES)[CLASSES:])
            self.needed.fc2.weight.copy_(8 * torch.eye(2 * CLASSES)[:, :CLASSES])
            self.needed.fc2.bias.fill_(-1)

    def forward(self, x: Tensor) -> Tensor:
        u: Tensor = self.needed(self.down(self.idle(x)))
        return u.mean((2, 3))[:, :CLASSES]


def images(count: int, *, batch_size: int = 10, seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    """Batches for ``Gated``, with one image in sixteen of a wrong label."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for first in range(0, count, batch_size):
        size = min(batch_size, count - first)
        shown = torch.randint(0, CLASSES, (size,), generator=generator)
        x = torch.ones(size, 2 * CLASSES, 4, 4)
        x[:, CLASSES:] = torch.eye(CLASSES)[shown][:, :, None, None]
        x += 0.1 * torch.rand(x.shape, generator=generator)
        wrong = torch.rand(size, generator=generator) < 1 / 16
        found.append((x, torch.where(wrong, (shown + 1) % CLASSES, shown)))
    return found


class Functional(nn.Module):
    """SE written out in the unit's own forward, between other products."""

    def __init__(self, expand: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.fc1 = nn.Linear(8, 4)
        self.fc2 = nn.Linear(4, 8)
        self.gamma = nn.Parameter(torch.rand(1, 8, 1, 1))
        self.expand = expand
        self.gates: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        u = self.conv(x)
        u = u * torch.sigmoid(u)
        u = u * self.gamma
        s = torch.sigmoid(self.fc2(F.relu(self.fc1(u.mean((2, 3))))))
        self.gates.append(s.detach())
        s = s[:, :, None, None]
        out: Tensor = u * (s.expand_as(u) if self.expand else s)
        return out


class Attention(nn.Module):
    """One that the recogniser does not know: nothing mixes the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        u = self.conv(x)
        out: Tensor = self.gate(u) * u
        return out


class Twice(nn.Module):
    """SE of another make, which runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.se = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 2, 1), nn.ReLU(), nn.Conv2d(2, 8, 1), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        u = self.conv(x)
        u = u * self.se(u)
        out: Tensor = u * self.se(u)
        return out


def of_timm() -> nn.Module:
    timm: Any = pytest.importorskip("timm")
    model: nn.Module = timm.create_model("mobilenetv3_small_050")
    return model


def of_torchvision() -> nn.Module:
    torchvision: Any = pytest.importorskip("torchvision")
    model: nn.Module = torchvision.models.mobilenet_v3_small()
    return model


def inserted() -> nn.Module:
    model = senet.build("resnet20", num_classes=10)
    senet.insert(model, init="random", reduction=4)
    return model


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "ours": (lambda: senet.build("se_resnet20"), (3, 32, 32)),
    "ours pre": (lambda: senet.build("se_resnet20", placement="pre"), (3, 32, 32)),
    "inserted": (inserted, (3, 32, 32)),
    "timm": (of_timm, (3, 64, 64)),
    "torchvision": (of_torchvision, (3, 64, 64)),
    "functional": (Functional, (3, 9, 9)),
    "expanded": (lambda: Functional(expand=True), (3, 9, 9)),
    "twice": (Twice, (3, 9, 9)),
}


def network(kind: str, *, accelerated: bool = False) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    make, size = NETWORKS[kind]
    model = make().eval()
    if accelerated:
        senet.accelerate(model, backend="aten")
    return model, torch.randn(3, *size).contiguous(memory_format=torch.channels_last)


def attached(model: nn.Module) -> int:
    """How many hooks of any kind there are."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_gate_hooks")
    hooks = sum(len(getattr(module, kind, ())) for module in model.modules() for kind in kinds)
    forwards = [module.__dict__.get("forward") for module in model.modules()]
    return hooks + sum(len(getattr(forward, "_watchers", ())) for forward in forwards)
