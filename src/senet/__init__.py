"""senet: Squeeze-and-Excitation for any PyTorch CNN.

Names are imported where they are first used, so ``import senet`` itself costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from senet import detection as detection
    from senet import functional as functional
    from senet import kernels as kernels
    from senet import models as models
    from senet import paper as paper
    from senet import weights as weights
    from senet.acceleration.accelerate import accelerate as accelerate
    from senet.acceleration.fold import fold_gates as fold_gates
    from senet.acceleration.simplify import simplify as simplify
    from senet.analysis.cost.cost import cost as cost
    from senet.analysis.gates import record_gates as record_gates
    from senet.analysis.worth.sensitivity import sensitivity as sensitivity
    from senet.block import SEConfig as SEConfig
    from senet.block import SqueezeExcitation as SqueezeExcitation
    from senet.deploy.export import export as export
    from senet.errors import SenetError as SenetError
    from senet.insertion.plan import plan as plan
    from senet.insertion.surgery import insert as insert
    from senet.insertion.surgery import remove as remove
    from senet.models import build as build
    from senet.models import info as info
    from senet.models import list_models as list_models
    from senet.models import load as load

__version__ = "0.1.0"

_HOME = {
    "SEConfig": "senet.block",
    "SenetError": "senet.errors",
    "SqueezeExcitation": "senet.block",
    "accelerate": "senet.acceleration.accelerate",
    "build": "senet.models",
    "cost": "senet.analysis.cost.cost",
    "export": "senet.deploy.export",
    "fold_gates": "senet.acceleration.fold",
    "info": "senet.models",
    "insert": "senet.insertion.surgery",
    "list_models": "senet.models",
    "load": "senet.models",
    "plan": "senet.insertion.plan",
    "record_gates": "senet.analysis.gates",
    "remove": "senet.insertion.surgery",
    "sensitivity": "senet.analysis.worth.sensitivity",
    "simplify": "senet.acceleration.simplify",
}
_ROOMS = ("detection", "functional", "kernels", "models", "paper", "weights")

__all__ = ["__version__", *_HOME, *_ROOMS]


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f"senet.{name}")
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'senet' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
