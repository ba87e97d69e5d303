"""Where a number that is not finite came from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def first_not_finite(model: nn.Module, forward: Callable[[], object]) -> str | None:
    """The first layer of a forward whose output is not finite though its input is.

    Args:
        model: the network.
        forward: runs it again on what it saw.

    Returns:
        The layer's name and kind; else the last parameter, the first of the backward, whose gradient is
        not finite; None where everything is.
    """
    names = {module: name for name, module in model.named_modules() if not any(module.children())}
    found: list[str] = []

    def note(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if not found and _is_finite(inputs) and not _is_finite(output):
            found.append(f"the output of {names[module]} ({type(module).__name__})")

    # With a hook on every layer, those that are computed several in one are called one by one.
    handles = [module.register_forward_hook(note) for module in names]
    try:
        with torch.no_grad():
            forward()
    finally:
        for handle in handles:
            handle.remove()
    if found:
        return found[0]
    for name, parameter in reversed(list(model.named_parameters())):
        if parameter.grad is not None and not _is_finite(parameter.grad):
            return f"the gradient of {name}"
    return None


def _is_finite(value: Any) -> bool:
    if isinstance(value, Tensor):
        return bool(torch.isfinite(value).all())
    return all(_is_finite(each) for each in value) if isinstance(value, tuple | list) else True
