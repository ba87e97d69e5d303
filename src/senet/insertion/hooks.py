"""How a block that a network does not know is called: hooks that are objects.

A hook changes no key of the state dict. As an object that holds its block, it is copied and
pickled with the network, and the copy's hook calls the copy's block; a closure would go on calling
the original's. It keeps its handle, which reserves its number in the process that unpickles it.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from senet.errors import InsertionError


class Hook:
    """What the kinds share: each knows how to come off again.

    Args:
        block: the one that is called, or on whose behalf.
        position: of the map among the module's arguments.
    """

    # For graph.trace: what this computes, the network computes.
    part_of_network = True
    handle: RemovableHandle

    def __init__(self, block: nn.Module, position: int = 0) -> None:
        self.block = block
        self.position = position

    def attach(self, module: nn.Module) -> None:
        """Puts the hook on the module, before what the module does."""
        self.handle = module.register_forward_pre_hook(self)  # type: ignore[arg-type]

    def remove(self) -> None:
        """Takes the hook off its module."""
        self.handle.remove()

    def _with(self, args: tuple[Any, ...], tensor: Tensor) -> tuple[Any, ...]:
        return (*args[: self.position], tensor, *args[self.position + 1 :])

    @property
    def __name__(self) -> str:
        """What ``torch.jit.script`` asks a hook for before anything else."""
        raise NotImplementedError(
            "torch.jit.script compiles no network with inserted SE blocks: they are called by hooks. "
            "Use torch.export, torch.compile or torch.jit.trace, or build the SE network itself."
        )


class OutputGate(Hook):
    """Gates what a module returns."""

    def attach(self, module: nn.Module) -> None:
        """Puts the hook on the module, after what it does."""
        self.handle = module.register_forward_hook(self)

    def __call__(self, module: nn.Module, args: Any, output: Tensor) -> Tensor:
        """The output, gated."""
        gated: Tensor = self.block(output)
        return gated


class InputGate(Hook):
    """Gates what a module is given."""

    def __call__(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """The arguments, the map among them gated."""
        return self._with(args, self.block(args[self.position]))


class ShortcutGate(InputGate):
    """Gates what a residual unit is given, and remembers it as it was, for ``Ungate``.

    The identity shortcut is no module: the unit's input is gated for all, and the branch gets
    back what it would have had. The memory is on the tensor itself, so that threads, replays and
    compilers see nothing but a tensor.
    """

    def __call__(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """The arguments, the map among them gated and with what it was."""
        u = args[self.position]
        gated: Tensor = self.block(u)
        gated.senet_ungated = u  # type: ignore[attr-defined]
        return self._with(args, gated)


class Ungate(Hook):
    """Gives the start of a branch the unit's input as it was before ``ShortcutGate``."""

    def __call__(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """The arguments, the map among them as it was."""
        u: Tensor | None = getattr(args[self.position], "senet_ungated", None)
        if u is None:
            raise InsertionError(
                "placement='identity'",
                found=f"between the unit's input and its {type(module).__name__} a new tensor was made, "
                "as by dropout, a cast, contiguous() or a reentrant checkpoint",
                allowed="a branch that starts with the very tensor that the unit is given",
                do="Call senet.remove(model), and insert with another placement or without this unit.",
            )
        return self._with(args, u)
