"""What a library's weights are: how it names and shapes tensors, and what its tensors do not show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from senet.weights.keys import Row

# RGB of values from 0 to 1, as networks for ImageNet were evaluated for years.
IMAGENET: dict[str, Any] = {
    "channels": 3,
    "size": 224,
    "resize": 256,
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
    "interpolation": "bilinear",
}


@dataclass(frozen=True)
class Layout:
    """The weights of one library, for one family of networks.

    Its SE blocks are the standard ones: at the end of the branch, average, sigmoid.

    Args:
        library: whose it is, such as "timm".
        rows: the table of keys.
        networks: the networks that the library has: our name of each, and its own.
        sits: "modern" or "original", where strides and paddings sit in all of them.
        lookalikes: other networks of the library that have the tensors of one of these, and compute
            something else, so that only the caller can know: by our name of this one.
        shared_names: whether the keys are ours too, and prove nothing: then the caller's word counts.
        preprocessing: of all of them, as a header has it; None where they differ.
        width_rule: of the hidden widths of its SE blocks, at a reduction of 16.
        hidden: their hidden width outright, in place of the rule.
        bias: whether its SE blocks have biases.
        options: of our networks that theirs correspond to.
    """

    library: str
    rows: tuple[Row, ...]
    networks: Mapping[str, str]
    sits: str = "modern"
    lookalikes: Mapping[str, str] = field(default_factory=dict)
    shared_names: bool = False
    preprocessing: Mapping[str, Any] | None = None
    width_rule: str = "paper"
    hidden: int | None = None
    bias: bool = True
    options: Mapping[str, Any] = field(default_factory=dict)


def named(names: str, pattern: str = "{}") -> dict[str, str]:
    """Our names of networks, and the library's, made from the plain name: "se{}" of "se_resnet50"."""
    return {name: pattern.format(name.removeprefix("se_")) for name in names.split()}
