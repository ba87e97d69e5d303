import copy
import operator
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from senet.acceleration.pending import Pending, computed
from senet.block import SqueezeExcitation
from senet.tail import tail


class _Gate:
    """The SE module's side, with what it was shown."""

    def __init__(self, end: str) -> None:
        self.block = SqueezeExcitation(4, hidden=3).double()
        self.end = end
        self.gates: list[Tensor] = []

    def tail(self, u: Tensor, **around: Any) -> Tensor:
        result = tail(u, self.block.excitation, backend="composite", **around)
        self.gates.append(result.s)
        return result.out


def _parts(end: str) -> tuple[Tensor, nn.BatchNorm2d, _Gate, Tensor]:
    u = torch.randn(3, 4, 5, 5, dtype=torch.float64)
    return u, nn.BatchNorm2d(4).double(), _Gate(end), torch.randn_like(u)


def _layers(norm: nn.Module, gate: _Gate, u: Tensor) -> Tensor:
    gated: Tensor = gate.block(copy.deepcopy(norm)(u))
    return gated


@pytest.mark.parametrize(
    "add",
    [
        operator.add,
        operator.iadd,
        lambda x, r: r + x,
        torch.add,
        lambda x, r: torch.add(r, x),
        lambda x, r: x.add_(r),
    ],
)
@pytest.mark.parametrize("relu", [F.relu, torch.relu, nn.ReLU(inplace=True), lambda x: x.relu()])
def test_a_residual_tail_is_computed_at_its_end(
    add: Callable[[Any, Any], Any], relu: Callable[[Any], Any]
) -> None:
    u, norm, gate, residual = _parts("activation")
    wanted = (_layers(norm, gate, u) + residual).relu()
    pending = Pending(u, norm).gated(gate)
    summed = add(pending, residual)
    assert isinstance(summed, Pending)
    assert not gate.gates
    torch.testing.assert_close(relu(summed), wanted)
    assert len(gate.gates) == 1
    assert norm.num_batches_tracked == 1


@pytest.mark.parametrize(("end", "steps"), [("gate", 1), ("sum", 2)])
def test_it_is_computed_where_the_network_was_seen_to_end(end: str, steps: int) -> None:
    u, norm, gate, residual = _parts(end)
    wanted = _layers(norm, gate, u)
    given = Pending(u, norm).gated(gate)
    if steps == 2:
        given, wanted = given + residual, wanted + residual
    assert type(given) is Tensor
    torch.testing.assert_close(given, wanted)


@pytest.mark.parametrize("name", ["relu", "silu", "hardswish"])
def test_an_activation_between_norm_and_gate(name: str) -> None:
    u, norm, gate, _ = _parts("gate")
    function = getattr(F, name)
    wanted = gate.block(function(copy.deepcopy(norm)(u)))
    between = function(Pending(u, norm))
    assert isinstance(between, Pending)
    torch.testing.assert_close(between.gated(gate), wanted)


def test_drop_path_is_taken_in() -> None:
    u, norm, gate, residual = _parts("activation")
    wanted = _layers(norm, gate, u)
    pending = Pending(u, norm).gated(gate)
    assert isinstance(pending, Pending)
    keep = pending.new_empty((pending.shape[0],) + (1,) * (pending.ndim - 1)).bernoulli_(0.5).div_(0.5)
    pending = Pending(u, copy.deepcopy(norm)).gated(gate)
    dropped: Any = pending * keep + residual
    assert isinstance(dropped, Pending)
    found: Any = F.relu(dropped)  # type: ignore[arg-type]
    torch.testing.assert_close(found, (wanted * keep + residual).relu())


@pytest.mark.parametrize(
    "use",
    [
        lambda x: F.conv2d(x, torch.ones(2, 4, 1, 1, dtype=torch.float64)),
        lambda x: x - 1,
        lambda x: 1 - x,
        lambda x: x[:, 1:],
        lambda x: x.mean((2, 3)),
        lambda x: torch.cat([x, x]),
        lambda x: x + 1,
        lambda x: x * x,
        lambda x: torch.add(x, x, alpha=2),
        lambda x: torch.gelu(x) if hasattr(torch, "gelu") else F.gelu(x),
        lambda x: F.silu(x),
        lambda x: x.permute(0, 2, 3, 1).contiguous(),
        lambda x: torch.stack(list(x)),
        lambda x: x + torch.ones(4, 1, 1),
        lambda x: (x + torch.ones_like(x + 0)) + 1,
        lambda x: x * torch.full((3, 1, 1, 1), 2.0, dtype=torch.float64) * 3,
    ],
)
def test_whatever_else_is_done_to_it_is_right(use: Callable[[Any], Tensor]) -> None:
    u, norm, gate, _ = _parts("activation")
    wanted = use(_layers(norm, gate, u))
    torch.testing.assert_close(computed(use(Pending(u, norm).gated(gate))), wanted)
    torch.testing.assert_close(
        computed(use(Pending(u, copy.deepcopy(norm)))), use(nn.BatchNorm2d(4).double()(u))
    )


def test_it_is_computed_once() -> None:
    u, norm, gate, residual = _parts("activation")
    pending = Pending(u, norm).gated(gate)
    torch.testing.assert_close(computed(pending * 1), computed(pending + residual) - residual)
    assert norm.num_batches_tracked == 1
    assert computed(pending) is computed(pending)


def test_its_facts_cost_nothing() -> None:
    u, norm, gate, _ = _parts("activation")
    pending = Pending(u, norm).gated(gate)
    assert (pending.shape, pending.ndim, pending.dtype) == (u.shape, 4, torch.float64)
    assert not gate.gates
    assert len(pending) == 3
    assert len(gate.gates) == 1
