"""Fused tails for networks that exist already: in place, undoable, with a report."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from senet.acceleration.forwards import BesideForward, GateForward, NormForward, StandIn
from senet.acceleration.pointwise import GatedOutput
from senet.acceleration.sites import NotTaken, OwnTail, TailSite, find_tails
from senet.block import SqueezeExcitation
from senet.errors import AccelerationError, check_choice
from senet.graph.examples import trace_with
from senet.graph.trace import Example
from senet.insertion.placement import Slot
from senet.insertion.plan import check_unwrapped
from senet.kernels.backends import BACKENDS
from senet.tables import Table

_OWN = "all that its unit computes with it"


@dataclass
class AccelerationReport:
    """What ``accelerate`` did.

    Args:
        network: the class of the network.
        backend: as asked.
        rows: a row an SE module: what is computed as one operation, or why it is left.
    """

    network: str
    backend: str
    rows: list[dict[str, Any]]

    def __len__(self) -> int:
        return sum(row["taken"] for row in self.rows)

    def __str__(self) -> str:
        done = "back to layer by layer" if self.backend == "reference" else f"accelerated ({self.backend})"
        headline = f"{self.network}: {len(self)} of {len(self.rows)} SE modules {done}"
        counted = Counter((row["taken"], row["what"]) for row in self.rows).most_common()
        lines = [f"  {n:3} x {'' if taken else 'left alone: '}{what}" for (taken, what), n in counted]
        return "\n".join([headline, *lines])

    def save(self, path: str | Path) -> None:
        """Writes the rows as .csv, .json or .md."""
        Table(self.rows).save(path)


def accelerate(
    model: nn.Module, *, backend: str = "auto", example: Example | None = None
) -> AccelerationReport:
    """Makes SE in ``model`` cost what the network without it costs, in place.

    Each SE module is computed as one operation with the batch norm and activation before it and the
    sum and ReLU after it, as far as they are there. Keys of the state dict, numbers (to rounding),
    copies and pickles stay as they are. A module that something is attached to later is called itself
    from then on.

    Args:
        model: any CNN with SE, from timm, torchvision, ``senet.insert`` or yourself.
        backend: who computes, see ``kernels.why``: "auto", "triton", "cpp", "aten"; "reference"
            undoes it.
        example: what the network is called with; None: the usual sizes are tried.

    Returns:
        The report: what was taken, what was not, and why.

    Raises:
        AccelerationError: the network has no channel attention.
        InsertionError: the network is wrapped, compiled or scripted.
        OptionError: the backend is unknown.
        TraceError: the network does not run on ``example``, or on a usual size.
    """
    check_choice(f"backend={backend!r}", backend, ["auto", *BACKENDS])
    check_unwrapped(model)
    if backend == "reference":
        return AccelerationReport(type(model).__name__, backend, _undo(model))
    sites = find_tails(model, trace_with(model, example)[0])
    if not sites:
        raise AccelerationError(
            f"accelerate({type(model).__name__})",
            found="it has no channel attention",
            allowed="networks with SE",
            do="Put SE into it with senet.insert(model), or build an SE network.",
        )
    _undo(model)
    return AccelerationReport(type(model).__name__, backend, [_take(model, site, backend) for site in sites])


def decelerated(model: nn.Module) -> str | None:
    """Undoes ``accelerate``; the backend that was asked for, None where there is nothing to undo."""
    forwards = [module.__dict__.get("forward") for module in model.modules()]
    backend = next((each.backend for each in forwards if isinstance(each, GateForward)), None)
    if backend is not None:
        _undo(model)
    return backend


def _take(model: nn.Module, site: TailSite | OwnTail | NotTaken, backend: str) -> dict[str, Any]:
    module = model.get_submodule(site.block)
    if isinstance(site, NotTaken):
        return _row(site.block, False, site.reason)
    if isinstance(site, OwnTail):
        module.backend = backend  # type: ignore[assignment]
        return _row(site.block, True, _OWN)
    gate = GateForward(module, site.excitation, site.end, site.free, backend)
    module.forward = gate
    if site.norm is not None:
        norm = model.get_submodule(site.norm)
        norm.forward = NormForward(norm, site.inner, gate)
    if site.free and site.beside is not None:
        norm = model.get_submodule(site.beside)
        norm.forward = BesideForward(norm)
    return _row(site.block, True, str(site))


def _undo(model: nn.Module) -> list[dict[str, Any]]:
    """Gives every module its own forward back."""
    rows = []
    for path, module in model.named_modules():
        stand_in = module.__dict__.get("forward")
        if isinstance(stand_in, StandIn):
            del module.forward
        if isinstance(stand_in, GateForward):
            rows.append(_row(path, True, "SE"))
        if isinstance(module, GatedOutput):
            module.backend = "reference"
            rows.append(_row(path, True, _OWN))
        if isinstance(module, Slot) and isinstance(module.se, SqueezeExcitation):
            module.se.backend = "reference"
            rows.append(_row(f"{path}.se".lstrip("."), True, _OWN))
    return rows


def _row(block: str, taken: bool, what: str) -> dict[str, Any]:
    return {"block": block, "taken": taken, "what": what}
