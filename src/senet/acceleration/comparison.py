"""Whether a rewritten network computes what it did: both are run, in float64."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from senet import functional
from senet.acceleration.folding import Folding, apply
from senet.errors import AccelerationError, InsertionError, SenetError
from senet.graph.trace import Example, device_of
from senet.insertion.surgery import outputs

# In float64, relative to the largest output: what is more is no rounding.
_BOUND = 1e-8


def change_of_folding(model: nn.Module, foldings: Sequence[Folding], examples: Sequence[Any]) -> float | str:
    """How much folding changes outputs, relative to the largest, or why that is not known.

    Compared with the network whose gates are held: a copy with a hook on each block.

    Args:
        model: the network, whole.
        foldings: what shall be done.
        examples: the first that the network runs on is taken.

    Raises:
        InsertionError: it changes more than by rounding.
    """

    def hold(wide: nn.Module) -> None:
        for each in foldings:
            scale = each.scale.to(device_of(model))
            wide.get_submodule(each.block).register_forward_hook(_Held(scale))

    return _change(
        model,
        hold,
        lambda wide: apply(wide, foldings),
        examples,
        "with constant gates",
        lambda found: InsertionError(
            f"fold_gates({type(model).__name__})",
            f"without the blocks it {found}",
            do="Leave out some of them: a layer beside them is not what it seems.",
        ),
    )


def change_of_rewriting(
    asked: str, model: nn.Module, rewrite: Callable[[nn.Module], None], examples: Sequence[Any]
) -> float | str:
    """How much a rewriting changes outputs, each relative to its largest number, or that it is on "meta".

    Args:
        asked: what was asked, for the error.
        model: the network, whole.
        rewrite: does it to a copy, in place.
        examples: the first that the network runs on is taken.

    Raises:
        AccelerationError: it changes more than by rounding, or that cannot be told.
    """

    def error_of(found: str) -> SenetError:
        do = "Switch off one of the rewritings: a layer is not what it seems."
        return AccelerationError(asked, f"rewritten, it {found}", do=do)

    change = _change(model, lambda wide: None, rewrite, examples, "as it was", error_of)
    if isinstance(change, str) and device_of(model).type != "meta":
        raise AccelerationError(
            asked,
            found=f"the rewritten network cannot be compared with it, as {change}",
            do="Simplify the part of it that can be run in float64 and returns tensors.",
        )
    return change


def _change(
    model: nn.Module,
    hold: Callable[[nn.Module], None],
    rewrite: Callable[[nn.Module], None],
    examples: Sequence[Any],
    was: str,
    error_of: Callable[[str], SenetError],
) -> float | str:
    """The change between two copies in float64, each made from the model by one of the functions.

    ``was`` says what the first is, and ``error_of`` makes the error of what is found.
    """
    device = device_of(model)
    if device.type == "meta":
        return "the network is on meta"
    reference, rewritten = _wide(model), _wide(model)
    hold(reference)
    why = "there is no example"
    for example in examples:
        inputs = tree_map(partial(_numbers, device=device), example)
        try:
            before = _seeded(reference, inputs)
        except Exception as error:
            why = f"in float64 the network does not run ({error})"
            continue
        if not any(each.is_floating_point() and each.numel() for each in before):
            why = "it returns no tensor of floating-point numbers, alone or in lists, tuples and dicts"
            continue
        rewrite(rewritten)
        try:
            after = _seeded(rewritten, inputs)
        except Exception as error:
            raise error_of(f"no longer runs ({error})") from error
        change = max(map(relative_change, before, after))
        if not change <= _BOUND:
            raise error_of(f"differs by {change:g} from the network {was}")
        return change
    return why


def _seeded(model: nn.Module, inputs: Any) -> list[Tensor]:
    """What a network gives, the same each time also where it draws numbers; the caller's state stays."""
    with torch.random.fork_rng(), torch.inference_mode(False):
        torch.manual_seed(0)
        return outputs(model, inputs)


def relative_change(before: Tensor, after: Tensor) -> float:
    """The largest difference of one output, to its largest finite number; infinite where others differ."""
    if before.shape != after.shape:
        return math.inf
    before, after = before.double(), after.double()
    finite = before.isfinite()
    others = before[~finite], after[~finite]
    if not torch.allclose(*others, equal_nan=True) or not after[finite].isfinite().all():
        return math.inf
    if not finite.any():
        return 0.0
    largest = float(before[finite].abs().max())
    return float((before[finite] - after[finite]).abs().max()) / (largest or 1.0)


def inputs_for(followed: Example) -> list[Any]:
    """What the network was found to run on, and before that a smaller part of it, which is quicker."""
    if not isinstance(followed, Tensor):
        return [followed]
    return [followed[:1, :, *(slice(64) for _ in followed.shape[2:])], followed]


def _numbers(leaf: Any, device: torch.device) -> Any:
    """A tensor in float64 on the device, of random numbers where it has none."""
    if not isinstance(leaf, Tensor) or not leaf.is_floating_point():
        return leaf
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(leaf.shape, generator=generator, device="cpu") if leaf.is_meta else leaf
    return drawn.to(device, torch.float64)


def _wide(model: nn.Module) -> nn.Module:
    """A copy in float64, without what users have attached."""
    wide = copy.deepcopy(model).double()
    for module in wide.modules():
        for hooks in (module._forward_pre_hooks, module._forward_hooks):
            for key in [key for key, hook in hooks.items() if not _is_part(hook)]:
                del hooks[key]
    return wide


def _is_part(hook: object) -> bool:
    """Whether a network is another without it: SE that was inserted, and torch's own that make weights."""
    return getattr(hook, "part_of_network", False) or type(hook).__module__.startswith("torch.nn.utils.")


class _Held:
    """A forward hook that gives a block's map times constant gates."""

    def __init__(self, scale: Tensor) -> None:
        self.scale = scale

    def __call__(self, block: nn.Module, args: tuple[Any, ...], result: Any) -> Tensor:
        u: Tensor = args[0]
        return functional.scale(u, self.scale.expand(len(u), -1))
