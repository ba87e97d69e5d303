"""A network with a unit for each rewriting: SE behind a pointwise convolution, and before one."""

from torch import Tensor, nn

from senet import SqueezeExcitation


def _conv(entering: int, leaving: int, kernel: int, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(entering, leaving, kernel, padding=kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(leaving))


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(_conv(3, 16, 3), nn.ReLU())
        self.bottleneck = nn.Sequential(
            _conv(16, 4, 1), nn.ReLU(), _conv(4, 4, 3), nn.ReLU(), _conv(4, 16, 1), SqueezeExcitation(16, 4)
        )
        self.inverted = nn.Sequential(
            *(_conv(16, 32, 1), nn.ReLU(), _conv(32, 32, 3, groups=32), nn.ReLU()),
            *(SqueezeExcitation(32, 4), _conv(32, 16, 1)),
        )
        self.fc = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = (x + self.bottleneck(x)).relu()
        x = x + self.inverted(x)
        scores: Tensor = self.fc(x.mean((2, 3)))
        return scores
