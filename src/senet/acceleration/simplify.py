"""The same network with less to do at inference: an exact rewriting, and its report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from senet.acceleration.accelerate import decelerated
from senet.acceleration.comparison import change_of_rewriting, inputs_for
from senet.acceleration.rewriting import NORM, SCALE, SQUEEZE, Left, Rewriter, Step, counted
from senet.block import SqueezeExcitation
from senet.errors import AccelerationError, OptionError
from senet.graph.examples import trace_with
from senet.graph.flow import Flow
from senet.graph.trace import Example
from senet.insertion.plan import check_unwrapped, copied
from senet.tables import Table

_WORDS = {
    NORM: "batch norm folded into the convolution before it",
    SQUEEZE: "SE squeezed before the convolution that it gates",
    SCALE: "gates moved into the weights of the convolution after SE",
}


@dataclass(frozen=True)
class SimplifyReport:
    """What ``simplified`` did.

    Args:
        network: the class of the network.
        steps: what was rewritten.
        left: the SE blocks that stay as they were, with the reason.
        change: of the outputs, in float64, relative to the largest; or why it was not computed.
    """

    network: str
    steps: tuple[Step, ...]
    left: tuple[Left, ...]
    change: float | str

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """A row a norm or SE block."""
        done = [{"module": each.taken, "what": _WORDS[each.kind], "layer": each.layer} for each in self.steps]
        return done + [
            {"module": each.module, "what": f"left: {each.reason}", "layer": ""} for each in self.left
        ]

    def __str__(self) -> str:
        lines = [f"{self.network}: simplified for inference"]
        for kind, words in _WORDS.items():
            count = sum(step.kind == kind for step in self.steps)
            lines += [f"  {count:3} x {words}"] * bool(count)
        change = f"not compared, as {self.change}" if isinstance(self.change, str) else f"{self.change:g}"
        return "\n".join([*lines, *counted(self.left), f"largest change of the output: {change}"])

    def save(self, path: str | Path) -> None:
        """Writes the rows as .csv, .json or .md."""
        Table(self.rows).save(path)


def simplify(
    model: nn.Module,
    *,
    norms: bool = True,
    squeeze: bool = True,
    scale: bool = True,
    example: Example | None = None,
) -> nn.Module:
    """The network as it computes in evaluation mode, with less to do: exact but for rounding.

    Three rewritings, each of which can be switched off. Where the module that a network calls is gone, an
    ``nn.Identity`` stands in its place, so that its class and its forward stay as they are.

    Args:
        model: any CNN, of ours or others, accelerated or not; it stays as it is.
        norms: fold each batch norm into the convolution before it.
        squeeze: where SE follows a 1×1 convolution (and its folded norm), as in bottlenecks, take the
            squeeze of what that convolution reads: the mean of a linear layer's outputs is its output for
            the mean. That is narrower, and the gates are known before the convolution runs, so that scale,
            sum and activation can be its epilogue.
        scale: where a 1×1 convolution alone reads what SE gives, as in MBConv, multiply the gates into its
            weights, image by image, if these are less than the map.
        example: what the network is called with, by whose sizes ``scale`` decides; None: the usual sizes are
            tried.

    Returns:
        A new network in evaluation mode, on the same device; it is for inference: its norms do not learn, and
        its weights fit no other layout. ``simplified`` returns a report too.

    Raises:
        AccelerationError: there is nothing to rewrite, or the rewritten network computes something else, or
            cannot be compared.
        InsertionError: the network is wrapped, compiled or scripted.
        OptionError: all three are switched off.
        TraceError: the network does not run on ``example``, or on a usual size.

    Example:
        >>> fast = senet.simplify(senet.build("se_resnet50").eval())
    """
    return simplified(model, norms=norms, squeeze=squeeze, scale=scale, example=example)[0]


def simplified(
    model: nn.Module,
    *,
    norms: bool = True,
    squeeze: bool = True,
    scale: bool = True,
    example: Example | None = None,
) -> tuple[nn.Module, SimplifyReport]:
    """``simplify``, with its report."""
    asked = f"simplify({type(model).__name__})"
    kinds = [kind for kind, on in ((NORM, norms), (SQUEEZE, squeeze), (SCALE, scale)) if on]
    if not kinds:
        raise OptionError(asked, "norms, squeeze and scale are all False", "at least one of them")
    network, report = rewritten(asked, model, kinds, example)
    if not report.steps:
        raise AccelerationError(
            asked,
            found="there is nothing to rewrite"
            + "".join(f"; {each.module}: {each.reason}" for each in report.left[:1]),
            allowed="networks with batch norms behind convolutions, or SE beside pointwise ones",
        )
    return network, report


def rewritten(
    asked: str, model: nn.Module, kinds: Sequence[str], example: Example | None
) -> tuple[nn.Module, SimplifyReport]:
    """A copy of a network in evaluation mode with what there is of these kinds, if only nothing, rewritten.

    Args:
        asked: what was asked, for errors.
        model: the network.
        kinds: of ``rewriting.KINDS``.
        example: see ``simplify``, as for errors.
    """
    with torch.inference_mode(False), torch.no_grad():
        return _rewritten(asked, model, kinds, example)


def _rewritten(
    asked: str, model: nn.Module, kinds: Sequence[str], example: Example | None
) -> tuple[nn.Module, SimplifyReport]:
    check_unwrapped(model)
    network = copied(model).eval()
    for module in network.modules():
        # Who records the gates of the given network shall not see those of this one.
        if isinstance(module, SqueezeExcitation):
            module._gate_hooks.clear()
    decelerated(network)
    graph, followed = trace_with(network, example)
    steps, left = Rewriter(network, Flow(graph)).plan(kinds)
    if not steps:
        return network, SimplifyReport(type(model).__name__, (), tuple(left), 0.0)
    inputs = inputs_for(followed) if example is None else [example]
    change = change_of_rewriting(asked, network, lambda wide: apply(wide, steps), inputs)
    finite = _all_finite(network)
    apply(network, steps)
    if finite and not _all_finite(network):
        raise AccelerationError(
            asked,
            found="some folded numbers are too large for its dtype",
            do="Simplify the network in float32, then convert it.",
        )
    return network, SimplifyReport(type(model).__name__, tuple(steps), tuple(left), change)


def _all_finite(model: nn.Module) -> bool:
    return all(each.is_meta or bool(each.isfinite().all()) for each in model.state_dict().values())


def apply(model: nn.Module, steps: Sequence[Step]) -> None:
    """Rewrites a network in place."""
    for step in steps:
        step.apply(model)
    model._simplified = True  # type: ignore[assignment]
