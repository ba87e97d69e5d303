"""SE whose gates are constant, taken out of a network, which computes the same and is smaller and faster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from senet.acceleration.absorption import Fold, Neighbours
from senet.acceleration.accelerate import accelerate, decelerated
from senet.acceleration.comparison import change_of_folding, inputs_for
from senet.acceleration.constants import constant_gates
from senet.acceleration.folding import Folding, FoldReport, apply
from senet.acceleration.sites import touched
from senet.block import SqueezeExcitation
from senet.errors import InsertionError, OptionError, did_you_mean, require
from senet.graph.attention import channel_gates
from senet.graph.examples import trace_with
from senet.graph.flow import Flow
from senet.graph.trace import Call, Example
from senet.insertion.plan import check_unwrapped, copied

Values = Mapping[str, Tensor | float | Sequence[float]]


def fold_gates(
    model: nn.Module, blocks: Values | Sequence[str] | str, *, example: Example | None = None
) -> nn.Module:
    """The network without SE blocks whose gates are constant; it computes what it did with those gates.

    The gates of a block are multiplied into the batch norm before it, else into the convolution before it,
    through a ReLU where none is negative, else into the convolutions or linear layers that read the product.
    Where that is not possible, a ``ConstantScale`` remains. In training mode, too, the outputs are the same,
    unless what runs only then (an auxiliary head, noise) stands between the block and such a layer: the
    network is followed and compared as it evaluates.

    Args:
        model: any network with SE, of ours or others, accelerated or not; it stays as it is.
        blocks: the gates of each block, by its name as in ``record_gates``: (C,), or one number for all
            channels, such as 1.0 to drop the block. Or names alone, of blocks whose gates are constant by
            their weights, as those of ``init="identity"`` that have not been trained.
        example: what the network is called with; None: the usual sizes are tried.

    Returns:
        A new network, in the same mode, on the same device; ``fold`` returns a report too.

    Raises:
        InsertionError: a block cannot be taken out, or the network is wrapped, compiled or scripted.
        OptionError: there is no such block, its values are none, or its gates are not constant.
        TraceError: the network does not run on ``example``, or on a usual size.

    Example:
        >>> with senet.record_gates(model) as gates:
        ...     model(images)
        >>> smaller = senet.fold_gates(model, {"layer4.2.se": gates["layer4.2.se"].mean})
    """
    return fold(model, blocks, example=example)[0]


def fold(
    model: nn.Module, blocks: Values | Sequence[str] | str, *, example: Example | None = None
) -> tuple[nn.Module, FoldReport]:
    """``fold_gates``, with its report."""
    check_unwrapped(model)
    network = copied(model)
    for module in network.modules():
        # Who records the gates of the given network shall not see those of this one.
        if isinstance(module, SqueezeExcitation):
            module._gate_hooks.clear()
    backend = decelerated(network)
    graph, followed = trace_with(network, example)
    planner = _Planner(network, Flow(graph))
    foldings = [planner.folding(name, given) for name, given in _named(blocks).items()]
    change = change_of_folding(network, foldings, inputs_for(followed) if example is None else [example])
    apply(network, foldings)
    if backend is not None and channel_gates(Flow(trace_with(network, followed)[0])):
        accelerate(network, backend=backend, example=followed)
    return network, FoldReport(type(model).__name__, tuple(foldings), change)


def _named(blocks: Any) -> dict[str, Any]:
    """The values of each block that was named, None for those that its weights shall give."""
    names = [blocks] if isinstance(blocks, str) else blocks
    listed = isinstance(names, Mapping | Sequence) and all(isinstance(name, str) for name in names)
    require("blocks", blocks, bool(listed and names), "names of SE blocks, or a mapping from names to gates")
    return dict(names) if isinstance(names, Mapping) else dict.fromkeys(names)


class _Block(NamedTuple):
    """An SE module that runs: its calls, the map of each and what the first returns, as values."""

    module: nn.Module
    calls: list[Call]
    maps: list[int]
    product: int


class _Planner:
    """Decides for each block where its gates go, and changes nothing."""

    def __init__(self, model: nn.Module, flow: Flow) -> None:
        self.model = model
        self.flow = flow
        self.modules = dict(model.named_modules())
        self.neighbours = Neighbours(model, flow)
        gates = [gate for gate in channel_gates(flow) if gate.op.name == "mul"]
        self.known = list(dict.fromkeys(gate.module for gate in gates))
        self.unsqueezed = {gate.op.index for gate in gates if not gate.squeezed}

    def folding(self, name: str, given: Any) -> Folding:
        """What is done with a block; ``given`` are its gates, None where its weights shall give them."""
        asked = f"fold_gates({type(self.model).__name__}, {name!r})"
        module, calls, maps, product = self._block(asked, name)
        channels, rank = self.flow.channels(maps[0]), len(self.flow.graph.shapes[maps[0]])
        if given is None:
            makers = [self.flow.graph.op_of(gated) for gated in maps]
            positive = all(maker is not None and maker.name == "relu" for maker in makers)
            scale = constant_gates(asked, module, channels, rank, positive=positive)
        else:
            scale = _checked(asked, given, channels)
        folds: list[Fold] | None = []
        if not bool((scale == 1).all()):
            # What runs several times has other layers around it each time.
            inside = range(calls[0].first, calls[0].end)
            folds = None if len(calls) > 1 else self.neighbours.absorb(maps[0], inside, product, scale)
        parameters = sum(parameter.numel() for parameter in module.parameters())
        return Folding(name, scale, tuple(folds or ()), folds is None, parameters)

    def _block(self, asked: str, name: str) -> _Block:
        """The module of this name, if it can be taken out."""
        allowed = ", ".join(self.known[:8]) + ", ..." * (len(self.known) > 8)
        if name not in self.modules:
            raise OptionError(
                asked, found="there is no such module", allowed=allowed, do=did_you_mean(name, self.known)
            )
        module = self.modules[name]
        calls = [call for call in self.flow.graph.calls if call.module == name]
        ends = [end for call in calls if (end := self._ends(call)) is not None]
        if not calls:
            found = "it does not run in evaluation mode, with this example"
        elif len(ends) < len(calls):
            found = "it is no module of its own that takes a map and returns it times its gates"
        elif (attached := touched(module)) is not None:
            found = f"{attached}, which would be lost"
        else:
            return _Block(module, calls, [gated for gated, _ in ends], ends[0][1])
        raise InsertionError(asked, found=found, allowed=allowed, do=did_you_mean(name, self.known))

    def _ends(self, call: Call) -> tuple[int, int] | None:
        """The only argument of a call, a map, and what it returns, if that is the map times its gates."""
        graph = self.flow.graph
        op = None if call.output is None else graph.op_of(call.output)
        gated = call.arguments[0] if len(call.arguments) == 1 else None
        if call.output is None or gated is None or op is None or not call.contains(op.index):
            return None
        others = [value for value in op.inputs if value != gated]
        if op.name != "mul" or len(op.inputs) != 2 or len(others) != 1:
            return None
        maker = graph.op_of(others[0])
        gate = maker.inputs[0] if maker is not None and maker.name == "expand" else others[0]
        shape = graph.shapes[gated]
        single = (*shape[:2], *(1,) * (len(shape) - 2))
        gates_it = graph.shapes[gate] == single or op.index in self.unsqueezed
        return (gated, call.output) if gates_it else None


def _checked(asked: str, given: Any, channels: int) -> Tensor:
    """The gates (C,) that were given, in float64 on the CPU."""
    try:
        if isinstance(given, Tensor) and given.is_complex():
            raise TypeError("must be real numbers")  # PyTorch would drop the rest of them
        # Wherever the caller's default device is, and without rounding numbers to its default dtype.
        values = torch.as_tensor(given, dtype=torch.float64, device="cpu").detach()
    except (TypeError, ValueError, RuntimeError) as error:
        raise OptionError(
            asked, f"{given!r} is no real number or tensor", "a number, or a tensor (C,)"
        ) from error
    if values.shape not in ((), (channels,)):
        raise OptionError(
            asked,
            found=f"its gates are a tensor of {tuple(values.shape)}",
            allowed=f"one number, or a tensor of ({channels},)",
        )
    if not bool(values.isfinite().all()):
        raise OptionError(
            asked,
            found=f"{int((~values.isfinite()).sum())} of its gates are NaN or infinite",
            allowed="finite numbers",
        )
    return values.expand(channels).clone()
