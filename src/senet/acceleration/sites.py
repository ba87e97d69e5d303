"""Finds the tails in a network: SE modules, the norm before them, the sum and activation after them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.nn.utils import parametrize

from senet.acceleration.excitations import Layers, Own, read
from senet.acceleration.forwards import GateForward, StandIn, is_left
from senet.acceleration.pointwise import GatedOutput
from senet.block import SqueezeExcitation
from senet.graph.attention import ChannelGate, channel_gates
from senet.graph.flow import Flow
from senet.graph.trace import Graph, Op
from senet.insertion.placement import Slot
from senet.kernels.reference import ACTIVATIONS
from senet.normalisation import activation_within, is_batch_norm
from senet.tail import activation_name

# What a tail ends with, by the number of operations after the gate.
ENDS = ("gate", "sum", "activation")


@dataclass(frozen=True)
class TailSite:
    """One SE module with what stands around it.

    Args:
        block: the path of the SE module.
        excitation: reads it.
        norm: the path of the batch norm before it, None for none.
        inner: the name of the activation that is part of the norm.
        between: the name of an activation module's between norm and SE, "" for none.
        end: what the tail ends with: "gate", "sum" or "activation".
        outside: why the norm is not part of it, "" if it is, or there is none.
        beside: the path of the batch norm that gives what is added, None for none.
    """

    block: str
    excitation: Layers | Own
    norm: str | None = None
    inner: str = "identity"
    between: str = ""
    end: str = "gate"
    outside: str = ""
    beside: str | None = None

    @property
    def free(self) -> bool:
        """Whether the squeeze comes with the norm's statistics."""
        return self.norm is not None and self.inner == "identity" and not self.between

    def __str__(self) -> str:
        activations = [name for name in (self.inner, self.between) if name not in ("", "identity")]
        after = {"gate": [], "sum": ["sum"], "activation": ["sum", "relu"]}[self.end]
        parts = ["batch norm"] * (self.norm is not None) + activations + ["SE", *after]
        return " + ".join(parts) + (f" ({self.outside})" if self.outside else "")


@dataclass(frozen=True)
class OwnTail:
    """What computes its tail as one operation by itself: a block in a unit of ours, or a ``GatedOutput``.

    Args:
        block: its path.
    """

    block: str


@dataclass(frozen=True)
class NotTaken:
    """Channel attention that is left as it is.

    Args:
        block: its module.
        reason: why.
    """

    block: str
    reason: str


def find_tails(model: nn.Module, graph: Graph) -> list[TailSite | OwnTail | NotTaken]:
    """The tails of a network and the channel attention that is none, in order."""
    flow = Flow(graph)
    gates = channel_gates(flow)
    flow.attention = frozenset().union(*(gate.ops for gate in gates))
    # A module that runs several times has one tail, whose parts must be the same each time.
    sites: dict[str, TailSite | OwnTail | NotTaken] = {}
    for gate in gates:
        site = _site(model, flow, gate)
        before = sites.setdefault(gate.module, site)
        if before != site:
            sites[gate.module] = NotTaken(
                gate.module, "it runs several times, with different things around it"
            )
    return list(sites.values())


def _site(model: nn.Module, flow: Flow, gate: ChannelGate) -> TailSite | OwnTail | NotTaken:
    path = gate.module
    module = model.get_submodule(path)
    if isinstance(module, GatedOutput):
        return OwnTail(path)
    if gate.op.name != "mul":
        return NotTaken(path, "it adds to the map, SE multiplies")
    shape = flow.graph.shapes[gate.gated]
    if isinstance(model.get_submodule(path.rpartition(".")[0]), Slot):
        own = read(module, shape[1], len(shape))
        return NotTaken(path, own) if isinstance(own, str) else OwnTail(path)
    whole = any(
        call.module == path and call.arguments[:1] == (gate.gated,) and call.output == gate.op.outputs[0]
        for call in flow.graph.calls
    )
    if not whole and not isinstance(module, SqueezeExcitation):
        return NotTaken(path, "the attention is no module of its own that takes a map and returns it gated")
    attached = touched(module)
    if attached is not None:
        return NotTaken(path, attached)
    stand_in: Any = module.__dict__.get("forward")
    taken = isinstance(stand_in, GateForward)
    excitation = stand_in.excitation if taken else read(module, shape[1], len(shape))
    if isinstance(excitation, str):
        return NotTaken(path, excitation)
    after = what_follows(flow, gate)
    beside = _beside(model, flow, gate, after[0]) if after else None
    site = TailSite(path, excitation, end=ENDS[len(after)], beside=beside)
    return _with_norm(site, model, flow, gate)


