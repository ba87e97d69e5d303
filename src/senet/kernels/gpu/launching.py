"""Starting a kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import triton
from torch import Tensor

# ``triton.jit`` with a type: Triton has none.
jit: Callable[[Callable[..., Any]], Any] = triton.jit


def launch(kernel: Any, programs: int, *arguments: Any, warps: int = 4, **constants: Any) -> None:
    """Runs ``programs`` instances of a kernel on the device of its first tensor.

    Nothing here waits for the device, so a CUDA graph can capture it.

    Args:
        kernel: what ``jit`` gave.
        programs: how many; only the first axis of a grid may exceed 65,535.
        arguments: of the kernel, tensors and numbers; None for a tensor that is not there.
        warps: of each instance.
        constants: what the kernel is specialised on.
    """
    device = next(each.device for each in arguments if isinstance(each, Tensor))
    # Named, because Triton 3.9 warns where it is left to a default that is to change.
    options = {"num_warps": warps, "enable_fp_fusion": True}
    if device.type == "cuda" and device.index != torch.cuda.current_device():
        with torch.cuda.device(device):
            kernel[(programs,)](*arguments, **constants, **options)
    else:
        kernel[(programs,)](*arguments, **constants, **options)
