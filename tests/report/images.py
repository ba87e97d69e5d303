"""The gates of one image as a network could have given them."""

from dataclasses import replace
from typing import Any

import torch
from PIL import Image
from tests.report.studies import CLASSES

from senet.analysis.image.image_gates import Average, Channel, ImageBlock, ImageGates, Prediction


def image_gates(
    *,
    stages: tuple[int, ...] = (2, 2, 3),
    study: bool = True,
    maps: bool = True,
    file: str = "pug.png",
    **changed: Any,
) -> ImageGates:
    """Stages of so many blocks; with two channels on either side."""
    generator = torch.Generator().manual_seed(0)
    blocks = []
    for stage, count in enumerate(stages):
        channels, side = 8 * 2**stage, 16 >> stage
        for number in range(count):
            s, mean, std = torch.rand(3, channels, generator=generator, dtype=torch.float64)
            u = torch.randn(channels, side, side, generator=generator, dtype=torch.float64)
            average = Average(12, mean, 0.1 + std) if study else None
            similarity = (
                torch.rand(len(CLASSES) if study else 0, generator=generator, dtype=torch.float64) * 2 - 1
            )
            block = ImageBlock(
                f"layer{stage + 1}.{number}.se",
                channels,
                (side, side) if maps else (),
                s,
                average,
                similarity,
            )
            order = block.apart.argsort(descending=True).tolist()
            shown = [
                Channel(
                    channel,
                    float(s[channel]),
                    float(block.apart[channel]),
                    None if block.deviations is None else float(block.deviations[channel]),
                    u[channel] if maps else None,
                )
                for channel in (*order[:2], *order[:-3:-1])
            ]
            blocks.append(replace(block, opened=tuple(shown[:2]), closed=tuple(shown[2:])))
    found = ImageGates(
        network="se_resnet20",
        file=file,
        image=Image.linear_gradient("L").resize((32, 32)),
        predictions=(Prediction(1, "pug", 0.75), Prediction(2, CLASSES[2], 0.25)),
        label=1 if study else None,
        images=12 if study else 0,
        classes=CLASSES if study else (),
        blocks=tuple(blocks),
    )
    return replace(found, **changed)
