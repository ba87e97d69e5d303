"""A study of gates as a network could have given it: alike for all classes at first, then not."""

import torch

from senet.analysis.role.profiles import BlockProfile
from senet.analysis.role.study import GateStudy
from senet.evaluation.classification import Evaluation

# What a page and a picture must show as it is.
HOSTILE = "<script>document.title='owned'</script> & \"x\" $\\frac{1}{2}$ %{x} </script>"
CLASSES = ("goldfish", "pug", HOSTILE, "cliff", "plane")

_PASSPORT = {"command": "senet gates se_resnet20", "versions": {"torch": "2.15.0"}, "machine": {"cores": 2}}


def study(
    *,
    stages: tuple[int, ...] = (2, 2, 3),
    width: int = 16,
    classes: tuple[str, ...] = CLASSES,
    images: int = 12,
    random: bool = False,
    prefix: str = "layer",
) -> GateStudy:
    """Stages of so many blocks, with twice the channels and half the size in each; ``images`` a class."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(len(classes)).repeat(images)
    numbers = torch.arange(len(labels))
    blocks: dict[str, BlockProfile] = {}
    for stage, count in enumerate(stages):
        for number in range(count):
            channels = width * 2**stage
            depth = len(blocks) / sum(stages)
            base = torch.rand(channels, generator=generator) * 2 - 1
            own = torch.randn(len(classes), channels, generator=generator) * 2 * depth**2
            noise = torch.randn(len(labels), channels, generator=generator) * (0.2 + 0.5 * depth)
            name = f"{prefix}{stage + 1}.{number}.se"
            profile = BlockProfile.new(name, channels, (32 >> stage, 32 >> stage), len(classes), 4)
            profile.update((base * (1 + depth) + own[labels] + noise).sigmoid(), labels, numbers)
            blocks[name] = profile
    evaluation = Evaluation(len(labels), len(labels) * 9 // 10, len(labels), 0.3)
    return GateStudy(
        network="se_resnet20",
        weights=None if random else "runs/a",
        data="shards:a",
        classes=classes,
        blocks=blocks,
        evaluation=evaluation,
        random=random,
        passport=_PASSPORT,
    )
