"""Puts the SE blocks of a network into the form that an engine runs best."""

from __future__ import annotations

from torch import nn

from senet.acceleration.pointwise import GatedInput, Gates, Pointwise
from senet.acceleration.rewriting import Left
from senet.acceleration.sites import excitation_of, what_follows
from senet.deploy.forms import BlockedScale, Deployed, Excite, Scale
from senet.graph.attention import ChannelGate, channel_gates
from senet.graph.examples import trace_with
from senet.graph.flow import Flow
from senet.graph.trace import Example
from senet.insertion.surgery import replace, swap

# A multiple of the channels that ONNX Runtime puts into a block, on any CPU.
_BLOCK = 16


def deploy(model: nn.Module, example: Example, *, blocked: bool = False) -> tuple[int, list[Left]]:
    """Puts each SE block into the operators of ONNX, in place: a network of ``simplify``, or any other.

    Args:
        model: in evaluation mode, not accelerated.
        example: what it is called with; its sizes are those of the maps.
        blocked: in the form for ONNX Runtime on a CPU, else in the canonical one.

    Returns:
        How many there are in that form, and the blocks that stay as they are, with the reason.
    """
    flow = Flow(trace_with(model, example)[0])
    # Where gates are in the weights of a convolution there is no product to be seen.
    gates: dict[str, ChannelGate | None] = {
        path: None for path, module in model.named_modules() if isinstance(module, Pointwise)
    }
    gates |= {gate.module: gate for gate in channel_gates(flow)}
    placed, left = 0, []
    for path, gate in gates.items():
        module = model.get_submodule(path)
        if isinstance(module, Pointwise):
            side, rank = ("after" if isinstance(module, GatedInput) else "before"), module.weight.ndim
            scale = _scale(flow, gate, rank, blocked)
            swap(model, module, Deployed(Excite(module.gates, rank), scale, **{side: module.conv}).eval())
        elif gate is not None:
            excitation, rank = excitation_of(model, flow, gate), len(flow.graph.shapes[gate.gated])
            if isinstance(excitation, str):
                left.append(Left(path, excitation))
                continue
            scale = _scale(flow, gate, rank, blocked)
            replace(model, module, Deployed(Excite(Gates(excitation()), rank), scale).eval())
        placed += 1
    return placed, left


def _scale(flow: Flow, gate: ChannelGate | None, rank: int, blocked: bool) -> nn.Module:
    """How the map is multiplied; a convolution carries the sum that follows where that is of use."""
    if not blocked or rank != 4 or (gate is not None and not _is_blocked(flow, gate.gated)):
        return Scale()
    if gate is None:
        return BlockedScale()
    channels = flow.channels(gate.gated)
    return BlockedScale(channels if what_follows(flow, gate) and channels % _BLOCK == 0 else 0)


def _is_blocked(flow: Flow, value: int) -> bool:
    """Whether the runtime has a map in blocks, as far as the convolution says that gives it."""
    op = flow.graph.op_of(value)
    while op is not None and op.name != "convolution" and len(op.inputs) == 1:
        op = flow.graph.op_of(op.inputs[0])
    if op is None or op.name != "convolution" or op.groups == 1 or op.weight[1] == 1:
        return True
    # Grouped, but not depthwise: each group has to fill blocks by itself.
    return op.weight[1] % _BLOCK == 0 and op.weight[0] // op.groups % _BLOCK == 0
