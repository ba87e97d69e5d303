"""Weights of any origin in senet's names, with all that is known of them and nothing that is guessed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from senet.errors import OptionError, WeightsError, check_choice
from senet.weights.classes import ORDERS, reorder
from senet.weights.containers import Contents, open_weights
from senet.weights.keys import Tensors, to_ours
from senet.weights.layout import Layout
from senet.weights.layouts import LAYOUTS
from senet.weights.sources import config_beside, is_remote, locate

LIBRARIES = tuple(dict.fromkeys(layout.library for layout in LAYOUTS))

# What of a network's function no tensor shows, beside its layout, as all foreign networks have it.
STANDARD = {"placement": "standard", "squeeze": "avg", "gate": "sigmoid"}
# Of what kind the fields of a header are that decide anything.
_KINDS = {"classes": list, "class_order": str, "data": str, "function": dict}
# What a timm network may be made with and stay what its name says.
_HARMLESS = frozenset({"num_classes", "in_chans", "drop_rate"})
_FUNCTION = ("layout", *STANDARD)


@dataclass(frozen=True)
class Weights:
    """A network's weights in senet's names.

    Args:
        source: as the user called them.
        tensors: by our keys.
        layout: in whose names they were: "senet", or a library's.
        header: what a file of ours would carry: ``network`` if it is known in full, ``preprocessing``,
            ``classes``, ``class_order``, ``data``, ...
        function: what the tensors do not show, as far as it is known: layout, placement, squeeze, gate.
        certain: whether that is proven; where the names are also ours, a caller may know better.
        networks: our names of the networks that they may be of, where the origin says it; None for any.
        lookalikes: for some of these, another network of their origin that they may be of instead, and
            that computes something else.
        unchanged: the tensors as the file has them, for a network of its library.
    """

    source: str
    tensors: Tensors
    layout: str
    header: Mapping[str, Any]
    function: Mapping[str, str]
    certain: bool = True
    networks: tuple[str, ...] | None = None
    lookalikes: Mapping[str, str] = field(default_factory=dict)
    unchanged: Tensors = field(default_factory=dict, repr=False)

    def ambiguity(self, name: str) -> str:
        """What makes it unclear whether these are weights of our network of this name."""
        other = self.lookalikes[name]
        return f"{self.layout} has the same tensors for our {name} and for {other}, which is not ours"

    def __str__(self) -> str:
        said = ", ".join(f"{key} {self.function[key]}" for key in _FUNCTION if key in self.function)
        return f"{self.source}: {len(self.tensors)} tensors, named by {self.layout}; {said or 'nothing else'}"


def recognise(
    weights: str | Path | Weights, *, origin: str | None = None, classes: str = "synset"
) -> Weights:
    """Opens weights of any origin and puts them into senet's names.

    Args:
        weights: see ``locate``; what is recognised already is given back.
        origin: whose names they have: "senet" (a state dict), "caffe", "cadene", "timm", ...; None
            recognises it.
        classes: the order that the classes of the original release shall have: "synset", everybody
            else's, or "devkit", theirs.

    Raises:
        OptionError: an argument has no such value.
        WeightsError: they cannot be read, or are in no layout that is known.
    """
    if isinstance(weights, Weights):
        if origin is not None or classes != "synset":
            raise OptionError(
                "weights.recognise(Weights, ...)", "they are recognised already", "no origin, no classes"
            )
        return weights
    if not isinstance(weights, str | Path):
        raise OptionError(
            "weights", f"a {type(weights).__name__} names no weights", "a path, timm:TAG, hf:ORG/NAME@REV"
        )
    check_choice(f"classes={classes!r}", classes, ORDERS)
    if origin is not None:
        check_choice(f"origin={origin!r}", origin, ("senet", *LIBRARIES))
    located = locate(weights)
    contents = open_weights(located.path)
    if contents.header is None:
        config = located.config if is_remote(weights) else config_beside(contents.path)
        config = {} if origin == "senet" else config
        return _foreign(located.name, contents, origin, classes, config)
    if origin not in (None, "senet"):
        raise OptionError(f"origin={origin!r} of {str(weights)!r}", "it is a file of senet", "None, senet")
    if classes != "synset":
        raise OptionError(f"classes={classes!r} of {str(weights)!r}", "it is a file of senet", "synset")
    header = contents.header
    for key, kind in _KINDS.items():
        if not isinstance(header.get(key, kind()), kind):
            raise WeightsError(f"weights {str(weights)!r}", f"{key} in the header is {header[key]!r}")
    function = function_of(header.get("network")) or header.get("function", {})
    return Weights(located.name, contents.tensors, "senet", header, function)


def as_they_are(weights: str | Path) -> Weights:
    """Opens weights under the names that their file has, for the network of another library.

    Args:
        weights: see ``locate``.

    Raises:
        WeightsError: they cannot be read.
    """
    located = locate(weights)
    contents = open_weights(located.path)
    config = located.config if is_remote(weights) else config_beside(contents.path)
    header = dict(contents.header or {})
    preprocessing = _preprocessing(config)
    if preprocessing is not None:
        header["preprocessing"] = preprocessing
    return Weights(located.name, contents.tensors, "senet", header, {}, unchanged=contents.tensors)


def function_of(network: Any) -> dict[str, str]:
    """What a network, as its config's dict, computes and no tensor shows."""
    if not isinstance(network, Mapping):
        return {}
    # Where SE stands and what it does only if there is any.
    se = network.get("se")
    said = {**network, **se} if isinstance(se, Mapping) else {"layout": network.get("layout", "modern")}
    return {key: said[key] for key in _FUNCTION if key in said}


