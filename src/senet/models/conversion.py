"""Weights of any origin as a file of ours, or of another library."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from senet import weights
from senet.errors import WeightsError, check_choice
from senet.models.loading import load
from senet.models.registry import NetworkConfig
from senet.weights.agreement import differences
from senet.weights.prototxt import read_prototxt


@dataclass(frozen=True)
class Conversion:
    """What was converted into what; it prints itself.

    Args:
        source: the weights, as they were called.
        out: the file that was written.
        origin: whose layout they had.
        layout: whose layout the file has.
        network: the network they are of.
        tensors: how many.
        preprocessing: what the file says of it, None if it is not known. Another library does not read it.
        checked: the layers of the prototxt that were compared; 0 without one.
    """

    source: str
    out: Path
    origin: str
    layout: str
    network: NetworkConfig
    tensors: int
    preprocessing: Mapping[str, Any] | None
    checked: int

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON can hold them."""
        return {**self.__dict__, "out": str(self.out), "network": self.network.to_dict()}

    def __str__(self) -> str:
        network = self.network
        lines = [
            f"{self.source} ({self.origin}) -> {self.out} ({self.layout})",
            f"  network        {network.name}, layout {network.layout}, {network.num_classes} classes, "
            f"{self.tensors} tensors",
            f"  preprocessing  {_said(self.preprocessing)}",
        ]
        if self.checked:
            lines.append(f"  prototxt       {self.checked} layers, no difference")
        return "\n".join(lines)


def convert(
    source: str | Path,
    out: str | Path,
    *,
    to: str = "senet",
    origin: str | None = None,
    classes: str = "synset",
    layout: str | None = None,
    prototxt: str | Path | None = None,
    preprocessing: Mapping[str, Any] | None = None,
) -> Conversion:
    """Converts weights; all is checked before the file is written, whole or not at all.

    Args:
        source: weights of any origin, see ``senet.weights.load``.
        out: the file to write.
        to: whose layout it shall have: "senet", "timm", "torchvision", "cadene", ...
        origin: whose layout the source has; None recognises it.
        classes: the order of the classes of the original release: "synset", everybody's, or "devkit".
        layout: of the network, "modern" or "original", where the weights do not say it.
        prototxt: of the original release, to check the network against.
        preprocessing: for the header, in place of what the weights say.

    Raises:
        OptionError: an argument has no such value.
        WeightsError: the weights cannot be read, are of no network of ours, disagree with the prototxt, or
            do not fit the other library.
    """
    found = weights.recognise(source, origin=origin, classes=classes)
    check_choice(f"convert(to={to!r})", to, ("senet", *weights.LIBRARIES))
    model: Any = load(found, layout=layout)
    checked = 0 if prototxt is None else _check(found.source, prototxt, model)
    header = {key: value for key, value in found.header.items() if key != "network"}
    if preprocessing is not None:
        header["preprocessing"] = dict(preprocessing)
    # Of a path its name: where it lay is nobody's business.
    source = found.source if weights.is_remote(found.source) else Path(found.source).name
    header.setdefault("source", {"weights": source, "layout": found.layout})
    weights.save(model, out, layout=to, header=header)
    return Conversion(
        found.source,
        Path(out),
        found.layout,
        to,
        model.config,
        len(found.tensors),
        header.get("preprocessing"),
        checked,
    )


def _check(source: str, prototxt: str | Path, model: nn.Module) -> int:
    layers = read_prototxt(prototxt)
    wrong = differences(layers, model)
    if wrong:
        raise WeightsError(
            f"weights {source!r}",
            found=f"{len(wrong)} things are otherwise in {str(prototxt)!r} ({'; '.join(wrong[:3])})",
            allowed="the prototxt of these weights",
            do="If it is theirs, they are of a network that senet does not have.",
        )
    return len(layers)


def _said(preprocessing: Mapping[str, Any] | None) -> str:
    if preprocessing is None:
        return "not known: `senet eval` will ask for it; --preprocessing says it"
    values = {
        key: " ".join(f"{each:.4g}" for each in value) if isinstance(value, list | tuple) else value
        for key, value in preprocessing.items()
    }
    return ", ".join(f"{key} {value}" for key, value in values.items())
