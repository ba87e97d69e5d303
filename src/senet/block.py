"""The Squeeze-and-Excitation block, and the frozen value that makes one.

This is the only SE block there is: variants are its arguments. Where its gates have become constant,
a ``ConstantScale`` can stand for it.
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Never, Self

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized
from torch.utils.hooks import RemovableHandle

from senet import functional
from senet.errors import UndefinedError, check_choice, check_options, require, require_count
from senet.kernels.reference import GATES, ONE_AT_ZERO, TailResult
from senet.normalisation import activation_within, is_batch_norm, is_fixed
from senet.tail import Excitation, activation_name, is_bare, tail

INITS = ("random", "identity")

# The hidden width for C channels and a reduction of r, by whose rule it is: the paper's; timm's, the nearest
# multiple of 8; and that of mmpretrain and others, the same, but never more than a tenth below the paper's.
WIDTH_RULES: dict[str, Callable[[int, int], int]] = {
    "paper": lambda channels, r: channels // r,
    "timm": lambda channels, r: _to_eight(channels, r),
    "mmpretrain": lambda channels, r: _to_eight(channels // r, 1, at_least=0.9),
}

GateHook = Callable[["SqueezeExcitation", Tensor], None]


@dataclasses.dataclass(frozen=True)
class SEConfig:
    """What an SE block is, for any number of channels.

    Args:
        reduction: r; the hidden width is C // r (the paper's rule; default 16).
        hidden: the hidden width outright, in place of C // r.
        squeeze: "avg" (the paper's), "max" (Table 11) or "none" (Table 16): nothing is pooled, the two layers
            are 1×1 convolutions, and every position has gates of its own.
        gate: "sigmoid" (the paper's), "tanh", "relu" (Table 12) or "hardsigmoid".
        bias: whether the two layers have biases. True is what the released models have
            (SE-ResNet-50: 28,088,024 parameters); the paper's ablations use False
            (28,071,976).
        init: "random" (He et al., as the paper) or "identity": every gate is exactly 1 at
            the start, and learns from there.
        width_rule: how C and r give the hidden width: "paper" (C // r), or the rounding to multiples of
            8 of "timm" or "mmpretrain", which weights from there may need.

    Raises:
        OptionError: a value is not allowed.
    """

    reduction: int = 16
    hidden: int | None = None
    squeeze: str = "avg"
    gate: str = "sigmoid"
    bias: bool = True
    init: str = "random"
    width_rule: str = "paper"

    def __post_init__(self) -> None:
        require_count("reduction", self.reduction)
        if self.hidden is not None:
            require_count("hidden", self.hidden)
        check_choice(f"squeeze={self.squeeze!r}", self.squeeze, functional.SQUEEZES)
        check_choice(f"gate={self.gate!r}", self.gate, functional.GATES)
        check_choice(f"init={self.init!r}", self.init, INITS)
        check_choice(f"width_rule={self.width_rule!r}", self.width_rule, WIDTH_RULES)
        require("bias", self.bias, isinstance(self.bias, bool), "True or False")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The config with these fields; OptionError, naming the nearest, for an unknown one."""
        check_options("SEConfig", values, cls.options())
        return cls(**values)

    @classmethod
    def options(cls) -> list[str]:
        """The names of the fields."""
        return [field.name for field in dataclasses.fields(cls)]

    def hidden_width(self, channels: int) -> int:
        """The width between the two layers for ``channels``; UndefinedError where it is zero."""
        require_count("channels", channels)
        rule = WIDTH_RULES[self.width_rule]
        width = rule(channels, self.reduction) if self.hidden is None else self.hidden
        if width == 0:
            raise UndefinedError(
                f"SqueezeExcitation(channels={channels}, reduction={self.reduction})",
                found=f"the hidden width {channels} // {self.reduction} is 0, a constant gate",
                allowed="a hidden width of at least 1",
                do=f"Use a reduction of at most {channels}, or set hidden= outright.",
            )
        return width

    def parameters(self, channels: int) -> int:
        """How many a block for ``channels`` has (equation 5 for one block, and the biases)."""
        width = self.hidden_width(channels)
        return 2 * channels * width + (channels + width if self.bias else 0)

    def build(self, channels: int) -> SqueezeExcitation:
        """The block of this config for ``channels``."""
        return SqueezeExcitation(channels, **dataclasses.asdict(self))


class SqueezeExcitation(nn.Module):
    """Squeeze-and-Excitation: each channel of a map times a gate computed from all (Fig. 1).

    ``forward(u)`` takes (N, C, L), (N, C, H, W) or (N, C, D, H, W) and returns the same
    shape, dtype and memory format. State: ``fc1.weight`` (hidden, C), ``fc2.weight``
    (C, hidden), and their biases. A block with ``init="identity"`` computes another
    function of the same weights, so its state dict also holds ``one_at_zero``, and weights
    of the one kind do not load into a block of the other.

    Args:
        channels: C of the maps.
        reduction: see SEConfig, as for all that follow.
        hidden: the hidden width in place of C // r.
        squeeze: "avg", "max" or "none".
        gate: "sigmoid", "tanh", "relu" or "hardsigmoid".
        bias: whether the two layers have biases.
        init: "random" or "identity".
        width_rule: "paper", "timm" or "mmpretrain".

    Raises:
        OptionError: a value is not allowed.
        UndefinedError: the hidden width would be zero.

    Example:
        >>> block = SqueezeExcitation(256)
        >>> u = torch.randn(8, 256, 56, 56)
        >>> block(u).shape, block.gate(u).shape
        (torch.Size([8, 256, 56, 56]), torch.Size([8, 256]))
    """

    # Whether senet.insert has put it where it is; senet.remove takes those out.
    inserted = False
    # Who computes it, see kernels.why; senet.accelerate sets it.
    backend = "auto"

    def __init__(
        self,
        channels: int,
        reduction: int = 16,
        *,
        hidden: int | None = None,
        squeeze: str = "avg",
        gate: str = "sigmoid",
        bias: bool = True,
        init: str = "random",
        width_rule: str = "paper",
        **unknown: Never,
    ) -> None:
        super().__init__()
        check_options("SqueezeExcitation", unknown, SEConfig.options())
        self.config = SEConfig(reduction, hidden, squeeze, gate, bias, init, width_rule)
        self.channels = channels
        width = self.config.hidden_width(channels)
        self.fc1 = nn.Linear(channels, width, bias=bias)
        self.fc2 = nn.Linear(width, channels, bias=bias)
        if init == "identity":
            # A float, so that code which averages buffers leaves it as it is.
            self.register_buffer("one_at_zero", torch.empty(()))
        self._gate_hooks: OrderedDict[int, GateHook] = OrderedDict()
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """He initialisation; with ``init="identity"`` the last layer starts at zero."""
        for layer in (self.fc1, self.fc2):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if self.config.bias:
                nn.init.zeros_(layer.bias)
        if self.config.init == "identity":
            nn.init.zeros_(self.fc2.weight)
            nn.init.ones_(self.get_buffer("one_at_zero"))

    def forward(self, u: Tensor, mask: Tensor | None = None) -> Tensor:
        """Equation 4: s ⊙ u. ``mask`` as in ``gate``; every position is scaled."""
        if mask is None and self.config.squeeze == "avg" and self.is_plain:
            return self._tail(u).out
        return functional.scale(u, self.gate(u, mask))

    def tail(
        self,
        u: Tensor,
        *,
        norm: nn.Module | None = None,
        inner: nn.Module | None = None,
        residual: Tensor | None = None,
        activation: nn.Module | None = None,
        fork: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """activation(block(inner(norm(u))) + residual), as one operation where that is possible.

        Modules that are no batch norm or ReLU, or that something is attached to, are called. So is a
        norm with fixed statistics: what it gives is then the same bits as without the block, and SE that
        starts as the identity changes none.

        Args:
            u: (N, C, *spatial).
            norm: before the block, None for none.
            inner: an activation between norm and block, None for none.
            residual: the shape of u, added to what the block gives; None for none.
            activation: of the sum, None for none.
            fork: see ``Tail``.

        Returns:
            (N, C, *spatial), as u and residual together; and the same for a second reader, another
            tensor only with ``fork`` and where it is one operation.
        """
        if not (is_bare(self) and self.is_plain and self.config.squeeze == "avg"):
            return _in_steps(self, u, norm=norm, inner=inner, residual=residual, activation=activation)
        name = activation_name(inner)
        known = norm is None or (is_batch_norm(norm) and not is_fixed(norm) and not activation_within(norm))
        if not (name and known and is_bare(norm, inner)):
            u = u if norm is None else norm(u)
            u = u if inner is None else inner(u)
            name, norm = "identity", None
        if activation is not None and not (type(activation) is nn.ReLU and is_bare(activation)):
            out = activation(self._tail(u, norm=norm, inner=name, residual=residual).out)
            return out, out
        outer = "identity" if activation is None else "relu"
        result = self._tail(u, norm=norm, inner=name, residual=residual, outer=outer, fork=fork)
        return result.out, result.out if result.twin is None else result.twin

    def _tail(self, u: Tensor, **around: Any) -> TailResult:
        functional.check_map(f"SqueezeExcitation({self.channels})", u, self.channels)
        result = tail(u, self.excitation, backend=self.backend, **around)
        for hook in self._gate_hooks.values():
            hook(self, result.s)
        return result

    @property
    def is_plain(self) -> bool:
        """Whether it can be computed from ``excitation`` alone: no subclass and no layer does more."""
        kind, base = type(self), SqueezeExcitation
        own = kind.forward is base.forward and kind.gate is base.gate and kind.tail is base.tail
        return own and _is_read(self.fc1) and _is_read(self.fc2)

    @property
    def excitation(self) -> Excitation:
        """Equation 3 as numbers: the two layers and the gate."""
        fc1, fc2 = self.fc1, self.fc2
        one_at_zero = self.config.init == "identity"
        return Excitation(fc1.weight, fc1.bias, fc2.weight, fc2.bias, self.config.gate, one_at_zero)

    def gate(self, u: Tensor, mask: Tensor | None = None) -> Tensor:
        """The gates s of a map (equations 2 and 3).

        Args:
            u: (N, C, *spatial).
            mask: (N, *spatial) bool, True where a position counts; None for all. With
                ``squeeze="none"`` the gates of the others are those of a position of zeros.

        Returns:
            s (N, C), with ``squeeze="none"`` (N, C, *spatial): float32 for half-precision maps, else the
            dtype of u.

        Raises:
            ShapeError: u does not have this block's channels, or the mask does not fit.
            DtypeError: u is not floating point, or the mask not bool.
        """
        functional.check_map(f"SqueezeExcitation({self.channels})", u, self.channels)
        z = functional.squeeze(u, self.config.squeeze, mask)
        if _is_read(self.fc1) and _is_read(self.fc2):
            w1, b1, w2, b2, gate, one_at_zero, _ = self.excitation
            s = functional.excite(z, w1, b1, w2, b2, gate=gate, one_at_zero=one_at_zero)
        else:
            s = self._excited(z)
        for hook in self._gate_hooks.values():
            hook(self, s)
        return s

    def _excited(self, z: Tensor) -> Tensor:
        """Equation 3 with the layers called, which are not as they were."""
        rows = z.movedim(1, -1)
        # They have a dtype of their own, where what is read is converted.
        first = next((each.dtype for each in self.fc1.parameters()), z.dtype)
        gates = ONE_AT_ZERO if self.config.init == "identity" else GATES
        s: Tensor = gates[self.config.gate](self.fc2(torch.relu(self.fc1(rows.to(first)))))
        return s.to(z.dtype).movedim(-1, 1)

    def register_gate_hook(self, hook: GateHook) -> RemovableHandle:
        """Calls ``hook(block, s)`` with every gate computed; returns the handle that ends it."""
        handle = RemovableHandle(self._gate_hooks)
        self._gate_hooks[handle.id] = hook
        return handle

    def extra_repr(self) -> str:
        """The block in the order in which it computes."""
        config = self.config
        text = f"{config.squeeze} {self.channels} -> {self.fc1.out_features} -> {self.channels} {config.gate}"
        return text + (", one at zero" if config.init == "identity" else "")

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        # Also where the caller loads with strict=False: the weights would fit and the
        # gates come out wrong by a factor, which nothing else would notice.
        saved = prefix + "one_at_zero" in state_dict
        if prefix + "fc2.weight" in state_dict and saved != (self.config.init == "identity"):
            errors: list[str] = args[-1] if args else kwargs["error_msgs"]
            kinds = ("random", "identity")
            errors.append(
                f"{prefix.rstrip('.') or 'the block'}: the weights are of a block with "
                f"init={kinds[saved]!r} and this one has init={self.config.init!r}, whose gate "
                f"is another function. Build the block with init={kinds[saved]!r}."
            )
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


class Substitute(nn.Module):
    """What stands in the place of an SE block, and is called as it."""

    # As of the block that it stands for.
    inserted = False

    def tail(self, u: Tensor, **around: Any) -> tuple[Tensor, Tensor]:
        """As ``SqueezeExcitation.tail``, step by step."""
        return _in_steps(self, u, **around)


class ConstantScale(Substitute):
    """What is left of an SE block whose gates are constant: each channel times its number, for all images.

    ``senet.fold_gates`` puts it where no layer beside the block can take the numbers in, and a unit calls
    it as it would the block. State: ``s`` (C,).

    Args:
        s: (C,), the gates.
    """

    s: Tensor

    def __init__(self, s: Tensor) -> None:
        super().__init__()
        self.register_buffer("s", s)

    def forward(self, u: Tensor) -> Tensor:
        """Each channel of u (N, C, *spatial) times its number."""
        return functional.scale(u, self.s.expand(len(u), -1))

    def extra_repr(self) -> str:
        """The channels, and between what the numbers lie."""
        if self.s.is_meta:
            return f"{len(self.s)}"
        return f"{len(self.s)}, {float(self.s.min()):.3g} to {float(self.s.max()):.3g}"


def _is_read(layer: nn.Module) -> bool:
    """Whether a layer computes with the weight and bias that it shows, and nothing else.

    Pruning, and the older norms of weights, make these as the layer is called.
    """
    made = layer._forward_pre_hooks and not layer._parameters.keys() >= {"weight", "bias"}
    return type(layer).forward is nn.Linear.forward and not (made and not is_parametrized(layer))


def _in_steps(
    block: nn.Module,
    u: Tensor,
    *,
    norm: nn.Module | None = None,
    inner: nn.Module | None = None,
    residual: Tensor | None = None,
    activation: nn.Module | None = None,
    fork: bool = False,
) -> tuple[Tensor, Tensor]:
    """A tail with each of its modules called."""
    u = u if norm is None else norm(u)
    out: Tensor = block(u if inner is None else inner(u))
    out = out if residual is None else out + residual
    out = out if activation is None else activation(out)
    return out, out


def _to_eight(channels: int, r: int, at_least: float = 0.0) -> int:
    """The multiple of 8 nearest to channels / r, the higher of two, and not under that share of it."""
    width = max(8, (channels + 4 * r) // (8 * r) * 8)
    return width if width >= at_least * channels / r else width + 8