def _foreign(
    source: str, contents: Contents, origin: str | None, classes: str, config: Mapping[str, Any]
) -> Weights:
    asked = f"weights {source!r}"
    theirs = config.get("architecture")
    theirs = theirs if isinstance(theirs, str) else None
    changed = config.get("model_args") or {}
    if theirs and not (isinstance(changed, Mapping) and changed.keys() <= _HARMLESS):
        raise WeightsError(
            asked,
            found=f"its {theirs} was made with model_args={changed!r}",
            allowed=f"those without, or with {', '.join(sorted(_HARMLESS))}",
        )
    found, tensors = _layout_of(asked, contents, origin, theirs)
    if found is None:
        return Weights(source, contents.tensors, "senet", {}, {}, certain=False)
    header: dict[str, Any] = {}
    # What senet noted itself is all that is known: that the library's own weights are otherwise says nothing.
    noted = contents.note
    preprocessing = found.preprocessing if noted is None else noted.get("preprocessing")
    preprocessing = _preprocessing(config) or preprocessing
    if isinstance(preprocessing, Mapping):
        header["preprocessing"] = dict(preprocessing)
    if found.library == "caffe":
        tensors = _to_rgb(reorder(tensors, classes, classifier="fc", asked=asked))
        header["class_order"] = classes
    elif classes != "synset":
        raise OptionError(f"classes={classes!r} of {source!r}", "only the original release has it", "synset")
    certain = theirs is not None or not found.shared_names
    networks = tuple(ours for ours, name in found.networks.items() if theirs in (None, name))
    return Weights(
        source,
        _counted(tensors),
        found.library,
        header,
        function=STANDARD | {"layout": found.sits},
        certain=certain,
        networks=networks if certain else None,
        # The library's name for it, or the caller's word, settles it.
        lookalikes=found.lookalikes if theirs is None and origin is None else {},
        unchanged=contents.tensors,
    )


def _layout_of(
    asked: str, contents: Contents, origin: str | None, architecture: str | None
) -> tuple[Layout | None, Tensors]:
    """The layout of a foreign file with its tensors in our names; None where they are nobody else's."""
    caffe = contents.kind == "caffe"
    candidates = [
        layout
        for layout in LAYOUTS
        if origin in (None, layout.library)
        and (layout.library == "caffe") == caffe
        # Several networks of timm have the same tensors, and compute other things with them.
        and (architecture is None or architecture in layout.networks.values())
    ]
    if architecture is not None and not candidates:
        raise WeightsError(
            asked,
            found=f"they are of {architecture!r}, which is no network of senet",
            allowed=", ".join(sorted({name for layout in LAYOUTS for name in layout.networks.values()})),
        )
    tried = []
    for layout in candidates:
        tensors, unknown = to_ours(layout.rows, contents.tensors)
        if not unknown:
            return layout, tensors
        tried.append((len(unknown), layout.library, unknown[:3]))
    if not caffe and architecture is None and origin in (None, "senet"):
        return None, contents.tensors
    count, near, examples = min(tried, default=(len(contents.tensors), origin, []))
    raise WeightsError(
        asked,
        found=f"{count} {'or more ' if count == 100 else ''}of its {len(contents.tensors)} names are none of "
        f"{near} ({', '.join(examples)}{', ...' if count > len(examples) else ''})",
        allowed=f"the layouts of {', '.join(('senet', *LIBRARIES))}",
        do="Is it of another network, or another library?",
    )


def _preprocessing(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """That of a timm repository's config.json; None where it says none."""
    said = config.get("pretrained_cfg", config)
    try:
        # Without a name it may be the config of anything.
        if "architecture" not in config or said.get("crop_mode", "center") != "center":
            return None
        channels, size, _ = said.get("test_input_size") or said["input_size"]
        share = said.get("test_crop_pct") or said["crop_pct"]
        return {
            "channels": channels,
            "size": size,
            "resize": math.floor(size / share),
            "mean": [float(each) for each in said["mean"]],
            "std": [float(each) for each in said["std"]],
            "interpolation": str(said["interpolation"]),
        }
    except (AttributeError, KeyError, TypeError, ValueError, ArithmeticError):
        return None


def _to_rgb(tensors: Tensors) -> Tensors:
    """With the first convolution, which reads BGR, for RGB."""
    first = [key for key in ("conv1.weight", "conv1.0.weight", "conv1.conv.weight") if key in tensors]
    return tensors | {key: tensors[key].flip(1) for key in first if tensors[key].ndim == 4}


def _counted(tensors: Tensors) -> Tensors:
    """With a count of batches for each batch norm, which old files do not have."""
    counts = {
        f"{key.removesuffix('running_mean')}num_batches_tracked": torch.tensor(0)
        for key in tensors
        if key.endswith(".running_mean")
    }
    return {**tensors, **{key: count for key, count in counts.items() if key not in tensors}}
