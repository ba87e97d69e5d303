"""From the units of a graph to the sites of SE blocks, and to what is left alone and why."""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass
from math import prod

from torch import nn

from senet.block import ConstantScale
from senet.graph.flow import Flow
from senet.graph.found import Found, Unit
from senet.graph.trace import Call, Graph, Op
from senet.graph.units import find_units
from senet.insertion.attachment import (
    CONTAINERS,
    Attachment,
    attachment_at_shortcut,
    attachment_at_start,
    attachment_for,
)
from senet.insertion.placement import PLACEMENTS, RULES, Slot, Staged

# A second name for units that have an ``se`` of their own, such as a slot that they would call.
_NAMES = ("se", "se_block")


@dataclass(frozen=True)
class Site:
    """One place for one block.

    Args:
        unit: the path of the unit's module; of its last convolution where no module is its own.
        kind: of unit, as in ``graph/units.py``.
        stage: k of the paper's conv{k}_x: which resolution of the network it is at.
        placement: which tensor of the unit is gated.
        channels: C of that tensor.
        size: (H, W) of that tensor for the image that was tried.
        attachment: the module's edge at which it is.
        block: the path that the block gets.
    """

    unit: str
    kind: str
    stage: int
    placement: str
    channels: int
    size: tuple[int, ...]
    attachment: Attachment
    block: str


@dataclass(frozen=True)
class LeftAlone:
    """What gets no block.

    Args:
        name: the path of a module.
        reason: why.
        site: what is done where it is asked for by name; None where it cannot be done.
    """

    name: str
    reason: str
    site: Site | None = None


def find_sites(
    model: nn.Module, graph: Graph, path: str, placement: str
) -> tuple[list[Site], list[LeftAlone]]:
    """The sites in a network, or in the part of it at ``path`` that the graph is of."""
    return _Finder(model, graph, path, placement).find()


