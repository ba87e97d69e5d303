"""The networks that benchmarks are run on, by name."""

from __future__ import annotations

from plain import with_kernels
from torch import nn

import senet

ACCELERATED = "accelerated "
FUSED = "fused "


def load(name: str, backend: str = "auto") -> nn.Module:
    """A network by a name as for ``senet train``, "timm:NAME" for example.

    "accelerated NAME" is the same after ``senet.accelerate``, "fused NAME" a plain one of ours with the
    tail's kernels.

    Args:
        name: of the network.
        backend: of what is accelerated.
    """
    model = senet.load(bare(name))
    if name.startswith(FUSED):
        with_kernels(model)
    if name.startswith(ACCELERATED):
        senet.accelerate(model, backend=backend)
    return model


def bare(name: str) -> str:
    """The MODEL in a name."""
    return name.removeprefix(ACCELERATED).removeprefix(FUSED)
