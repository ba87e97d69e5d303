"""What ``simplify`` does to a network, step by step: found in its graph, then applied to any copy of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from senet.acceleration.absorption import CONVOLUTIONS, Neighbours
from senet.acceleration.epilogue import Announcement
from senet.acceleration.excitations import read
from senet.acceleration.pointwise import GatedInput, GatedOutput
from senet.acceleration.sites import ENDS, excitation_of, what_follows
from senet.graph.attention import ChannelGate, channel_gates, innermost
from senet.graph.flow import NORMS, Flow
from senet.graph.trace import Op
from senet.insertion.surgery import replace, swap
from senet.normalisation import activation_within, is_batch_norm

_HOOKS = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
)
NORM, SQUEEZE, SCALE = KINDS = ("norm", "squeeze", "scale")


@dataclass(frozen=True)
class Epilogue:
    """What follows a convolution that gives gated maps.

    Args:
        unit: the path of the innermost module around all of it.
        through: the paths of the modules that the map and the sum go through.
        end: "sum" or "activation".
    """

    unit: str
    through: tuple[str, ...]
    end: str


@dataclass(frozen=True)
class Step:
    """One rewriting at one place.

    Args:
        kind: "norm": a batch norm goes into the convolution before it; "squeeze": SE squeezes what the
            convolution before it reads; "scale": its gates go into the weights of the convolution after it.
        layer: the path of the convolution.
        taken: the path of the norm or of the SE block, which is then gone.
        channels: of the block.
        rank: of its map.
        epilogue: what follows a squeezed block, None for nothing that is computed with it.
    """

    kind: str
    layer: str
    taken: str
    channels: int = 0
    rank: int = 4
    epilogue: Epilogue | None = None

    def apply(self, model: nn.Module) -> None:
        """Does it, in place."""
        layer, taken = model.get_submodule(self.layer), model.get_submodule(self.taken)
        with torch.no_grad():
            if self.kind == NORM:
                _fold(layer, taken)
                swap(model, taken, _after(taken))
                return
            excitation = read(taken, self.channels, self.rank)
            if isinstance(excitation, str):
                raise TypeError(excitation)
            joined = (GatedOutput if self.kind == SQUEEZE else GatedInput)(layer, excitation())
        replace(model, taken, None)
        swap(model, layer, joined.train(layer.training))
        if self.epilogue is not None:
            modules = dict(model.named_modules())
            through = [modules[path] for path in self.epilogue.through if path in modules]
            Announcement(joined, through, self.epilogue.end).attach(modules[self.epilogue.unit])


@dataclass(frozen=True)
class Left:
    """A norm or an SE block that stays as it is.

    Args:
        module: its path.
        reason: why.
    """

    module: str
    reason: str


def counted(left: Sequence[Left]) -> list[str]:
    """A line a reason: how many stay for it, and the first of them."""
    first = {each.reason: each.module for each in reversed(left)}
    counts = Counter(each.reason for each in left)
    return [f"  {n:3} x left, such as {first[reason]}: {reason}" for reason, n in counts.items()]


class Rewriter:
    """Decides what can be rewritten, and changes nothing.

    Args:
        model: in evaluation mode, not accelerated.
        flow: of its graph.
    """

    def __init__(self, model: nn.Module, flow: Flow) -> None:
        self.model, self.flow, self.graph = model, flow, flow.graph
        self.neighbours = Neighbours(model, flow)
        # From what a folded norm gives to what its convolution gives, if no activation is in the norm.
        self.before_norm: dict[int, int] = {}

    def plan(self, kinds: Sequence[str]) -> tuple[list[Step], list[Left]]:
        """The steps of these kinds, in the order in which they are done, and the blocks that stay."""
        steps, left = [], []
        if NORM in kinds:
            for op in self.graph.ops:
                layer = self._layer_before(op)
                if layer is not None:
                    steps.append(Step(NORM, layer, op.module))
                    if activation_within(self.model.get_submodule(op.module)) is None:
                        self.before_norm[op.outputs[0]] = op.inputs[0]
            left = self._norms_that_stay({step.taken for step in steps})
        layers: set[str] = set()
        for gate in channel_gates(self.flow):
            found = self._gated(gate, kinds, layers)
            if isinstance(found, Step):
                steps.append(found)
                layers.add(found.layer)
            elif found is not None:
                left.append(found)
        return steps, left

    def _norms_that_stay(self, folded: Collection[str]) -> list[Left]:
        ran = [path for path in self.graph.runs if is_batch_norm(self.model.get_submodule(path))]
        reason = "it has no running statistics, or no convolution before it that nothing else depends on"
        return [Left(path, reason) for path in ran if path not in folded]

    def _gated(self, gate: ChannelGate, kinds: Sequence[str], layers: set[str]) -> Step | Left | None:
        """What becomes of an SE block; None where nothing is asked of it."""
        if not {SQUEEZE, SCALE} & set(kinds):
            return None
        channels, rank = self.flow.channels(gate.gated), len(self.graph.shapes[gate.gated])
        excitation = excitation_of(self.model, self.flow, gate)
        if isinstance(excitation, str):
            return Left(gate.module, excitation)
        before, after = self._before(gate), self._behind(gate)
        if before is not None and SQUEEZE in kinds and before not in layers:
            return Step(SQUEEZE, before, gate.module, channels, rank, self._epilogue(before, gate))
        if after is not None and SCALE in kinds and after.module not in layers:
            # Bytes decide: the gated map is written and read, or the weights are, for each image.
            weights, positions = after.weight[0], prod(self.flow.spatial(gate.gated))
            if weights < positions:
                return Step(SCALE, after.module, gate.module, channels, rank)
            return Left(
                gate.module,
                f"the convolution after it has {weights} weights a channel, the map {positions} positions",
            )
        return Left(gate.module, "no pointwise convolution stands beside it that nothing else depends on")

    def _before(self, gate: ChannelGate) -> str | None:
        """The pointwise convolution that gives the gated map and nothing else, perhaps through a norm."""
        if not self._read_by(gate.gated, gate.ops):
            return None
        op = self.graph.op_of(self.before_norm.get(gate.gated, gate.gated))
        return op.module if op is not None and self._is_pointwise(op) else None

    def _behind(self, gate: ChannelGate) -> Op | None:
        """The pointwise convolution that alone reads the product."""
        readers = self.graph.consumers(gate.op.outputs[0])
        if len(readers) != 1 or not self._read_by(gate.op.outputs[0], {readers[0].index}):
            return None
        return readers[0] if readers[0].groups == 1 and self._is_pointwise(readers[0]) else None

    def _epilogue(self, layer: str, gate: ChannelGate) -> Epilogue | None:
        """What follows the product in the unit that the convolution is in; None where nothing does."""
        ops = what_follows(self.flow, gate)
        unit = innermost((layer, *(op.module for op in ops)))
        # A network that is itself the unit stays without hooks.
        if not ops or not unit:
            return None
        made = self.before_norm.get(gate.gated, gate.gated)
        values = {made, gate.gated, *gate.op.outputs, *ops[0].outputs}
        through = [
            call.module
            for call in self.graph.calls
            if call.module.startswith(f"{unit}.")
            and (call.output in values or not values.isdisjoint(call.arguments))
        ]
        return Epilogue(unit, tuple(dict.fromkeys(through)), ENDS[len(ops)])

    def _is_pointwise(self, op: Op) -> bool:
        """Whether it is a convolution layer of 1×1 that keeps all positions, and is free."""
        if op.name != "convolution" or prod(op.weight[2:]) != 1 or not self._is_layer(op):
            return False
        conv: Any = self.model.get_submodule(op.module)
        edged = not isinstance(conv.padding, str) and any(conv.padding)
        return all(step == 1 for step in conv.stride) and not edged

    def _is_layer(self, op: Op) -> bool:
        known = type(self.model.get_submodule(op.module)) in CONVOLUTIONS
        return known and self.neighbours.is_free(op.module)

    def _layer_before(self, op: Op) -> str | None:
        """The convolution that a norm with fixed statistics can go into; None for other operations."""
        norm: Any = self.model.get_submodule(op.module)
        if op.name not in NORMS or not is_batch_norm(norm) or norm.running_mean is None:
            return None
        maker = self.graph.op_of(op.inputs[0])
        if maker is None or maker.name != "convolution" or not self._is_layer(maker):
            return None
        alone = self._read_by(op.inputs[0], {op.index}) and self.neighbours.is_free(op.module)
        return maker.module if alone else None

    def _read_by(self, value: int, ops: frozenset[int] | set[int]) -> bool:
        """Whether nothing but these operations reads a value."""
        readers = self.graph.consumers(value)
        return value not in self.graph.outputs and all(reader.index in ops for reader in readers)


def _fold(layer: Any, norm: Any) -> None:
    """Multiplies a norm with fixed statistics into the convolution before it."""
    wide = [
        None if each is None else each.detach().double()
        for each in (layer.weight, layer.bias, norm.running_mean, norm.running_var, norm.weight, norm.bias)
    ]
    weight, bias, mean, variance, scale, shift = wide
    new = fuse_conv_bn_weights(weight, bias, mean, variance, norm.eps, scale, shift)  # type: ignore[arg-type]
    like = layer.weight
    layer.weight, layer.bias = (nn.Parameter(each.detach().to(like), like.requires_grad) for each in new)


def _after(norm: nn.Module) -> nn.Module:
    """What remains of a folded norm: its activation, and the SE that hooks put behind it."""
    rest = activation_within(norm) or nn.Identity()
    rest.train(norm.training)
    # The very mappings: the handles that remove hooks, and copies of these, look into them.
    for name in _HOOKS:
        setattr(rest, name, getattr(norm, name))
    return rest