class _Finder:
    def __init__(self, model: nn.Module, graph: Graph, path: str, placement: str) -> None:
        self.model = model
        self.graph = graph
        self.path = path
        self.placement = placement
        self.found: Found = find_units(graph)
        self.flow: Flow = self.found.flow
        self.taken: set[str] = set()
        self.scopes = {id(unit): self._scope(unit.ops) for unit in self.found.units}
        sizes = [self._positions(unit.leaving) for unit in self.found.units]
        # A network that starts with a unit at full size has no stem: its first stage is 1.
        first = 1 if self.found.units and self.found.units[0].kind in ("plain", "parallel") else 2
        self.stages = {size: first + index for index, size in enumerate(sorted(set(sizes), reverse=True))}

    def find(self) -> tuple[list[Site], list[LeftAlone]]:
        sites: list[Site] = []
        left: list[LeftAlone] = []
        for unit in self.found.units:
            for found in self._in_unit(unit):
                if isinstance(found, Site):
                    sites.append(found)
                else:
                    left.append(found)
        left += [LeftAlone(self._path(other.op.module), other.reason) for other in self.found.others]
        left += self._single_convolutions()
        left += self._not_run()
        return sites, left

    # -- units ------------------------------------------------------------------------------

    def _in_unit(self, unit: Unit) -> list[Site | LeftAlone]:
        scope = self.scopes[id(unit)]
        name = self._home(unit, scope)
        if unit.gate or self._is_gated(unit):
            return [LeftAlone(self._path(name), "channel attention is there already")]
        if isinstance(getattr(self._module(name), "se", None), ConstantScale):
            return [LeftAlone(self._path(name), "a constant scale is in the block's place")]
        tensor, what = self._tensor(unit)
        values = {
            "branch": unit.branches,
            "entering": (unit.entering,),
            "middle": (unit.middle,),
            "leaving": (unit.leaving,),
            "shortcut": (unit.shortcut,),
        }[tensor]
        found: list[Site | LeftAlone] = []
        for value in values:
            if what or value is None:
                found.append(LeftAlone(self._path(name), what or "it has no such tensor"))
                continue
            attachment = self._attachment(unit, scope, tensor, value)
            if attachment is None:
                found.append(LeftAlone(self._path(name), self._why_not(unit.ops, value)))
                continue
            found.append(self._site(name, unit.kind, self._stage(name, unit.leaving), value, attachment))
        return found

    def _is_gated(self, unit: Unit) -> bool:
        """Whether attention follows the unit; what only the next unit's branch reads is that one's."""
        return any(
            gate.gated in (unit.leaving, *unit.branches)
            and all(op.index in gate.ops for op in self.graph.consumers(gate.gated))
            for gate in self.found.gates
        )

    def _tensor(self, unit: Unit) -> tuple[str, str]:
        """Which tensor of the unit is gated, and why it cannot be."""
        if self.placement == "standard":
            return RULES[unit.kind].tensor, ""
        tensor = PLACEMENTS[self.placement].tensor
        if self.placement == "3x3":
            missing = unit.middle is None
            why = "no spatial convolution inside its branch has a pointwise one after it"
        else:
            missing = unit.shortcut is None
            why = f"placement {self.placement!r} is one of residual units"
        return tensor, why if missing else ""

    def _attachment(self, unit: Unit, scope: Call, tensor: str, value: int) -> Attachment | None:
        if tensor == "entering":
            found = attachment_at_start(self.flow, unit)
        elif tensor == "shortcut":
            found = attachment_at_shortcut(self.flow, unit, scope)
        else:
            found = attachment_for(self.flow, value)
        if found is None:
            return None
        branch = tuple((self._path(module), position) for module, position in found.branch)
        return dataclasses.replace(found, module=self._path(found.module), branch=branch)

    def _why_not(self, ops: frozenset[int], value: int) -> str:
        producer, conv = self.graph.op_of(value), self._last_conv(ops, value)
        modules = [each.module for each in (producer, conv) if each is not None]
        if self.placement == "pre" and any(value in self.graph.ops[index].overwritten for index in ops):
            return "the unit overwrites the tensor, which the gate's gradient needs as it was"
        if any(self.graph.runs[module] > 1 for module in modules):
            return "its modules run more than once: one block would serve several places"
        return "the tensor is between two functions, where no module begins or ends"

    # -- convolutions that are no unit ------------------------------------------------------

    def _single_convolutions(self) -> list[LeftAlone]:
        units = self.found.units
        in_units = frozenset().union(*(unit.ops for unit in units))
        in_shortcuts = {
            op.index
            for unit in units
            if unit.shortcut is not None
            for op in self.flow.region(unit.entering, unit.shortcut) or ()
        }
        left = []
        for conv in self.flow.convs:
            if conv.index in in_shortcuts:
                reason = "in a shortcut"
            elif conv.index in in_units:
                continue
            elif not units:
                reason = "no unit around it is known"
            elif conv.index < min(in_units):
                reason = "in the stem"
            elif conv.index > max(in_units):
                reason = "in the head"
            else:
                reason = "between the units"
            left.append(LeftAlone(self._path(conv.module), reason, self._askable(conv)))
        return left

    def _not_run(self) -> list[LeftAlone]:
        kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
        convs = [name for name, each in self._module("").named_modules() if isinstance(each, kinds)]
        return [
            LeftAlone(self._path(name), "it does not run in evaluation mode, with this example")
            for name in convs
            if not self.graph.runs[name]
        ]

    def _askable(self, conv: Op) -> Site | None:
        """The site after a convolution that is in no unit, for who asks for it by its name."""
        value, _ = self.flow.tail(conv)
        attachment = attachment_for(self.flow, value)
        if attachment is None or self.graph.runs[conv.module] != 1:
            return None
        attachment = dataclasses.replace(attachment, module=self._path(attachment.module))
        return self._site(conv.module, "single", self._stage(conv.module, value), value, attachment)

    # -- names and numbers ------------------------------------------------------------------

    def _path(self, module: str) -> str:
        return ".".join(part for part in (self.path, module) if part)

    def _scope(self, ops: frozenset[int]) -> Call:
        """The innermost run of a module around the operations."""
        first, last = min(ops), max(ops)
        around = [call for call in self.graph.calls if call.first <= first and last < call.end]
        return min(around, key=lambda call: (call.end - call.first, -call.module.count(".")))

    def _home(self, unit: Unit, scope: Call) -> str:
        """The module that is the unit and that the block becomes a part of.

        It is the innermost one around all of the unit's operations that is no container, if no
        other unit is in it, else the unit's last convolution.
        """
        home = scope.module
        while home and isinstance(self._module(home), CONTAINERS):
            home = home.rpartition(".")[0]
        # None where only its children are called: it is a namespace, not a unit.
        around = next((call for call in self.graph.calls if call.module == home), None)
        inside = [
            each
            for each in self.scopes.values()
            if around is not None and around.first <= each.first and each.end <= around.end
        ]
        conv = self._last_conv(unit.ops, unit.leaving)
        if conv is not None and (len(inside) != 1 or isinstance(self._module(home), CONTAINERS)):
            return conv.module
        return home

    def _module(self, module: str) -> nn.Module:
        return self.model.get_submodule(self._path(module))

    def _last_conv(self, ops: frozenset[int], value: int) -> Op | None:
        end = self.graph.producer[value]
        convs = [op for op in self.flow.convs if op.index in ops and (end is None or op.index <= end)]
        return convs[-1] if convs else None

    def _site(self, home: str, kind: str, stage: int, value: int, attachment: Attachment) -> Site:
        module = self._module(home)
        names = itertools.chain(_NAMES, (f"{_NAMES[-1]}_{k}" for k in itertools.count(2)))
        paths = (self._path(f"{home}.{name}" if home else name) for name in names if is_free(module, name))
        block = next(path for path in paths if path not in self.taken)
        self.taken.add(block)
        placement = self.placement if kind != "single" else "output"
        channels, size = self.flow.channels(value), self.flow.spatial(value)
        return Site(self._path(home), kind, stage, placement, channels, size, attachment, block)

    def _stage(self, module: str, value: int) -> int:
        """The network's own stage, or that of the map's resolution (without units, of the next finer one)."""
        own = self.model.stage_of(self._path(module)) if isinstance(self.model, Staged) else None
        if own is not None:
            return own
        at = self._positions(value)
        reached = [stage for positions, stage in self.stages.items() if positions >= at]
        return max(reached, default=1)

    def _positions(self, value: int) -> int:
        return prod(self.flow.spatial(value))


def is_free(module: nn.Module, name: str) -> bool:
    """Whether a block can be the module's attribute of this name."""
    return not hasattr(module, name) or (isinstance(module, Slot) and module.se is None)
