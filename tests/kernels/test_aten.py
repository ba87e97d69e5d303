from typing import Any

import pytest
import torch
import torch._dynamo
from hypothesis import given
from hypothesis import strategies as st
from tests.tails import SHAPES, SPECS, doubled, gradients, random_tail, worst
from torch import Tensor, nn
from torch.nn import functional as F

from senet.kernels import aten
from senet.kernels.aten import traceable_norm, traceable_tail
from senet.kernels.reference import GATES, Tail, TailResult, TailTensors, tail


@given(SPECS, SHAPES, st.booleans(), st.booleans(), st.booleans(), st.integers(0, 2**31))
def test_it_computes_what_the_layers_compute(
    spec: Tail, shape: tuple[int, ...], residual: bool, keep: bool, bias: bool, seed: int
) -> None:
    tensors = random_tail(spec, shape, seed, residual=residual, keep=keep, bias=bias)
    found, wanted = traceable_tail(spec, tensors), tail(spec, tensors)
    assert worst(list(found[:2]), list(wanted[:2])) < 1e-12
    assert worst(gradients(found, tensors), gradients(wanted, tensors)) < 1e-9
    assert (found.mean is None) == (wanted.mean is None)
    if found.mean is not None and found.variance is not None:
        torch.testing.assert_close((found.mean, found.variance), (wanted.mean, wanted.variance))
    assert found.twin is None


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_norm_alone_is_that_of_pytorch(affine: bool, dtype: torch.dtype) -> None:
    u = torch.randn(3, 4, 5, 2).to(dtype)
    weight, bias = torch.randn(2, 4).to(dtype) if affine else (None, None)
    out, mean, variance = traceable_norm(u, weight, bias, 1e-3)
    wide, normed = u.double(), F.batch_norm(u.double(), None, None, training=True, eps=1e-3)
    over = (1, 4, 1, 1)
    wanted = normed if weight is None or bias is None else normed * weight.reshape(over) + bias.reshape(over)
    assert out.dtype == dtype
    assert worst([out], [wanted]) < (8e-3 if dtype == torch.bfloat16 else 1e-12)
    assert worst([mean, variance], [wide.mean((0, 2, 3)), wide.transpose(0, 1).flatten(1).var(1)]) < 1e-6


def test_two_readers_get_one_map() -> None:
    result = traceable_tail(Tail(fork=True), random_tail(Tail(), (2, 3, 4)))
    assert result.twin is result.out


