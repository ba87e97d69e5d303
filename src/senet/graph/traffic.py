"""The bytes that one operation moves, when each runs by itself as PyTorch runs it eagerly."""

from __future__ import annotations

from math import prod
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves


def moved(func: Any, args: Any, kwargs: Any, result: Any) -> int:
    """The bytes that an operation of the dispatcher reads and writes: each tensor once.

    A view moves nothing. What an operation keeps to itself, such as a convolution's workspace, and how
    often it goes over a tensor is not known here.

    Args:
        func: the operation.
        args: what it is given.
        kwargs: and by keyword.
        result: what it returns.
    """
    read, written = _tensors((args, kwargs)), _tensors(result)
    name = func._schema.name.removeprefix("aten::")
    if name.startswith("copy"):
        # What is overwritten is not looked at first.
        read = read[1:]
    elif name.startswith("new_") or name.endswith("_like"):
        read = []
    places = {storage(tensor) for tensor in read}
    if "empty" in name or (not func._schema.is_mutable and any(storage(each) in places for each in written)):
        return 0
    return sum(_bytes(tensor) for tensor in (*read, *written))


def storage(tensor: Tensor) -> int | None:
    """What tells the memory of a tensor from all other memory there is; None if it has none."""
    try:
        return int(tensor.untyped_storage()._cdata)
    except (NotImplementedError, RuntimeError):
        return None


def _bytes(tensor: Tensor) -> int:
    # An expanded tensor is read from the few numbers that it is made of.
    there = [size for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride]
    return (prod(there) if tensor.numel() else 0) * tensor.element_size()


def _tensors(tree: Any) -> list[Tensor]:
    return list({id(leaf): leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)}.values())
