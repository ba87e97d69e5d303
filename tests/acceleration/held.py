"""Networks whose gates are held by hooks: what folded networks are compared with."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from senet.graph.attention import channel_gates
from senet.graph.examples import trace_with
from senet.graph.flow import Flow


def blocks_of(model: nn.Module) -> dict[str, int]:
    """The channels of each SE block, by its name."""
    flow = Flow(trace_with(model, None)[0])
    return {gate.module: flow.channels(gate.gated) for gate in channel_gates(flow)}


def drawn(model: nn.Module, low: float = 0.2) -> dict[str, Tensor]:
    """Constant gates from ``low`` to 1.5 for each block."""
    return {name: low + (1.5 - low) * torch.rand(count) for name, count in blocks_of(model).items()}


def held(model: nn.Module, values: Mapping[str, Any]) -> nn.Module:
    """A copy whose gates are these for every image."""
    model = copy.deepcopy(model)
    for name, value in values.items():
        scale = torch.as_tensor(value).double()

        def gate(module: Any, args: Any, out: Any, scale: Tensor = scale) -> Tensor:
            u: Tensor = args[0]
            s = scale.to(u)
            return u * (s.reshape(-1, *(1,) * (u.ndim - 2)) if s.ndim else s)

        model.get_submodule(name).register_forward_hook(gate)
    return model


def stirred(model: nn.Module) -> nn.Module:
    """In float64, with norms that do something, and without what is drawn at random in training."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            if module.running_mean is not None and module.running_var is not None:
                nn.init.normal_(module.running_mean, std=0.2)
                nn.init.uniform_(module.running_var, 0.5, 1.5)
        # Zeros would hide what multiplies them.
        elif isinstance(getattr(module, "bias", None), Tensor):
            nn.init.normal_(module.get_parameter("bias"), std=0.2)
        for name, kind in (("p", nn.Dropout), ("drop_prob", nn.Module), ("drop_rate", nn.Module)):
            if isinstance(module, kind) and hasattr(module, name):
                setattr(module, name, 0.0)
    return model.double()


def same_step(folded: nn.Module, reference: nn.Module, x: Tensor) -> None:
    """Asserts that a step of training is the same, by the chain rule where a parameter was multiplied."""
    scores = []
    for model in (folded, reference):
        model.train().zero_grad()
        with torch.random.fork_rng():
            torch.manual_seed(1)
            scores.append(model(x))
        (scores[-1] * torch.linspace(-1, 1, scores[-1].shape[1], dtype=x.dtype)).sum().backward()
    torch.testing.assert_close(*scores, rtol=1e-9, atol=1e-9)
    wanted = dict(reference.named_parameters())
    for name, parameter in folded.named_parameters():
        before = wanted[name]
        factor = torch.where(before == 0, 1, parameter / before).detach()
        assert parameter.grad is not None
        assert before.grad is not None
        largest = max(1.0, float(before.grad.abs().max()))
        torch.testing.assert_close(factor * parameter.grad, before.grad, rtol=1e-7, atol=1e-8 * largest)
    buffers = dict(reference.named_buffers())
    for name, buffer in folded.named_buffers():
        if name in buffers:
            torch.testing.assert_close(buffer, buffers[name])
