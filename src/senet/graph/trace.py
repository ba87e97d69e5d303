"""Follows the tensors of any network: what it computes, from what, in which module.

The network runs once in evaluation mode, and every operation is noted as PyTorch's dispatcher sees
it. Class names, ``torch.add`` or ``+=``, a module or a function: none of that matters here.
"""

from __future__ import annotations

import contextlib
import copy
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.flop_counter import flop_registry

from senet.errors import TraceError
from senet.graph.traffic import moved, storage

Example = Tensor | Sequence[Any] | Mapping[str, Any]


@dataclass(frozen=True)
class Op:
    """One operation on tensors that depend on the network's input.

    Args:
        index: its place in time.
        name: PyTorch's, without variants: "convolution", "add", "relu", "cat".
        inputs: the values it read, in order; parameters and constants are not among them.
        outputs: the values it made.
        module: the path of the innermost module that was running.
        weight: the shape of a convolution's weight, else ().
        groups: of a convolution, else 1.
        products: the multiply-adds of a convolution or a matrix product, else 0.
        dims: the order of a permutation, else ().
        overwritten: the values among the inputs whose memory it wrote.
        moved: the bytes that it read and wrote, of weights too.
        parameters: the names of the parameters that it read, or that what it read was made from.
    """

    index: int
    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    module: str
    weight: tuple[int, ...] = ()
    groups: int = 1
    products: int = 0
    dims: tuple[int, ...] = ()
    overwritten: tuple[int, ...] = ()
    moved: int = 0
    parameters: tuple[str, ...] = ()


@dataclass
class Call:
    """One run of a module.

    Args:
        module: its path.
        arguments: the values that it was given by position, None for what is no tensor.
        first: its first operation.
        end: the operation after its last.
        output: the value that it returned; None if it returned none, or several.
    """

    module: str
    arguments: tuple[int | None, ...]
    first: int
    end: int = -1
    output: int | None = None

    def contains(self, op: int) -> bool:
        """Whether the operation ran inside."""
        return self.first <= op < self.end


@dataclass
class Graph:
    """What a network did with one example.

    A value is one tensor at one time. It has a number, and numbers grow with time: what was
    written in place is another value afterwards.

    Args:
        shapes: of the values.
        producer: of each value, the operation that made it; None for the network's inputs.
        ops: in order.
        calls: runs of modules, in order of their start.
        outputs: the values that the network returned.
    """

    shapes: list[tuple[int, ...]] = field(default_factory=list)
    producer: list[int | None] = field(default_factory=list)
    ops: list[Op] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    outputs: tuple[int, ...] = ()

    @cached_property
    def runs(self) -> Counter[str]:
        """How often each module ran."""
        return Counter(call.module for call in self.calls)

    @cached_property
    def _consumers(self) -> dict[int, list[Op]]:
        found: dict[int, list[Op]] = {}
        for op in self.ops:
            for value in dict.fromkeys(op.inputs):
                found.setdefault(value, []).append(op)
        return found

    def consumers(self, value: int) -> list[Op]:
        """The operations that read a value."""
        return self._consumers.get(value, [])

    def op_of(self, value: int) -> Op | None:
        """The operation that made a value, None for an input of the network."""
        index = self.producer[value]
        return None if index is None else self.ops[index]


def trace(
    model: nn.Module, example: Example, *, without_memory: bool = True, with_hooks: bool = False
) -> Graph:
    """What ``model`` does with ``example``.

    The model is left as it was: modes, attributes, buffers, hooks.

    Args:
        model: any module on any device, "meta" included.
        example: what it is called with: a tensor, a tuple of arguments or a mapping of keywords.
        without_memory: runs on tensors without numbers (about a second for the largest
            networks); a model that asks for numbers on its way needs False.
        with_hooks: whether the hooks of modules see the run; without, only those do that have a
            true attribute ``part_of_network``.

    Raises:
        TraceError: the model does not run like that; the cause is its own error.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(buffers_kept(model))
        if without_memory:
            stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
            example = tree_map(partial(_like, device=device_of(model)), example)
        stack.enter_context(_quiet())
        device = device_of(model)
        stack.enter_context(torch.random.fork_rng([device] if device.type == "cuda" else []))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.no_grad())
        for kind in ("cpu", "cuda"):
            stack.enter_context(torch.autocast(kind, enabled=False))
        stack.enter_context(_attributes_kept(model))
        try:
            return _follow(model, example, with_hooks)
        except Exception as error:
            raise TraceError(
                f"trace({type(model).__name__})",
                found=f"it does not run on {_described(example)} ({type(error).__name__}: {_short(error)})",
                do="Give example=: a tensor, or a tuple of what its forward takes.",
            ) from error


def device_of(model: nn.Module) -> torch.device:
    """Where the parameters are; the CPU if there are none."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


