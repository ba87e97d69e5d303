"""Gates that are constant by the weights of their block: every image gets the same."""

from __future__ import annotations

from torch import Tensor, nn

from senet.acceleration.excitations import read
from senet.block import SqueezeExcitation
from senet.errors import OptionError
from senet.kernels.reference import ACTIVATIONS, GATES, ONE_AT_ZERO
from senet.tail import Excitation


def constant_gates(
    asked: str, module: nn.Module, channels: int, rank: int, *, positive: bool = False
) -> Tensor:
    """The gates (C,) of an SE block whose weights make them constant, in float64 on the CPU.

    They do where no hidden unit that depends on the image reaches a gate: the last layer is zero, or the
    unit's own weights are, or it is a ReLU that no input opens.

    Args:
        asked: what was asked, for the error.
        module: the block, of any library.
        channels: C.
        rank: of the map, 4 for images.
        positive: whether the map has no negative number, as after a ReLU.

    Raises:
        OptionError: they are not constant, or it is not known what the module computes.
    """
    excitation = module.excitation if isinstance(module, SqueezeExcitation) else read(module, channels, rank)
    numbers = excitation if isinstance(excitation, str | Excitation) else excitation()
    if isinstance(numbers, str):
        found = numbers
    elif numbers.w1.is_meta:
        found = "it is on meta: its weights have no numbers"
    else:
        gates, varying = _gates(numbers, positive)
        if not varying:
            return gates
        found = f"its gate is not constant: {varying} of its {channels} channels depend on the image"
    raise OptionError(
        asked,
        found=found,
        allowed="names alone only of blocks whose weights make the gates constant",
        do="Give the values, such as {name: gates[name].mean} of senet.record_gates.",
    )


def _gates(excitation: Excitation, positive: bool) -> tuple[Tensor, int]:
    """The gates with all that depends on the image left out, and how many do depend on it."""
    w1, w2 = (each.detach().cpu().double() for each in (excitation.w1, excitation.w2))
    b1, b2 = (
        weight.new_zeros(len(weight)) if bias is None else bias.detach().cpu().double()
        for weight, bias in ((w1, excitation.b1), (w2, excitation.b2))
    )
    constant = (w1 == 0).all(1)
    if positive and excitation.hidden == "relu":
        constant = constant | ((w1 <= 0).all(1) & (b1 <= 0))
    hidden = ACTIVATIONS[excitation.hidden](b1)
    varying = int((w2[:, ~constant] != 0).any(1).sum())
    gate = (ONE_AT_ZERO if excitation.one_at_zero else GATES)[excitation.gate]
    return gate(w2[:, constant] @ hidden[constant] + b2), varying
