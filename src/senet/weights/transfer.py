"""Weights into a network and out of it, in the layout of any library that has them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from senet.block import WIDTH_RULES
from senet.errors import WeightsError, check_choice
from senet.weights.keys import Tensors, to_theirs
from senet.weights.layout import Layout
from senet.weights.layouts import LAYOUTS
from senet.weights.recognition import LIBRARIES, STANDARD, Weights, function_of, recognise
from senet.weights.store import config_of, functions_in, header_of, state_of, unwrapped, write
from senet.weights.store import save as save_ours

# The last linear layer of a network of ours.
_HEAD = re.compile(r"(fc|classifier\.6)\.(weight|bias)")


def load(
    model: nn.Module,
    weights: str | Path | Weights,
    *,
    origin: str | None = None,
    classes: str = "synset",
    head: bool = True,
) -> Weights:
    """Loads weights into a network: every key and every shape fits, or nothing is changed.

    Args:
        model: the network.
        weights: a weights file of ours or a run folder (its last epoch's weights); a file in the layout of
            timm, torchvision, Cadene, the original Caffe release, ...; ``timm:TAG``; ``hf:ORG/NAME@REV``.
        origin: whose names they have: timm, torchvision, cadene, caffe, ...; None recognises it.
        classes: the order of the classes of the original release: "synset", as everybody's, or "devkit".
        head: False leaves the network's last linear layer as it is.

    Returns:
        What was loaded, and what is known of it, such as the preprocessing in its header.

    Raises:
        OptionError: an argument has no such value.
        WeightsError: the weights cannot be read, are of a network that computes something else, or keys
            or shapes do not fit.
    """
    found = recognise(weights, origin=origin, classes=classes)
    model = unwrapped(model)
    state = model.state_dict()
    tensors = found.tensors
    if config_of(model) is None and _shapes(found.unchanged) == _shapes(state):
        tensors = found.unchanged  # a network of that library
    else:
        _check_function(model, found)
    if not head:
        tensors = {key: tensor for key, tensor in tensors.items() if not _HEAD.fullmatch(key)}
        tensors |= {key: tensor for key, tensor in state.items() if _HEAD.fullmatch(key)}
    _check_fit(found.source, tensors, state)
    # A network on "meta" has no memory to copy into: it takes copies as its own. The tensors themselves are
    # the file, which may change or go.
    assign = any(tensor.is_meta for tensor in state.values())
    tensors = {key: tensor.to(state[key].dtype, copy=assign) for key, tensor in tensors.items()}
    model.load_state_dict(tensors, assign=assign)
    return found


def save(
    model: nn.Module, path: str | Path, layout: str = "senet", *, header: Mapping[str, Any] | None = None
) -> None:
    """Writes a network's weights, whole or not at all.

    Args:
        model: any network; one of ours can be rebuilt from the file, unless SE was inserted into it.
        path: of the file, conventionally ``.safetensors``.
        layout: "senet", or that of a library which has the same network: "timm", "torchvision",
            "cadene", ...
        header: what else a file of ours shall carry, as JSON can hold it: ``preprocessing``, ``classes``, ...
            In a file for another library it is a note, which only senet reads.

    Raises:
        OptionError: there is no such layout, or JSON cannot hold the header.
        WeightsError: the library does not have this network, or the file cannot be written.
    """
    check_choice(f"weights.save(layout={layout!r})", layout, ("senet", *LIBRARIES))
    if layout == "senet":
        save_ours(model, path, header=header)
        return
    header = header or {}
    if header.get("class_order", "synset") != "synset":
        raise WeightsError(
            f"weights.save(layout={layout!r})",
            found=f"the classes are in the order of the {header['class_order']}, unlike all of its networks'",
            allowed="that of the sorted synsets",
            do="Convert the original weights again with the usual order.",
        )
    write(path, translated(model, layout), header, ours=False)


def translated(model: nn.Module, library: str) -> Tensors:
    """A network's tensors in the layout of another library.

    Raises:
        WeightsError: the library does not have this network.
    """
    asked = f"weights in the layout of {library}"
    if library == "caffe":
        raise WeightsError(asked, "senet writes no files of Caffe", "the other libraries")
    network = header_of(model).get("network")
    if network is None:
        raise WeightsError(asked, "this is no network of senet", "one that senet.build makes, unchanged")
    state = state_of(model)
    layouts = [layout for layout in LAYOUTS if layout.library == library]
    reasons = []
    for layout in layouts:
        if network["name"] in layout.networks:
            reason = _refusal(layout, network, state)
            tensors, unknown = to_theirs(layout.rows, state)
            if not reason and not unknown:
                return tensors
            reasons.append(reason or f"it has no name for {unknown[0]}")
    has = [name for layout in layouts for name in layout.networks]
    raise WeightsError(
        asked,
        found="; ".join(dict.fromkeys(reasons)) or f"{library} has no {network['name']}",
        allowed=", ".join(dict.fromkeys(has)),
    )


def _refusal(layout: Layout, network: Mapping[str, Any], state: Tensors) -> str:
    """Why the library's network is not this one, or an empty string."""
    function = function_of(network)
    theirs = {**STANDARD, "layout": layout.sits}
    for key in function.keys() & theirs.keys():
        if function[key] != theirs[key]:
            return f"its {network['name']} has the {key} {theirs[key]}, this one {function[key]}"
    options = {key: value for key, value in network["options"].items() if key != "dropout"}
    if options != layout.options:
        return f"its {network['name']} has the options {dict(layout.options)}, this one {options}"
    se = network["se"]
    if se is None:
        return ""
    if network["stages"] is not None:
        return "it has SE in every stage"
    if network.keys() & {"folded", "scaled"}:
        return "it has SE in every unit"
    if se["bias"] != layout.bias:
        return f"its SE blocks have {'' if layout.bias else 'no '}biases"
    for key, weight in state.items():
        if key.endswith(".se.fc1.weight"):
            hidden, channels = weight.shape
            width = layout.hidden or WIDTH_RULES[layout.width_rule](channels, 16)
            if hidden != width:
                return f"its hidden width for {channels} channels is {width}, here it is {hidden}"
    return ""


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(tensor.shape) for key, tensor in tensors.items()}