def _like(leaf: Any, device: torch.device) -> Any:
    """A tensor like this one without numbers; where it or the model is nowhere, on the model's device."""
    if not isinstance(leaf, Tensor):
        return leaf
    nowhere = leaf.is_meta or device.type == "meta"
    return torch.empty(leaf.shape, dtype=leaf.dtype, device=device if nowhere else leaf.device)


def _follow(model: nn.Module, example: Any, with_hooks: bool) -> Graph:
    recorder = _Recorder(model)
    for name, module in model.named_modules():
        module.training = False
        # What users attach to look at maps shall not see these; what computes them must run.
        for hooks in () if with_hooks else (module._forward_pre_hooks, module._forward_hooks):
            for key in [key for key, hook in hooks.items() if not getattr(hook, "part_of_network", False)]:
                del hooks[key]
        module.register_forward_pre_hook(recorder.entering(name))
        module.register_forward_hook(recorder.leaving)
    for tensor in _tensors(example):
        recorder.bind(tensor, None)
    with recorder:
        if isinstance(example, Mapping):
            result = model(**example)
        else:
            result = model(*example) if isinstance(example, tuple | list) else model(example)
    graph = recorder.graph
    graph.outputs = recorder.values(result)
    return graph


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes every operation and every run of a module."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.graph = Graph()
        self._parameters: dict[int | None, tuple[str, ...]] = {
            storage(each): (name,) for name, each in model.named_parameters()
        }
        self._running: list[Call] = []
        self._value: dict[int, int] = {}
        # Alive until the end, so that no two tensors have the same id.
        self._alive: list[Any] = []
        self._sharing: dict[int | None, list[Tensor]] = {}

    def bind(self, tensor: Tensor, op: int | None) -> int:
        """Gives the tensor, as it is now, its number."""
        value = len(self.graph.shapes)
        self.graph.shapes.append(tuple(int(size) for size in tensor.shape))
        self.graph.producer.append(op)
        if id(tensor) not in self._value:
            self._alive.append(tensor)
            self._sharing.setdefault(storage(tensor), []).append(tensor)
        self._value[id(tensor)] = value
        return value

    def values(self, tree: Any) -> tuple[int, ...]:
        """The values among the leaves."""
        return tuple(self._value[id(leaf)] for leaf in _tensors(tree) if id(leaf) in self._value)

    def entering(self, name: str) -> Any:
        """The hook that notes the start of the module of this name."""

        def hook(module: nn.Module, args: Any) -> None:
            call = Call(name, tuple(self._one(argument) for argument in args), first=len(self.graph.ops))
            self.graph.calls.append(call)
            self._running.append(call)

        return hook

    def leaving(self, module: nn.Module, args: Any, result: Any) -> None:
        """The hook that notes the end of the module that is running."""
        call = self._running.pop()
        call.output, call.end = self._one(result), len(self.graph.ops)

    def _one(self, item: Any) -> int | None:
        return self._value.get(id(item)) if isinstance(item, Tensor) else None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        inputs = self.values((args, kwargs))
        # What does not depend on the input is computed with its numbers: it may be kept beyond the run.
        with contextlib.nullcontext() if inputs else unset_fake_temporarily():
            result = _quick_norm(func, args) or func(*args, **kwargs)
        if inputs and _tensors(result):
            self._note(func, inputs, args, kwargs, result)
        elif names := self._parameters_of((args, kwargs)):
            # A weight that is normalised, or only transposed, is still that parameter.
            self._alive.append(result)
            self._parameters |= {storage(tensor): names for tensor in _tensors(result)}
        return result

    def _parameters_of(self, tree: Any) -> tuple[str, ...]:
        names = [name for each in _tensors(tree) for name in self._parameters.get(storage(each), ())]
        return tuple(dict.fromkeys(names))

    def _note(self, func: Any, inputs: tuple[int, ...], args: Any, kwargs: Any, result: Any) -> None:
        written = [
            value
            for argument, value in zip(func._schema.arguments, args, strict=False)
            if argument.alias_info is not None and argument.alias_info.is_write
        ]
        written += [
            kwargs[argument.name]
            for argument in func._schema.arguments[len(args) :]
            if argument.alias_info is not None and argument.alias_info.is_write and argument.name in kwargs
        ]
        index = len(self.graph.ops)
        overwritten = self.values(written)
        made = _tensors(written)
        # Whoever shares the memory that was written sees it changed.
        for tensor in list(made):
            if storage(tensor) is not None:
                made += self._sharing.get(storage(tensor), [])
        made += _tensors(result)
        outputs = tuple(self.bind(tensor, index) for tensor in {id(each): each for each in made}.values())
        name = func._schema.name.removeprefix("aten::")
        self.graph.ops.append(
            Op(
                index,
                name.rstrip("_") if written else name,
                inputs,
                outputs,
                self._running[-1].module if self._running else "",
                overwritten=overwritten,
                products=_products(func, args, kwargs, result),
                moved=moved(func, args, kwargs, result),
                parameters=self._parameters_of((args, kwargs)),
                **_facts(name, args),
            )
        )


