"""What stands in for the forward of a batch norm and of an SE module while they are accelerated.

Objects, not closures, on the instance: a copy's calls the copy's modules, and pickles hold them.
Each looks at every call whether something has been attached since, or somebody looks on, and then
leaves the call to the module itself.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module
from torch.utils.hooks import RemovableHandle

from senet.acceleration.excitations import Layers, Own
from senet.acceleration.pending import Pending, computed
from senet.block import SqueezeExcitation
from senet.tail import beside, tail


class NormForward:
    """In place of a batch norm's: hands on what it would compute.

    Args:
        norm: the module, perhaps with an activation of its own.
        inner: the name of that.
        gate: of the SE module that follows.
    """

    def __init__(self, norm: nn.Module, inner: str, gate: GateForward) -> None:
        self.norm = norm
        self.inner = inner
        self.gate = gate

    def __call__(self, u: Tensor) -> Pending | Tensor:
        """The norm of a map, pending where the call serves."""
        if not is_left(self.norm) or not self.gate.serves():
            return _own(self.norm, u)
        return Pending(u, self.norm, self.inner)


class BesideForward:
    """In place of the forward of a batch norm whose map is added to a tail's; see ``tail.beside``.

    Args:
        norm: the module.
    """

    def __init__(self, norm: nn.Module) -> None:
        self.norm = norm

    def __call__(self, u: Tensor) -> Tensor:
        """The norm of a map."""
        return beside(self.norm, u) if is_left(self.norm) else _own(self.norm, u)


class GateForward:
    """In place of an SE module's.

    Args:
        module: the SE module.
        excitation: reads it.
        end: what the tail ends with: "gate", "sum" or "activation".
        free: whether the squeeze comes with the norm's statistics, so that a compiler gains too.
        backend: who computes it, see ``kernels.why``.
    """

    def __init__(
        self, module: nn.Module, excitation: Layers | Own, end: str, free: bool, backend: str
    ) -> None:
        self.module = module
        self.excitation = excitation
        self.end = end
        self.free = free
        self.backend = backend
        self._watchers: OrderedDict[int, Callable[[Tensor], None]] = OrderedDict()

    def __call__(self, u: Tensor | Pending, *args: Any, **kwargs: Any) -> Pending | Tensor:
        """The gated map, pending where the tail goes on."""
        if args or kwargs or not self.serves():
            return self._own(computed(u), *args, **kwargs)
        if torch.compiler.is_compiling() and not isinstance(u, Pending):
            return self._own(u)
        pending = u if isinstance(u, Pending) else Pending(u)
        given = pending.gated(self)
        # What follows is plain to a compiler, which fuses it.
        return computed(given) if torch.compiler.is_compiling() else given

    def serves(self) -> bool:
        """Whether this call can be computed in place of the module."""
        modules = list(self.module.modules())
        left = self.excitation.stands_for(modules) and is_left(*modules)
        if torch.compiler.is_compiling():
            return self.free and left
        # Under a dispatch mode somebody looks at operations, module by module.
        watched = self.backend == "auto" and torch._C._len_torch_dispatch_stack() > 0
        return left and not watched

    def tail(self, u: Tensor, **around: Any) -> Tensor:
        """Computes the tail, and shows the gates to who has asked for them."""
        result = tail(u, self.excitation(), backend=self.backend, **around)
        self._show(result.s)
        return result.out

    def _show(self, s: Tensor) -> None:
        if isinstance(self.module, SqueezeExcitation):
            for hook in self.module._gate_hooks.values():
                hook(self.module, s)
        for watcher in self._watchers.values():
            watcher(s.detach())

    def watch(self, seen: Callable[[Tensor], None]) -> RemovableHandle:
        """Calls ``seen`` with the gates (N, C) of each call; returns the handle that ends it."""
        handle = RemovableHandle(self._watchers)
        self._watchers[handle.id] = seen
        return handle

    def _own(self, u: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        # The module itself shows its gates to nobody.
        if self._watchers:
            with torch.no_grad():
                s = tail(u, self.excitation(), backend="reference").s
            for watcher in self._watchers.values():
                watcher(s)
        return _own(self.module, u, *args, **kwargs)


# Whatever stands in for a forward.
StandIn = NormForward | BesideForward | GateForward


def is_left(*modules: nn.Module) -> bool:
    """Whether nobody has attached anything to the modules; SE's own hooks are part of the network."""
    if torch_module._has_any_global_hook():  # type: ignore[no-untyped-call]
        return False
    for module in modules:
        if module._backward_hooks or module._backward_pre_hooks:
            return False
        for hooks in (module._forward_hooks, module._forward_pre_hooks):
            if hooks and not all(getattr(hook, "part_of_network", False) for hook in hooks.values()):
                return False
    return True


def _own(module: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
    given: Tensor = type(module).forward(module, *args, **kwargs)
    return given
