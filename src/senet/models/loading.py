"""From what a user names to a network: a registry name, one of another library, weights of any origin."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from torch import nn

from senet import weights
from senet.errors import OptionError, WeightsError, check_choice, did_you_mean
from senet.models.building import build
from senet.models.foreign import FORMS, is_foreign, load_foreign
from senet.models.identify import network_of, without_memory
from senet.models.registry import LAYOUTS, list_models
from senet.weights import Weights


def load(model: str | Path | Weights, *, layout: str | None = None) -> nn.Module:
    """The network that ``model`` names, in evaluation mode.

    Args:
        model: weights of a network of ours, which say what it is: a file of ours, a run folder,
            ``hf:ORG/NAME@REV``, a file in the layout of timm, Cadene, Caffe, ...; or, freshly initialised,
            a name of ``list_models()``, ``timm:NAME``, ``torchvision:NAME`` or ``package.module:factory``.
        layout: "modern" or "original", for a name, and for weights that do not say it.

    Raises:
        MissingExtraError: the library that the name is of is not installed.
        OptionError: it is neither a name nor a path that exists, or both.
        WeightsError: the file cannot be read, or does not say which network it is of.
    """
    if layout is not None:
        check_choice(f"load(layout={layout!r})", layout, LAYOUTS)
    if isinstance(model, str | Path):
        if is_foreign(str(model)):
            return load_foreign(str(model)).eval()
        named = weights_named(model)
        if named is None:
            return build(str(model), layout=layout).eval()
        model = named
    found = weights.recognise(model)
    config = network_of(found, layout=layout)
    try:
        network = without_memory(config, found.source)
    except OptionError as error:
        raise WeightsError(
            f"load({found.source!r})",
            found=f"the network that the weights name cannot be built ({error})",
            do="Load it with the version of senet that wrote it.",
        ) from error
    weights.load(network, found if layout is None else dataclasses.replace(found, lookalikes={}))
    return network.eval()


def weights_named(model: str | Path) -> str | Path | None:
    """The weights that ``model`` names, None if it is a registry's name; OptionError if it is neither."""
    path = Path(model)
    if _is_weights(model):
        if str(model) not in list_models():
            return model
        raise OptionError(
            f"load({str(model)!r})",
            found="it is a network's name, and there is a file or folder of that name here",
            do=f"Write ./{path} for the path, or go to another folder for the name.",
        )
    if str(model) not in list_models():
        raise OptionError(
            f"load({str(model)!r})",
            found="it is neither a network's name nor a path that exists",
            allowed=f"a name of senet.list_models(), {FORMS}, a run folder, a weights file, hf:ORG/NAME@REV",
            do=did_you_mean(model, list_models()),
        )
    return None


def _is_weights(model: str | Path) -> bool:
    # timm:NAME is timm's own network, fresh; timm:TAG is what weights= takes.
    return Path(model).exists() or str(model).startswith("hf:")
