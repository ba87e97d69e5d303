"""From the name of a network of ours, and perhaps weights, to the network."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from senet import weights as weight_files
from senet.block import SEConfig
from senet.errors import check_choice
from senet.models.identify import layout_of, se_of, without_memory
from senet.models.network import Network
from senet.models.registry import NetworkConfig, info


def build(
    name: str,
    *,
    num_classes: int = 1000,
    in_channels: int = 3,
    weights: str | Path | weight_files.Weights | None = None,
    se: Literal["auto"] | SEConfig | None = "auto",
    placement: str = "standard",
    stages: Sequence[int] | None = None,
    layout: str | None = None,
    **options: Any,
) -> Network:
    """Builds a network of the paper, plain or SE.

    Args:
        name: one of ``list_models()``.
        num_classes: of the classifier.
        in_channels: of the images.
        weights: what to load: a weights file or run folder of ours, a file of timm, torchvision, Cadene,
            Caffe, ..., ``timm:TAG``, ``hf:ORG/NAME@REV``; None for a fresh start.
        se: "auto" (as the name says, with the widths of the weights), a config for the blocks, or None
            for the plain network.
        placement: where SE stands in a unit: standard, pre, post, identity or 3x3
            (Figure 5, Tables 14 and 15).
        stages: the stages that get SE, such as (2, 3) for conv2_x and conv3_x; None for all
            (Table 13).
        layout: "modern" (stride on the 3×3, padded pooling) or "original" (as released: stride
            on the first 1×1 of ResNet's bottlenecks, unpadded pooling in ceil mode); None is that of the
            weights, and modern without any. Networks that have neither are the same in both.
        **options: the family's own, such as ``dropout`` or ``shortcut``.

    Returns:
        The network in training mode; its ``config`` rebuilds it.

    Raises:
        OptionError: a name, an option or a value is not allowed.
        WeightsError: the weights cannot be read or do not fit, or do not say their layout.
    """
    known = info(name)
    found = None if weights is None else weight_files.recognise(weights)
    if isinstance(se, str):
        check_choice(f"build({name!r}, se={se!r})", se, ("auto",))
        se = se_of(found) if known.se else None
    config = NetworkConfig(
        name=name,
        num_classes=num_classes,
        in_channels=in_channels,
        se=se,
        placement=placement,
        stages=tuple(stages) if isinstance(stages, Iterable) else stages,
        layout=layout_of(name, found, layout),
        options=options,
    )
    if found is None:
        return config.build()
    model = without_memory(config, found.source)
    weight_files.load(model, found if layout is None else dataclasses.replace(found, lookalikes={}))
    return model


def parameter_count(name: str, **arguments: Any) -> int:
    """The learnable parameters of ``build(name, **arguments)``, counted without memory for them."""
    with torch.device("meta"):
        model = build(name, **arguments)
    return sum(parameter.numel() for parameter in model.parameters())
