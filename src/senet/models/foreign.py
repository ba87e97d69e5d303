"""Networks of other libraries, and the user's own, by name."""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from typing import Any

from torch import nn

from senet.errors import MissingExtraError, OptionError, did_you_mean

FORMS = "timm:NAME, torchvision:NAME, package.module:factory"


def is_foreign(name: str) -> bool:
    """Whether a name is LIBRARY:NAME, and neither hf:ORG/NAME, which are weights, nor a path that exists."""
    library, colon, factory = name.partition(":")
    module = library != "hf" and all(part.isidentifier() for part in library.split("."))
    return module and bool(colon) and bool(factory) and not os.path.lexists(name)


def load_foreign(name: str) -> nn.Module:
    """The network of another library, with random weights.

    Args:
        name: ``timm:NAME``, ``torchvision:NAME`` or ``package.module:factory``, a callable without
            arguments that is importable, or lies in the current folder.

    Raises:
        MissingExtraError: the library is not installed.
        OptionError: it has no such network.
    """
    library, _, network = name.partition(":")
    if library == "timm":
        return _of_timm(name, network)
    if library == "torchvision":
        return _of_torchvision(name, network)
    return _of_factory(name, library, network)


def _of_timm(asked: str, name: str) -> nn.Module:
    try:
        import timm
    except ImportError as error:
        raise MissingExtraError.of("timm", extra="timm", need=asked) from error
    if "." in name:
        raise OptionError(
            f"{asked!r}",
            found="a name with a tag is one of weights, and this makes a network without any",
            allowed=FORMS,
            do=f"Say senet.build(NAME, weights={asked!r}), or NAME --weights {asked}.",
        )
    if not timm.is_model(name):
        raise _unknown(asked, name, timm.list_models())
    model: nn.Module = timm.create_model(name, pretrained=False)
    return model


def _of_torchvision(asked: str, name: str) -> nn.Module:
    try:
        import torchvision
    except ImportError as error:
        raise MissingExtraError.of("torchvision", extra="train", need=asked) from error
    known = torchvision.models.list_models()
    if name not in known:
        raise _unknown(asked, name, known)
    # A detector would otherwise fetch weights for its backbone.
    options = {"weights_backbone": None} if "/" in name or _takes_backbone(name) else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of how GoogLeNet and Inception draw weights
        model: nn.Module = torchvision.models.get_model(name, weights=None, **options)
    return model


def _takes_backbone(name: str) -> bool:
    import inspect

    import torchvision

    return "weights_backbone" in inspect.signature(torchvision.models.get_model_builder(name)).parameters


def _of_factory(asked: str, module: str, name: str) -> nn.Module:
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise OptionError(
            f"{asked!r}", found=f"{error}", allowed=FORMS, do="Is it installed, or in this folder?"
        ) from error
    finally:
        sys.path.remove(here)
    for part in name.split("."):
        if not hasattr(found, part):
            raise _unknown(asked, part, [each for each in dir(found) if not each.startswith("_")])
        found = getattr(found, part)
    try:
        model = found() if callable(found) and not isinstance(found, nn.Module) else found
    except Exception as error:
        raise OptionError(
            f"{asked!r}",
            found=f"calling it failed ({type(error).__name__}: {error})",
            allowed="a callable that makes the network without arguments",
            do="Write a small function that does, and name that.",
        ) from error
    if not isinstance(model, nn.Module):
        raise OptionError(
            f"{asked!r}", found=f"it gives a {type(model).__name__}", allowed="a torch.nn.Module"
        )
    return model


def _unknown(asked: str, name: str, known: list[str]) -> OptionError:
    return OptionError(
        f"{asked!r}", found=f"there is no {name!r}", allowed=FORMS, do=did_you_mean(name, known)
    )
