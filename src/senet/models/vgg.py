"""VGG-16 with batch norm, plain and SE from one definition (Simonyan & Zisserman 2015; Table 2).

Names of modules, and the biases before the norms, are those of torchvision's vgg16_bn, so its
checkpoints fit. SE stands after the ReLU of each convolution (section 3.3). "Stage k" is the k-th
resolution: stage 1 is that of the image.
"""

from __future__ import annotations

from torch import Tensor, nn

from senet.models.network import Level, Network
from senet.models.placing import place
from senet.models.registry import NetworkConfig, register

# For each stage the channels of its convolutions, and how many (configuration D).
STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))


class VGG(Network):
    """Stages of 3×3 convolutions with a pooling after each, and three linear layers.

    Args:
        config: its placement is "standard", its stages are of 1 to 5; both layouts are the same.
        dropout: after each of the first two linear layers.

    Raises:
        OptionError: a stage or the place does not exist, or an option has no such value.
    """

    def __init__(self, config: NetworkConfig, *, dropout: float = 0.5) -> None:
        super().__init__(config, dropout)
        layers: list[nn.Module] = []
        levels = []
        # A level starts with the pooling that ends the one before; the last pooling is the head's.
        start, entering = 0, config.in_channels
        for stage, (channels, depth) in enumerate(STAGES, 1):
            for _ in range(depth):
                layers.append(nn.Conv2d(entering, channels, 3, padding=1))
                layers.append(nn.BatchNorm2d(channels))
                layers.append(nn.ReLU(inplace=True))
                entering = channels
            modules = tuple(f"features.{index}" for index in range(start, len(layers)))
            levels.append(Level(stage, modules, channels, 2 ** (stage - 1)))
            start = len(layers)
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.finish(levels)
        place(self, 224)

    def add_head(self, channels: int) -> None:
        """Adds the pooling to 7×7 and the three linear layers."""
        self.avgpool = nn.AdaptiveAvgPool2d(7)
        self.classifier = nn.Sequential(
            nn.Linear(7 * 7 * channels, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(self.drop_probability),
            nn.Linear(4096, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(self.drop_probability),
            nn.Linear(4096, self.config.num_classes),
        )
        for layer in self.classifier:
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=0.01)
                nn.init.zeros_(layer.bias)

    def head(self, x: Tensor) -> Tensor:
        """The last map (N, 512, H, W), before its pooling, to class scores (N, num_classes)."""
        pooled = self.avgpool(self.features[-1](x))
        scores: Tensor = self.classifier(pooled.flatten(1))
        return scores


register("vgg16_bn", VGG, family="vgg", input_size=(3, 224, 224), one_layout=True)
