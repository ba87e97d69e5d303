"""Memory that nobody has written, made visible."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor


@contextmanager
def poisoned() -> Iterator[None]:
    """New memory is NaN, so that an element that a kernel leaves out is seen."""
    # PyTorch notes at its first use which functions `torch.device` acts on: not these, but its own.
    with torch.device("cpu"):
        torch.empty(0)
    with ExitStack() as stack:
        for owner, name in ((torch, "empty"), (torch, "empty_like"), (Tensor, "new_empty")):
            stack.enter_context(mock.patch.object(owner, name, _filled(getattr(owner, name))))
        yield


def _filled(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def filled(*args: Any, **named: Any) -> Tensor:
        return make(*args, **named).fill_(torch.nan)

    return filled