def _check_function(model: nn.Module, found: Weights) -> None:
    """Raises WeightsError where the weights are of a network that computes something else of them."""
    network = config_of(model)
    if network is not None and found.certain:
        name = network["name"]
        if found.networks is not None and name not in found.networks:
            raise WeightsError(
                f"weights {found.source!r}",
                found=f"in the layout of {found.layout} they are not of a {name}",
                allowed=", ".join(found.networks),
            )
        if name in found.lookalikes:
            raise WeightsError(
                f"weights {found.source!r}",
                found=found.ambiguity(name),
                do=f"If they are of ours, give origin={found.layout!r} (docs/weights.md).",
            )
    ours = [function_of(network), *functions_in(model)]
    differing = {
        f"{key} {found.function[key]}, not {each[key]}"
        for each in ours
        for key in each.keys() & found.function.keys()
        if found.certain and found.function[key] != each[key]
    }
    if differing:
        raise WeightsError(
            f"weights {found.source!r}",
            found=f"they are of a network with {'; '.join(sorted(differing))}",
            allowed="the network they were saved from: others take the tensors and compute other things",
            do="Use senet.load(...), or build the network like that.",
        )


def _check_fit(source: str, tensors: Tensors, state: Tensors) -> None:
    """Raises WeightsError unless every key is there, in its shape and kind."""
    shared = sorted(state.keys() & tensors.keys())
    misfits = {
        "missing in the file": sorted(state.keys() - tensors.keys()),
        "unknown to the network": sorted(tensors.keys() - state.keys()),
        "of another shape": [
            f"{key} {tuple(tensors[key].shape)}, not {tuple(state[key].shape)}"
            for key in shared
            if tensors[key].shape != state[key].shape
        ],
        "of another kind of number": [
            f"{key} {tensors[key].dtype}, not {state[key].dtype}"
            for key in shared
            if tensors[key].is_floating_point() != state[key].is_floating_point()
        ],
    }
    found = "; ".join(
        f"{len(keys)} {what} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"
        for what, keys in misfits.items()
        if keys
    )
    if found:
        raise WeightsError(
            f"weights {source!r}",
            found=f"the tensors do not fit: {found}",
            allowed="every key of the network, each in its shape and kind",
            do="Build the network as it was when it was saved, or use senet.load(...); with "
            "head=False the classifier is left out.",
        )