@pytest.mark.parametrize("other", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_sum_is_rounded_once_to_what_holds_both(dtype: torch.dtype, other: torch.dtype) -> None:
    tensors = random_tail(Tail(), (4, 8, 7, 5), dtype=dtype, parameters=torch.float32)
    tensors = tensors._replace(residual=torch.randn(tensors.u.shape).to(other))
    found, wanted = traceable_tail(Tail(), tensors).out, tail(Tail(), doubled(tensors)).out
    assert found.dtype == torch.promote_types(dtype, other)
    bounds = {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}
    assert worst([found], [wanted]) < bounds[found.dtype]


@pytest.mark.parametrize("gate", sorted(GATES))
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_goes_where_it_goes_in_the_layers(gate: str, value: float) -> None:
    spec = Tail("fixed", gate=gate, outer="identity")
    for seed in range(8):
        tensors = random_tail(spec, (3, 2, 4, 4), seed)
        with torch.no_grad():
            tensors.u[1, 0, 2, 3] = value
        found, wanted = traceable_tail(spec, tensors), tail(spec, tensors)
        torch.testing.assert_close(found[:2], wanted[:2], equal_nan=True)
        assert not found.out[1].isfinite().all()


def test_it_is_differentiable_twice() -> None:
    spec = Tail(outer="identity", hidden="silu")
    tensors = random_tail(spec, (2, 2, 2, 2))

    def run(u: Tensor, w1: Tensor) -> Tensor:
        return traceable_tail(spec, tensors._replace(u=u, w1=w1)).out

    assert torch.autograd.gradgradcheck(run, (tensors.u, tensors.w1))


def test_half_precision_is_summed_in_single_under_autocast_too() -> None:
    tensors = random_tail(Tail(), (4, 8, 7, 5), dtype=torch.bfloat16, parameters=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = traceable_tail(Tail(), tensors)
    wanted = tail(Tail(), doubled(tensors))
    assert (found.out.dtype, found.s.dtype) == (torch.bfloat16, torch.float32)
    assert worst([found.out], [wanted.out]) < 8e-3
    assert worst([found.s], [wanted.s]) < 1e-6


def test_an_ensemble_runs_by_vmap() -> None:
    members = [random_tail(Tail(), (2, 3, 4, 4), seed) for seed in range(3)]
    columns: list[Any] = list(zip(*members, strict=True))
    stacked = {index: torch.stack(each) for index, each in enumerate(columns) if each[0] is not None}

    def run(tensors: dict[int, Any]) -> Tensor:
        return traceable_tail(Tail(), TailTensors(*(tensors.get(index) for index in range(11)))).out  # type: ignore[arg-type]

    found = torch.func.vmap(run)(stacked)
    torch.testing.assert_close(found, torch.stack([tail(Tail(), member).out for member in members]))


@pytest.mark.parametrize("residual", [False, True])
def test_its_own_backwards_are_autograds(residual: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aten, "_differentiated_by_hand", lambda: True)
    spec = Tail(gate="tanh", hidden="silu")
    tensors = random_tail(spec, (3, 4, 5, 2), residual=residual, keep=True)
    found, wanted = traceable_tail(spec, tensors), tail(spec, tensors)
    assert worst(list(found[:2]), list(wanted[:2])) < 1e-12
    assert worst(gradients(found, tensors), gradients(wanted, tensors)) < 1e-9


@pytest.mark.parametrize("other", [torch.bfloat16, torch.float32])
def test_its_own_backwards_sum_half_precision_in_single(
    other: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aten, "_differentiated_by_hand", lambda: True)
    spec = Tail(outer="identity")
    tensors = random_tail(spec, (4, 8, 9, 7), dtype=torch.bfloat16, parameters=torch.float32)
    tensors = tensors._replace(residual=tensors.u.detach().to(other).requires_grad_())
    wide, g = doubled(tensors), torch.randn(tensors.u.shape).bfloat16()
    found, wanted = (
        torch.autograd.grad(out, [each for each in leaves if each is not None], g.to(out))
        for out, leaves in ((traceable_tail(spec, tensors).out, tensors), (tail(spec, wide).out, wide))
    )
    assert [grad.dtype for grad in found[:2]] == [torch.bfloat16, other]
    assert worst(list(found[1:]), list(wanted[1:])) < 1e-5


def test_no_question_about_dtypes_stands_in_an_exported_graph() -> None:
    tensors = random_tail(Tail("fixed"), (2, 3, 4, 4), dtype=torch.float32)

    class Network(nn.Module):
        def forward(self, u: Tensor, residual: Tensor) -> Tensor:
            return traceable_tail(Tail("fixed"), tensors._replace(u=u, residual=residual)).out

    graph = torch.export.export(Network(), (tensors.u.detach(), torch.randn(2, 3, 4, 4))).graph
    names = {str(node.target) for node in graph.nodes}
    assert "aten.add.Tensor" in names
    assert not any("promote" in name for name in names)


@pytest.mark.parametrize("other", [None, torch.float64, torch.bfloat16])
def test_a_compiler_gets_all_gradients(other: torch.dtype | None) -> None:
    spec = Tail()
    tensors = random_tail(spec, (3, 4, 5, 2), residual=False)
    if other is not None:
        tensors = tensors._replace(residual=torch.randn(tensors.u.shape).to(other).requires_grad_())

    def run(*given: Tensor | None) -> tuple[Tensor, Tensor]:
        result = traceable_tail(spec, TailTensors(*given))  # type: ignore[arg-type]
        return result.out, result.s

    torch._dynamo.reset()
    out, s = torch.compile(run, backend="aot_eager", fullgraph=True)(*tensors)
    found = gradients(TailResult(out, s, None, None), tensors)
    wanted = gradients(tail(spec, tensors), tensors)
    assert [grad.dtype for grad in found] == [grad.dtype for grad in wanted]
    assert worst(found, wanted) < 1e-9
