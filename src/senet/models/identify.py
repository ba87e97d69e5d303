"""From weights to the network that they are of."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from senet.block import WIDTH_RULES, SEConfig
from senet.errors import OptionError, WeightsError
from senet.models.network import Network
from senet.models.registry import NetworkConfig, info, list_models
from senet.weights import Weights

Shapes = Mapping[str, tuple[int, ...]]

_FC1 = ".se.fc1.weight"
_HEADS = ("fc.weight", "classifier.6.weight")

# The reductions that anybody has used, the paper's first.
_REDUCTIONS = (16, *(r for r in range(1, 65) if r != 16))


def network_of(weights: Weights, *, layout: str | None = None) -> NetworkConfig:
    """The network that the weights are of.

    Args:
        weights: with the header of a file of ours, or else the tensors of a network of ours.
        layout: "modern" or "original", where the weights do not prove it.

    Raises:
        WeightsError: it is no network of ours, or something is open that only the caller can know.
    """
    said = _said(weights)
    if said is not None:
        if layout is not None and layout != said.layout and layout in info(said.name).layouts:
            raise WeightsError(
                f"weights {weights.source!r}",
                found=f"they are of a network with layout {said.layout}, not {layout}",
                do="Leave out the layout.",
            )
        return said
    asked = f"weights {weights.source!r}"
    by_hand = "Build it, with senet.insert if SE was inserted, then call senet.weights.load(network, ...)"
    config = next(_fitting(weights), None)
    if config is None:
        raise WeightsError(
            asked,
            found="they do not say which network they are of, and their tensors are just those of none",
            allowed=", ".join(weights.networks or ["a network of senet.list_models(), whole"]),
            do=f"{by_hand}, with head=False if there is no classifier in the file.",
        )
    if config.se is not None and "placement" not in weights.function:
        raise WeightsError(
            asked,
            found=f"they fit {config.name}, but nothing says where SE stands in it and which gate it has",
            do=f"{by_hand}.",
        )
    return dataclasses.replace(config, layout=layout_of(config.name, weights, layout))


def layout_of(name: str, weights: Weights | None, layout: str | None) -> str:
    """The layout of a network: the caller's word, else what the weights say, else modern without weights.

    Raises:
        WeightsError: the weights do not say it, and it matters.
    """
    if layout is not None or weights is None or len(info(name).layouts) == 1:
        return layout or "modern"
    said = _said(weights)
    found = weights.function.get("layout") if said is None else said.layout
    if name in weights.lookalikes:
        raise WeightsError(
            f"weights {weights.source!r}",
            found=weights.ambiguity(name),
            do=f"If they are of ours, give layout={found!r}, or write it down with `senet convert --layout`.",
        )
    if found is None:
        raise WeightsError(
            f"weights {weights.source!r}",
            found=f"nothing in them says where the strides and paddings of {name} sit",
            do="Give layout='modern' or layout='original', or write it down with "
            "`senet convert --layout` (docs/weights.md).",
        )
    return found


def se_of(weights: Weights | None) -> SEConfig:
    """The config of the SE blocks that the weights are of, the paper's where they do not say."""
    if weights is None:
        return SEConfig()
    said = _said(weights)
    if said is not None:
        return said.se or SEConfig()
    shapes = _shapes_in(weights)
    blocks = _blocks(shapes)
    return next(_configs(shapes, blocks, weights.function), SEConfig()) if blocks else SEConfig()


def without_memory(config: NetworkConfig, source: str) -> Network:
    """The network without memory, as every tensor comes from the weights: what they claim costs nothing.

    Raises:
        OptionError: an option has no such value.
        WeightsError: a number is beyond all networks.
    """
    try:
        with torch.device("meta"):
            return config.build()
    except (RuntimeError, TypeError) as error:
        raise WeightsError(
            f"weights {source!r}",
            found=f"their network cannot be built ({error})",
            do="Load them with the version of senet that wrote them.",
        ) from error


