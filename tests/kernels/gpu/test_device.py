"""What only a GPU can show; the other files of this folder compare the same numbers on it."""

import pytest
import torch
from tests.kernels.gpu.cases import error

from senet.kernels import composite
from senet.kernels.fused import fused_tail
from senet.kernels.reference import Tail, TailTensors

pytestmark = pytest.mark.gpu


def _tensors(*shape: int, dtype: torch.dtype = torch.float32) -> TailTensors:
    channels = shape[1]
    u, residual = (torch.randn(shape, device="cuda", dtype=dtype) for _ in range(2))
    form = torch.channels_last
    u, residual = u.contiguous(memory_format=form), residual.contiguous(memory_format=form)
    w1, w2 = (0.1 * torch.randn(s, device="cuda") for s in ((8, channels), (channels, 8)))
    ones, zeros = torch.ones(channels, device="cuda"), torch.zeros(channels, device="cuda")
    return TailTensors(u, residual, None, ones, zeros, None, None, w1, None, w2, None)


@pytest.mark.parametrize("last", [False, True])
def test_a_map_of_more_than_two_to_the_31_numbers(last: bool) -> None:
    from senet.kernels import gpu

    form = torch.channels_last if last else torch.contiguous_format
    u = torch.empty(700, 1024, 56, 56, device="cuda", dtype=torch.bfloat16, memory_format=form)
    u.normal_()
    assert u.numel() > 2**31
    gate = torch.rand(700, 1024, device="cuda")
    mean, variance = gpu.moments(u)
    out = gpu.apply(u, None, None, None, gate, None, "identity", "relu")
    # The end of the map lies where a 32-bit address would have wrapped.
    for piece in (slice(0, 2), slice(-2, None)):
        right = composite.moments(u[piece].double())
        assert error(mean[piece], right[0]) < 1e-5
        assert error(variance[piece], right[1]) < 1e-5
        told = composite.apply(u[piece], None, None, None, gate[piece], None, "identity", "relu")
        assert torch.equal(out[piece], told)


def test_a_graph_captures_both_directions_and_replays_the_same_bits() -> None:
    tensors = _tensors(4, 64, 14, 14, dtype=torch.bfloat16)
    u = tensors.u.requires_grad_()

    def step() -> tuple[torch.Tensor, torch.Tensor]:
        out = fused_tail(Tail(), tensors, "triton").out
        (du,) = torch.autograd.grad(out.float().square().sum(), u)
        return out, du

    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        first = [each.clone() for each in step()]
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    graph.replay()
    torch.cuda.synchronize()
    for one, other in zip(first, captured, strict=True):
        assert torch.equal(one, other)


def test_twice_the_same_bits() -> None:
    tensors = _tensors(8, 256, 28, 28)
    first, second = (fused_tail(Tail(), tensors, "triton") for _ in range(2))
    assert torch.equal(first.out, second.out)
    assert torch.equal(first.s, second.s)
