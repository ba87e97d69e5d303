"""A pointwise convolution and the SE block beside it, as one module whose gates cost less.

A convolution of 1×1 is linear at each position. So the mean of what it gives is what it gives for the
mean of what it reads, and SE after it can squeeze the input, which in a bottleneck is four times as
narrow. And a scale of the channels that it reads is a scale of its weights.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from senet.acceleration.epilogue import scaled
from senet.acceleration.pending import Pending
from senet.kernels import reference
from senet.tail import Excitation


class Gates(nn.Module):
    """Equations 2 and 3 in evaluation: the gates of a map, as another library may spell them.

    Args:
        excitation: the two layers and what follows them, copied.
    """

    def __init__(self, excitation: Excitation) -> None:
        super().__init__()
        self.fc1 = _linear(excitation.w1, excitation.b1)
        self.fc2 = _linear(excitation.w2, excitation.b2)
        self.hidden, self.kind = excitation.hidden, excitation.gate
        if excitation.one_at_zero:
            # As in SqueezeExcitation: weights of the one kind are not loaded into the other.
            self.register_buffer("one_at_zero", excitation.w1.new_ones(()))

    def forward(self, u: Tensor) -> Tensor:
        """Of u (N, C, *spatial) the gates s (N, C), float32 at least."""
        kinds = reference.ONE_AT_ZERO if self.is_one_at_zero else reference.GATES
        hidden = reference.ACTIVATIONS[self.hidden]
        fc1, fc2 = self.fc1, self.fc2
        z = reference.squeeze_avg(u)
        return reference.excite(z, fc1.weight, fc1.bias, fc2.weight, fc2.bias, kinds[self.kind], hidden)

    @property
    def is_one_at_zero(self) -> bool:
        """Whether the gate has the form that is 1 at 0."""
        return "one_at_zero" in self._buffers

    def extra_repr(self) -> str:
        """What is between and after the layers."""
        return f"{self.hidden}, {self.kind}" + (", one at zero" if self.is_one_at_zero else "")


class Pointwise(nn.Module):
    """What stands in for a convolution, with the gates beside it.

    Args:
        conv: of 1×1, stride 1, without padding; its norm folded into it.
        gates: of what it gives, or of what it reads.
    """

    def __init__(self, conv: nn.Module, gates: Gates) -> None:
        super().__init__()
        self.conv, self.gates = conv, gates

    @property
    def weight(self) -> Tensor:
        """The convolution's, where a network looks for its dtype or device."""
        return self.conv.get_parameter("weight")

    @property
    def bias(self) -> Tensor | None:
        """The convolution's."""
        return self.conv._parameters["bias"]


class GatedOutput(Pointwise):
    """A pointwise convolution whose output SE gates: s ⊙ (W x + b), s by the mean of x.

    Args:
        conv: of 1×1, stride 1, without padding; its norm folded into it.
        excitation: of the block after it.
    """

    # Who computes what follows with it, see kernels.why; senet.accelerate sets it.
    backend = "auto"

    def __init__(self, conv: nn.Module, excitation: Excitation) -> None:
        w1, b1 = _before(conv, excitation)
        super().__init__(conv, Gates(excitation._replace(w1=w1, b1=b1)))

    def forward(self, input: Tensor) -> Tensor | Pending:
        """(N, entering, *spatial) to (N, leaving, *spatial), pending where its unit says what follows."""
        # The gates first: what follows the convolution is then elementwise, and can be its epilogue.
        s = self.gates(input)
        u = self.conv(input)
        # Said for one run, and left nowhere.
        if torch.compiler.is_compiling() or not (end := self.__dict__.pop("followed_by", "")):
            return reference.scale(u, s)
        return scaled(u, s, end, self.backend)


class GatedInput(Pointwise):
    """A pointwise convolution of a map that SE gates, with the gates in its weights: (W diag(s)) x + b.

    Args:
        conv: of 1×1, stride 1, one group, without padding.
        excitation: of the block before it.
    """

    def __init__(self, conv: nn.Module, excitation: Excitation) -> None:
        super().__init__(conv, Gates(excitation))

    def forward(self, input: Tensor) -> Tensor:
        """(N, entering, *spatial) to (N, leaving, *spatial), each in the memory format of the input."""
        x = input
        weight = (self.weight.flatten(1) * self.gates(x).unsqueeze(1)).to(x.dtype)
        positions = x.flatten(2)
        if _channels_are_last(x):
            # Rows of channels are what is contiguous, and shall be afterwards.
            rows = _product(positions.transpose(1, 2), weight.transpose(1, 2), self.bias)
            out = rows.transpose(1, 2)
        else:
            bias = None if self.bias is None else self.bias.unsqueeze(1)
            out = _product(weight, positions, bias)
        return out.reshape(*out.shape[:2], *x.shape[2:])


def _product(left: Tensor, right: Tensor, bias: Tensor | None) -> Tensor:
    """Batches of left @ right + bias, in one pass over the result."""
    if bias is None:
        return torch.bmm(left, right)
    return torch.baddbmm(bias.to(left.dtype), left, right)


def _channels_are_last(x: Tensor) -> bool:
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    return x.ndim in formats and x.is_contiguous(memory_format=formats[x.ndim]) and not x.is_contiguous()


def _before(conv: Any, excitation: Excitation) -> tuple[Tensor, Tensor | None]:
    """The first layer of SE for the mean of what the convolution reads: W1 W, and W1 b + b1."""
    wide = torch.float64
    w1, weight = excitation.w1.to(wide), conv.weight.flatten(1).to(wide)
    b1, bias = excitation.b1, conv.bias
    # Each group of outputs reads the inputs of its own group.
    parts = zip(w1.chunk(conv.groups, 1), weight.chunk(conv.groups), strict=True)
    first = torch.cat([left @ right for left, right in parts], 1)
    if bias is not None:
        moved = w1 @ bias.to(wide)
        b1 = moved if b1 is None else moved + b1
    like = excitation.w1
    return first.to(like), None if b1 is None else b1.to(like)


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """A linear layer with copies of these."""
    leaving, entering = weight.shape
    with torch.device("meta"):
        layer = nn.Linear(entering, leaving, bias=bias is not None)
    layer.weight = nn.Parameter(weight.detach().clone(), weight.requires_grad)
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach().clone(), bias.requires_grad)
    return layer