def _said(weights: Weights) -> NetworkConfig | None:
    """The network that the header names, None if it names none."""
    if "detector" in weights.header:
        raise WeightsError(
            f"weights {weights.source!r}",
            found="they are those of a detector",
            allowed="those of a classifier",
            do="senet.detection.load reads them.",
        )
    if "network" not in weights.header:
        return None
    try:
        return NetworkConfig.from_dict(weights.header["network"])
    except (AttributeError, KeyError, OptionError, TypeError) as error:
        raise WeightsError(
            f"weights {weights.source!r}",
            found=f"the network that the file names cannot be built ({error})",
            do="Load it with the version of senet that wrote it.",
        ) from error


def _fitting(weights: Weights) -> Iterator[NetworkConfig]:
    """The networks that have just these tensors, as far as tensors tell."""
    shapes = _shapes_in(weights)
    blocks = _blocks(shapes)
    owners = {f"{block}.se" for block in blocks}
    plain = {key: shape for key, shape in shapes.items() if key.rpartition(".se.")[0] + ".se" not in owners}
    for name in weights.networks or list_models():
        if name.startswith("se_") != bool(blocks) and name != "senet154":
            continue
        for options in _variants(name):
            config = _plain(NetworkConfig(name, options=options), plain)
            if config is None or not blocks:
                yield from () if config is None else (config,)
                continue
            network = _on_meta(config)
            stages = tuple(sorted({network.stage_of(block) or 0 for block in blocks}))
            for se in _configs(shapes, blocks, weights.function):
                for wanted in (None, stages):
                    whole = dataclasses.replace(config, se=se, stages=wanted)
                    if 0 not in stages and _shapes(whole) == shapes:
                        yield whole


def _variants(name: str) -> Iterator[dict[str, Any]]:
    """The options that change tensors, and that other libraries choose otherwise."""
    yield {}
    if "shortcut" in info(name).options:
        yield {"shortcut": "project"}


def _plain(config: NetworkConfig, shapes: Shapes) -> NetworkConfig | None:
    """The plain network with the classes and channels of the tensors; None where they are not its."""
    expected = _shapes(config)
    head = next(key for key in _HEADS if key in expected)
    first = next(key for key, shape in expected.items() if len(shape) == 4)
    if expected.keys() != shapes.keys() or len(shapes[first]) != 4:
        return None
    try:
        config = dataclasses.replace(config, num_classes=shapes[head][0], in_channels=shapes[first][1])
    except (IndexError, OptionError):
        return None
    return config if _shapes(config) == shapes else None


def _configs(shapes: Shapes, blocks: list[str], function: Mapping[str, str]) -> Iterator[SEConfig]:
    """The blocks' config, by every rule that gives all of their widths."""
    widths = {shape[::-1] for block in blocks if len(shape := shapes[block + _FC1]) == 2}
    said: dict[str, Any] = {key: function[key] for key in ("gate", "squeeze") if key in function}
    bias = f"{blocks[0]}.se.fc1.bias" in shapes
    init = "identity" if f"{blocks[0]}.se.one_at_zero" in shapes else "random"
    for rule, width in WIDTH_RULES.items():
        for r in _REDUCTIONS:
            if all(width(channels, r) == hidden > 0 for channels, hidden in widths):
                yield SEConfig(r, bias=bias, init=init, width_rule=rule, **said)
                break
    hidden = {hidden for _, hidden in widths}
    if len(hidden) == 1 and min(hidden) > 0:
        yield SEConfig(hidden=hidden.pop(), bias=bias, init=init, **said)


def _shapes_in(weights: Weights) -> dict[str, tuple[int, ...]]:
    return {key: tuple(tensor.shape) for key, tensor in weights.tensors.items()}


def _blocks(shapes: Shapes) -> list[str]:
    """The units that have an SE block."""
    return [key.removesuffix(_FC1) for key in shapes if key.endswith(_FC1)]


def _shapes(config: NetworkConfig) -> dict[str, tuple[int, ...]]:
    return {key: tuple(tensor.shape) for key, tensor in _on_meta(config).state_dict().items()}


def _on_meta(config: NetworkConfig) -> Any:
    with torch.device("meta"):
        return config.build()
