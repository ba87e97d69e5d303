"""Small networks, awkward on purpose, that tests insert SE into."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def conv(entering: int, leaving: int, kernel: int = 3, **options: int) -> nn.Conv2d:
    return nn.Conv2d(entering, leaving, kernel, padding=kernel // 2, bias=False, **options)  # type: ignore[arg-type]


SUMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "plus": lambda branch, x: branch + x,
    "reversed": lambda branch, x: x + branch,
    "in place": lambda branch, x: branch.__iadd__(x),
    "add_": lambda branch, x: branch.add_(x),
    "torch.add": lambda branch, x: torch.add(branch, x),
    "scaled": lambda branch, x: x + 0.3 * branch,
}


class Unit(nn.Module):
    """A basic unit whose activations are functions, and whose sum is written in one of many ways."""

    def __init__(self, channels: int = 16, how: str = "plus") -> None:
        super().__init__()
        self.how = how
        self.c1, self.b1 = conv(channels, channels), nn.BatchNorm2d(channels)
        self.c2, self.b2 = conv(channels, channels), nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        branch = self.b2(self.c2(F.relu(self.b1(self.c1(x)))))
        return F.relu(SUMS[self.how](branch, x))


class Bottleneck(nn.Module):
    """1×1, 3×3, 1×1, with a projection where it changes size."""

    def __init__(self, entering: int, leaving: int, stride: int = 1) -> None:
        super().__init__()
        width = leaving // 4
        self.c1, self.b1 = conv(entering, width, 1), nn.BatchNorm2d(width)
        self.c2, self.b2 = conv(width, width, stride=stride), nn.BatchNorm2d(width)
        self.c3, self.b3 = conv(width, leaving, 1), nn.BatchNorm2d(leaving)
        self.relu = nn.ReLU(inplace=True)
        self.project: nn.Module | None = None
        if stride > 1 or entering != leaving:
            self.project = nn.Sequential(conv(entering, leaving, 1, stride=stride), nn.BatchNorm2d(leaving))

    def forward(self, x: Tensor) -> Tensor:
        branch = self.relu(self.b1(self.c1(x)))
        branch = self.relu(self.b2(self.c2(branch)))
        branch = self.b3(self.c3(branch))
        branch += x if self.project is None else self.project(x)
        result: Tensor = self.relu(branch)
        return result


class Net(nn.Module):
    """A stem, units, and a classifier."""

    def __init__(self, *units: nn.Module, channels: int = 16, leaving: int = 16) -> None:
        super().__init__()
        self.stem = conv(3, channels)
        self.units = nn.Sequential(*units)
        self.fc = nn.Linear(leaving, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.units(F.relu(self.stem(x)))
        scores: Tensor = self.fc(x.mean((2, 3)))
        return scores


class Nested(nn.Module):
    """A long shortcut around units."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.tail = Unit(), Unit(), conv(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x + self.tail(self.b(self.a(x)))
        return result


class SqueezeByHand(nn.Module):
    """A residual unit with SE written out, on bare parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.c1, self.b1 = conv(16, 16), nn.BatchNorm2d(16)
        self.w1, self.w2 = nn.Parameter(torch.randn(4, 16)), nn.Parameter(torch.randn(16, 4))

    def forward(self, x: Tensor) -> Tensor:
        branch = F.relu(self.b1(self.c1(x)))
        z = branch.flatten(2).mean(-1)
        gate = torch.sigmoid(F.linear(F.relu(F.linear(z, self.w1)), self.w2))
        return x + branch * gate[:, :, None, None]


class DataDependent(nn.Module):
    """What runs depends on numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.often, self.never = Unit(), Unit()

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.often(x) if x.mean() > -100 else self.never(x)
        return result


class Reused(nn.Module):
    """One unit at two places, and one of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.shared, self.own = Unit(), Unit()

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.own(self.shared(self.shared(x)))
        return result


class SharedActivation(nn.Module):
    """A stack with one ReLU module for all; no module ends after the last."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(conv(3, 16), nn.ReLU())
        self.c2, self.c3, self.relu = conv(16, 16), conv(16, 16), nn.ReLU()
        self.fc = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.c2(self.first(x)))
        x = self.relu(self.c3(x))
        scores: Tensor = self.fc(x.mean((2, 3)))
        return scores


class HandSwish(nn.Module):
    """A stack whose activation is x · σ(x)."""

    def __init__(self) -> None:
        super().__init__()
        self.c1, self.norm, self.c2 = conv(3, 16), nn.BatchNorm2d(16), conv(16, 16)
        self.fc = nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.c1(x))
        x = self.c2(x * torch.sigmoid(x))
        scores: Tensor = self.fc(x.mean((2, 3)))
        return scores


class UNet(nn.Module):
    """An encoder's map joined to a decoder's: no unit, a stack."""

    def __init__(self) -> None:
        super().__init__()
        self.e1 = nn.Sequential(conv(3, 16), nn.ReLU())
        self.e2 = nn.Sequential(conv(16, 32), nn.ReLU())
        self.d = nn.Sequential(conv(48, 16), nn.ReLU())
        self.out = nn.Conv2d(16, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.e1(x)
        b = F.interpolate(self.e2(F.max_pool2d(a, 2)), scale_factor=2.0)
        scores: Tensor = self.out(self.d(torch.cat([a, b], 1)))
        return scores


class Resnet1d(nn.Module):
    """A unit, without a module of its own, in 1, 2 or 3 dimensions."""

    def __init__(self, dimensions: int) -> None:
        super().__init__()
        kind = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[dimensions]
        norm = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}[dimensions]
        self.stem, self.c1 = kind(3, 16, 3, padding=1), kind(16, 16, 3, padding=1)
        self.norm, self.c2, self.fc = norm(16), kind(16, 16, 1), nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = x + self.c2(F.relu(self.norm(self.c1(x))))
        scores: Tensor = self.fc(x.flatten(2).mean(-1))
        return scores


class TwoInputs(nn.Module):
    """A network that no guessed input fits; its backbone runs alone."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.embedding = Net(Unit()), nn.Embedding(10, 4)

    def forward(self, x: Tensor, word: Tensor) -> Tensor:
        scores: Tensor = self.backbone(x) + self.embedding(word)
        return scores


class Mixture(nn.Module):
    """x + b1 + b2, and x + (b1 + b2)."""

    def __init__(self, together: bool) -> None:
        super().__init__()
        self.together = together
        self.b1 = nn.Sequential(nn.ReLU(), conv(16, 16), nn.BatchNorm2d(16))
        self.b2 = nn.Sequential(nn.ReLU(), conv(16, 16), nn.BatchNorm2d(16))
        self.after = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        if self.together:
            mixed: Tensor = x + self.after(self.b1(x) + self.b2(x))
            return mixed
        summed: Tensor = x + self.b1(x) + self.b2(x)
        return summed
