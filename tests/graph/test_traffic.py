"""Bytes and parameters of single operations, by hand."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from senet.graph.trace import Op, trace
from senet.graph.traffic import storage

MAP = 4 * 2 * 3 * 5 * 7


class _Runs(nn.Module):
    def __init__(self, run: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.run = run

    def forward(self, x: Tensor) -> Tensor:
        return self.run(x)


def _ops(model: nn.Module, device: str) -> list[Op]:
    images = torch.zeros(2, 3, 5, 7, device=device)
    graph = trace(model.to(device), images, without_memory=device != "meta")
    return [op for op in graph.ops if op.name != "detach"]


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize(
    ("run", "bytes_moved"),
    [
        (lambda x: x + x, 2 * MAP),
        (lambda x: x * x[:1, :1, :1, :1], 2 * MAP + 4),
        (lambda x: x * x.mean((2, 3), keepdim=True).expand_as(x), 2 * MAP + 2 * 3 * 4),
        (lambda x: x.relu_(), 2 * MAP),
        (lambda x: torch.cat([x, x], 1), MAP + 2 * MAP),
        (lambda x: x.half(), MAP + MAP // 2),
        (lambda x: torch.zeros_like(x), MAP),
        (lambda x: torch.empty_like(x), 0),
        (lambda x: torch.empty_like(x).copy_(x), 2 * MAP),
        (lambda x: x.flatten(1), 0),
        (lambda x: x.transpose(1, 3)[:, 1:].unsqueeze(0), 0),
        (lambda x: x.split(1, dim=1)[0], 0),
    ],
)
def test_what_the_last_operation_moves(
    run: Callable[[Tensor], Tensor], bytes_moved: int, device: str
) -> None:
    assert _ops(_Runs(run), device)[-1].moved == bytes_moved


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_weights_are_read_and_known_by_name(device: str) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 3 * 5, 6))
    conv, norm, view, linear = _ops(model, device)
    weights = 4 * 3 * 9 + 4
    out = 2 * 4 * 3 * 5
    assert conv.moved == MAP + 4 * (weights + out)
    assert conv.parameters == ("0.weight", "0.bias")
    # Its four vectors are a weight, a bias, a mean and a variance.
    assert (norm.moved, norm.parameters) == (4 * (2 * out + 4 * 4), ("1.weight", "1.bias"))
    assert (view.moved, view.parameters) == (0, ())
    # Transposed or not, it is that weight.
    assert set(linear.parameters) == {"3.weight", "3.bias"}
    assert linear.moved == 4 * (out + 60 * 6 + 6 + 2 * 6)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_normalised_weight_is_still_the_parameter(device: str) -> None:
    class Normalised(nn.Conv2d):
        def forward(self, input: Tensor) -> Tensor:
            return F.conv2d(input, self.weight / self.weight.norm())

    (conv,) = _ops(Normalised(3, 4, 3, bias=False), device)
    assert conv.parameters == ("weight",)


def test_memory_is_told_apart() -> None:
    x = torch.zeros(4)
    assert storage(x) == storage(x[1:]) != storage(torch.zeros(4))
    assert storage(torch.zeros(2, 2).to_sparse()) is None
