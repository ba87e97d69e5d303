"""From what a user names to a network: a registry name, one of another library, a file, a run folder."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from senet import weights
from senet.errors import OptionError, WeightsError, did_you_mean
from senet.models.foreign import FORMS, is_foreign, load_foreign
from senet.models.registry import NetworkConfig, build, list_models


def load(model: str | Path) -> nn.Module:
    """The network that ``model`` names, in evaluation mode.

    Args:
        model: a weights file of ours or a run folder (the network it was saved from, with its
            weights); or, freshly initialised, a name of ``list_models()``, ``timm:NAME``,
            ``torchvision:NAME`` or ``package.module:factory``.

    Raises:
        MissingExtraError: the library that the name is of is not installed.
        OptionError: it is neither a name nor a path that exists, or both.
        WeightsError: the file cannot be read, or does not say which network it is of.
    """
    if is_foreign(str(model)) and not Path(model).exists():
        return load_foreign(str(model)).eval()
    path = path_named(model)
    if path is None:
        return build(str(model)).eval()
    header, _ = weights.read(path, tensors=False)
    if "network" not in header:
        raise WeightsError(
            f"load({str(model)!r})",
            found="the file does not say which network its weights are of",
            do="Build the network, with senet.insert if it was inserted into, then call "
            "senet.weights.load(network, path).",
        )
    try:
        config = NetworkConfig.from_dict(header["network"])
        # Without memory, as every tensor comes from the file: what the header claims costs nothing.
        with torch.device("meta"):
            network = config.build()
    except (AttributeError, KeyError, OptionError, TypeError) as error:
        raise WeightsError(
            f"load({str(model)!r})",
            found=f"the network that the file names cannot be built ({error})",
            do="Load it with the version of senet that wrote it.",
        ) from error
    weights.load(network, path)
    return network.eval()


def path_named(model: str | Path) -> Path | None:
    """The path that ``model`` names, None if it is a registry's name; OptionError if it is neither."""
    path = Path(model)
    if str(model) not in list_models():
        if path.exists():
            return path
        raise OptionError(
            f"load({str(model)!r})",
            found="it is neither a network's name nor a path that exists",
            allowed=f"a name of senet.list_models(), {FORMS}, a run folder, a .safetensors file of senet",
            do=did_you_mean(model, list_models()),
        )
    if path.exists():
        raise OptionError(
            f"load({str(model)!r})",
            found="it is a network's name, and there is a file or folder of that name here",
            do=f"Write ./{model} for the path, or go to another folder for the name.",
        )
    return None