def _with_norm(site: TailSite, model: nn.Module, flow: Flow, gate: ChannelGate) -> TailSite:
    """The site with the norm that gives the gated map, its own activation, or one between the two."""
    between, value = "", gate.gated
    path = _norm_of(model, flow, value)
    op = flow.graph.op_of(value)
    if path is None and op is not None and len(op.inputs) == 1:
        path = _norm_of(model, flow, op.inputs[0])
        if path is not None:
            between, value = op.name, op.inputs[0]
    if path is None:
        return site
    norm = model.get_submodule(path)
    own = activation_within(norm)
    inner = activation_name(own)
    if inner is None:
        outside = f"the norm's own {type(own).__name__} is no activation that is computed with it"
    elif between and (between not in ACTIVATIONS or inner != "identity"):
        outside = f"between norm and SE stands {between}, which is not computed with them"
    elif touched(norm) is not None:
        outside = f"of the norm: {touched(norm)}"
    elif not _read_only_by(flow, gate.gated, gate.ops) or (between and len(flow.graph.consumers(value)) > 1):
        outside = "what the norm gives is read elsewhere too"
    elif flow.graph.runs[path] != flow.graph.runs[site.block]:
        outside = "the norm runs without the SE module too"
    else:
        return dataclasses.replace(site, norm=path, inner=inner, between=between)
    return dataclasses.replace(site, outside=outside)


def excitation_of(model: nn.Module, flow: Flow, gate: ChannelGate) -> Layers | Own | str:
    """What makes the gates of an SE module that another can stand in for, or why none can."""
    module, shape = model.get_submodule(gate.module), flow.graph.shapes[gate.gated]
    calls = [call for call in flow.graph.calls if call.module == gate.module]
    ends = [(call.arguments, call.output) for call in calls]
    if ends != [((gate.gated,), gate.op.outputs[0])] or gate.op.name != "mul":
        return "it is no module of its own that runs once, takes a map and returns it gated"
    return touched(module) or read(module, shape[1], len(shape))


def touched(module: nn.Module) -> str | None:
    """What users have attached to a module or to what is in it."""
    if not is_left(*module.modules()):
        return "hooks are attached to it"
    if any(parametrize.is_parametrized(each) for each in module.modules()):
        return "it is parametrized"
    forwards = [each.__dict__.get("forward") for each in module.modules()]
    if any(each is not None and not isinstance(each, StandIn) for each in forwards):
        return "its forward has been replaced"
    return None


def _norm_of(model: nn.Module, flow: Flow, value: int) -> str | None:
    """The path of the batch norm that gives a value, with its own activation if it has one."""
    op = flow.graph.op_of(value)
    if op is None:
        return None
    # SE that hooks put behind a norm is part of the norm's call, whose output is then another.
    paths = [call.module for call in flow.graph.calls if call.contains(op.index)]
    for path in reversed(paths):
        norm = model.get_submodule(path)
        if is_batch_norm(norm):
            alone = activation_within(norm) is None or op.module != path
            return path if alone else None
    return None


def what_follows(flow: Flow, gate: ChannelGate) -> tuple[Op, ...]:
    """The sum that alone reads what SE gives, and the ReLU that alone reads that: as many as there are."""
    found: list[Op] = []
    value = gate.op.outputs[0]
    for is_next in (flow.is_sum, lambda op: op.name == "relu"):
        readers = flow.graph.consumers(value)
        # Drop-path, where it is in evaluation mode, is not there.
        if len(readers) != 1 or value in flow.graph.outputs or not is_next(readers[0]):
            break
        found.append(readers[0])
        value = readers[0].outputs[0]
    return tuple(found)


def _beside(model: nn.Module, flow: Flow, gate: ChannelGate, total: Op) -> str | None:
    """The norm that gives what is added, and nothing else."""
    other = next(each for each in total.inputs if each != gate.op.outputs[0])
    norm = _norm_of(model, flow, other)
    alone = norm is not None and flow.graph.runs[norm] == 1 and len(flow.graph.consumers(other)) == 1
    return norm if alone and norm is not None and touched(model.get_submodule(norm)) is None else None


def _read_only_by(flow: Flow, value: int, ops: frozenset[int]) -> bool:
    return all(reader.index in ops for reader in flow.graph.consumers(value))