def _quick_norm(func: Any, args: Any) -> tuple[Tensor, ...] | None:
    """What a batch norm with fixed statistics gives without memory; PyTorch takes it apart, which is slow."""
    if func is torch.ops.aten.native_batch_norm.default and not args[5]:
        x = args[0]
        if x.is_meta or isinstance(x, FakeTensor):
            return torch.empty_like(x), x.new_empty(0), x.new_empty(0)
    return None


def _facts(name: str, args: Any) -> dict[str, Any]:
    if name == "convolution":
        # (input, weight, bias, stride, padding, dilation, transposed, output_padding, groups)
        return {"weight": tuple(args[1].shape), "groups": int(args[8])}
    if name == "permute":
        return {"dims": tuple(dim % args[0].ndim for dim in args[1])}
    if name in ("transpose", "t"):
        order = list(range(args[0].ndim))
        one, other = (args[1], args[2]) if name == "transpose" else (0, -1)
        order[one], order[other] = order[other], order[one]
        return {"dims": tuple(order)}
    return {}


def _products(func: Any, args: Any, kwargs: Any, result: Any) -> int:
    # PyTorch's formulas count a multiply-add as two.
    formula = flop_registry.get(func.overloadpacket)
    return 0 if formula is None else int(formula(*args, **kwargs, out_val=result)) // 2


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps PyTorch from logging the failures of inputs that are only tried."""
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


@contextlib.contextmanager
def _attributes_kept(model: nn.Module) -> Iterator[None]:
    """Undoes whatever happens to the attributes of modules: modes, hooks, caches, counters."""
    kept: dict[int, tuple[Any, Any]] = {}
    for module in model.modules():
        _keep(module.__dict__, kept)
    try:
        yield
    finally:
        for container, content in kept.values():
            container.clear()
            container.extend(content) if isinstance(container, list) else container.update(content)


def _keep(container: Any, kept: dict[int, tuple[Any, Any]]) -> None:
    """Notes what a container, and the containers in it, hold."""
    if isinstance(container, dict | list | set) and id(container) not in kept:
        kept[id(container)] = (container, copy.copy(container))
        for item in container.values() if isinstance(container, dict) else container:
            _keep(item, kept)


@contextlib.contextmanager
def buffers_kept(model: nn.Module) -> Iterator[None]:
    """Undoes what is written into buffers, also where the rest of the run has no memory."""
    kept = [(buffer, buffer._version, buffer.clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, version, content in kept:
                if buffer._version != version:
                    buffer.copy_(content)


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _described(example: Any) -> str:
    shapes = [str(tuple(tensor.shape)) for tensor in _tensors(example)]
    return f"an input of {', '.join(shapes)}"


def _short(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return lines[0] if len(lines[0]) <= 200 else lines[0][:197] + "..."
