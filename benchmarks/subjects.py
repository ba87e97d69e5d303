"""The networks that benchmarks are run on, by name."""

from __future__ import annotations

import importlib

import torch
from plain import with_kernels
from torch import Tensor, nn

import senet

ACCELERATED = "accelerated "
FUSED = "fused "
SIMPLIFIED = "simplified "


def load(name: str, backend: str = "auto") -> nn.Module:
    """A network by a name as for ``senet train``, "timm:NAME" for example.

    "accelerated NAME" is the same after ``senet.accelerate``, "simplified NAME" after ``senet.simplify``, and
    "fused NAME" a plain one of ours with the tail's kernels.

    Args:
        name: of the network.
        backend: of what is accelerated.
    """
    model = senet.load(bare(name))
    if name.startswith(FUSED):
        with_kernels(model)
    if name.startswith(ACCELERATED):
        senet.accelerate(model, backend=backend)
    return senet.simplify(model) if name.startswith(SIMPLIFIED) else model


def bare(name: str) -> str:
    """The MODEL in a name."""
    return name.removeprefix(ACCELERATED).removeprefix(FUSED).removeprefix(SIMPLIFIED)


def plain_name(name: str) -> str | None:
    """The same network without SE, by name: timm's of "timm:seNAME", ours of "se_NAME"; None for others."""
    if name.startswith("timm:se"):
        plain = name.removeprefix("timm:se")
        return f"timm:{plain}" if importlib.import_module("timm").is_model(plain) else None
    plain = name.removeprefix("se_")
    return plain if plain != name and plain in senet.list_models() else None


@torch.no_grad()
def randomise(model: nn.Module, x: Tensor) -> None:
    """Numbers that hide nothing: no branch starts at zero, no bias is zero, no norm leaves its map as it is.

    Args:
        model: on the device of x; in evaluation mode afterwards.
        x: images. Running statistics are of them, and a little off, so that maps keep their size.
    """
    model.eval()
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for key, value in model.named_parameters():
        if key.endswith("bias"):
            value.uniform_(-0.2, 0.2)
    for norm in norms:
        # About one: activations are then nearly linear. Else a network of random weights makes its rounding
        # larger from layer to layer, until there is nothing left to compare.
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.uniform_(norm.bias, 0.5, 1.5)
        norm.train().momentum = 1.0
    model(x)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.eval().momentum = momentum
        mean, variance = norm.running_mean, norm.running_var
        if mean is not None and variance is not None:
            mean += 0.1 * variance.sqrt() * torch.randn_like(mean)
            variance *= torch.empty_like(variance).uniform_(0.5, 1.5)
