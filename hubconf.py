"""The networks for ``torch.hub.load("OWNER/senet", "se_resnet50", weights=...)``."""

# torch.hub takes every public callable here for a network: what is imported has to be private.
import importlib as _importlib
import sys as _sys
from pathlib import Path as _Path
from typing import Any as _Any

dependencies = ["numpy", "safetensors", "torch", "tqdm", "yaml"]

_sys.path.insert(0, str(_Path(__file__).parent / "src"))
_models = _importlib.import_module("senet.models")


def _entry(name: str) -> _Any:
    """What torch.hub calls to make the network."""

    def entry(**options: _Any) -> _Any:
        return _models.build(name, **options)

    known = _models.info(name)
    entry.__name__ = entry.__qualname__ = name
    entry.__doc__ = (
        f"{name}, for images of {known.input_size} and {known.classes} classes, in training mode.\n\n"
        "Keywords, all of senet.build's: num_classes (1000), in_channels (3), weights (None: a fresh start; "
        "a path, hf:ORG/NAME@REV, timm:TAG), se, placement, stages, layout"
        + "".join(f", {option}" for option in known.options)
        + ". An unknown one is an error."
    )
    return entry


globals().update({_name: _entry(_name) for _name in _models.list_models()})
