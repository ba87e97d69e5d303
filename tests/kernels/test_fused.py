import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.tails import SHAPES, SPECS, doubled, gradients, random_tail, worst
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn

from senet.errors import BackendError
from senet.kernels import operators
from senet.kernels.fused import fused_tail
from senet.kernels.reference import Tail, TailTensors, tail


@given(SPECS, SHAPES, st.booleans(), st.booleans(), st.booleans(), st.integers(0, 2**31))
def test_it_computes_what_the_layers_compute(
    spec: Tail, shape: tuple[int, ...], residual: bool, keep: bool, bias: bool, seed: int
) -> None:
    tensors = random_tail(spec, shape, seed, residual=residual, keep=keep, bias=bias)
    found, wanted = fused_tail(spec, tensors, "composite"), tail(spec, tensors)
    assert worst(list(found[:2]), list(wanted[:2])) < 1e-12
    # PyTorch's own derivative of the hard sigmoid takes its 1/6 in single precision.
    bound = 1e-5 if spec.gate == "hardsigmoid" else 1e-9
    assert worst(gradients(found, tensors), gradients(wanted, tensors)) < bound
    if spec.norm == "batch" and found.mean is not None and found.variance is not None:
        torch.testing.assert_close((found.mean, found.variance), (wanted.mean, wanted.variance))
    else:
        assert found.mean is found.variance is None
    assert found.twin is None


def test_statistics_are_shared_as_by_a_batch_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    # Threads for processes, which take seconds to start.
    here, meeting = threading.local(), threading.Barrier(2, timeout=60)
    sent: list[Tensor] = [torch.empty(0)] * 2

    def exchanged(own: Tensor) -> list[Tensor]:
        sent[here.rank] = own.clone()
        meeting.wait()
        every = list(sent)
        meeting.wait()
        return every

    def all_gather(every: list[Tensor], own: Tensor, group: object) -> None:
        for place, theirs in zip(every, exchanged(own), strict=True):
            place.copy_(theirs)

    def all_reduce(own: Tensor, group: object) -> None:
        own.copy_(torch.stack(exchanged(own)).sum(0))

    def run(rank: int) -> dict[str, list[Tensor]]:
        here.rank = rank
        try:
            return _part(rank, object())
        except BaseException:
            meeting.abort()
            raise

    monkeypatch.setattr(torch.distributed, "get_world_size", lambda group: 2)
    monkeypatch.setattr(torch.distributed, "all_gather", all_gather)
    monkeypatch.setattr(torch.distributed, "all_reduce", all_reduce)
    with ThreadPoolExecutor(2) as threads:
        parts = list(threads.map(run, range(2)))
    _check_parts(parts)
    assert sum(len(part["result"][0]) for part in parts) == 5


@pytest.mark.parametrize("norm", ["batch", "fixed", "none"])
@pytest.mark.parametrize("inner", ["identity", "silu"])
def test_gradcheck(norm: str, inner: str) -> None:
    spec = Tail(norm, inner, "identity" if inner == "silu" else "relu", hidden="silu")
    tensors = random_tail(spec, (2, 3, 2, 2), keep=True)
    learning = [index for index, each in enumerate(tensors) if each is not None and each.requires_grad]

    def run(*inputs: Tensor) -> tuple[Tensor, Tensor]:
        given: dict[int, Any] = dict(zip(learning, inputs, strict=True))
        result = fused_tail(spec, TailTensors(*map(given.get, range(11), tensors)), "composite")
        return result.out, result.s

    inputs = [each for index in learning if (each := tensors[index]) is not None]
    assert torch.autograd.gradcheck(run, inputs)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_half_precision_is_summed_in_single(dtype: torch.dtype, memory_format: torch.memory_format) -> None:
    spec = Tail()
    tensors = random_tail(spec, (4, 8, 7, 5), dtype=dtype, parameters=torch.float32, hidden=4)
    tensors = tensors._replace(
        u=tensors.u.detach().contiguous(memory_format=memory_format).requires_grad_(),
    )
    found, wide = fused_tail(spec, tensors, "composite"), doubled(tensors)
    wanted = tail(spec, wide)
    bound = {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}[dtype]
    assert found.out.dtype == dtype
    assert found.out.is_contiguous(memory_format=memory_format)
    assert found.s.dtype == torch.float32
    assert worst([found.out, found.s], [wanted.out, wanted.s]) < bound
    # A ReLU at zero may fall either way: where it did, gradients differ for good.
    same = ((found.out > 0) == (wanted.out > 0)).all()
    assert not same or worst(gradients(found, tensors), gradients(wanted, wide)) < 5 * bound


@pytest.mark.parametrize("offset", [0.0, 30.0, 300.0])
def test_far_from_zero_it_is_as_exact_as_the_layers(offset: float) -> None:
    spec = Tail()
    tensors = random_tail(spec, (8, 16, 14, 14), dtype=torch.float32, mean=offset, hidden=4)
    wide = doubled(tensors)
    wanted = tail(spec, wide)
    true = [wanted.out, *gradients(wanted, wide)]
    ours, eager = fused_tail(spec, tensors, "composite"), tail(spec, tensors)
    error = worst([ours.out, *gradients(ours, tensors)], true)
    assert error <= max(1.5 * worst([eager.out, *gradients(eager, tensors)], true), 1e-6)


def test_not_a_number_goes_where_it_goes_in_the_layers() -> None:
    spec = Tail("fixed")
    for value in (torch.nan, torch.inf, -torch.inf):
        tensors = random_tail(spec, (3, 2, 4, 4))
        with torch.no_grad():
            tensors.u[1, 0, 2, 3] = value
        found, wanted = fused_tail(spec, tensors, "composite"), tail(spec, tensors)
        torch.testing.assert_close(found.out, wanted.out, equal_nan=True)
        assert not found.out[1].isfinite().all()
        assert found.out[[0, 2]].isfinite().all()


def test_only_what_learns_gets_gradients() -> None:
    spec = Tail()
    tensors = random_tail(spec, (2, 4, 3, 3))
    frozen = tensors._replace(u=tensors.u.detach(), w1=tensors.w1.detach())
    fused_tail(spec, frozen, "composite").out.sum().backward()
    assert frozen.w2.grad is not None
    assert frozen.u.grad is None
    assert frozen.w1.grad is None
    alone = fused_tail(spec, tensors, "composite").s
    wanted = tail(spec, tensors).s
    for found, want in zip(
        torch.autograd.grad(alone.sum(), [tensors.u, tensors.w1]),
        torch.autograd.grad(wanted.sum(), [tensors.u, tensors.w1]),
        strict=True,
    ):
        torch.testing.assert_close(found, want)


@pytest.mark.parametrize("outer", ["relu", "identity"])
@pytest.mark.parametrize("inner", ["identity", "relu"])
def test_the_gradients_of_two_readers_are_added_inside(inner: str, outer: str) -> None:
    spec = Tail(inner=inner, outer=outer, fork=True)
    tensors = random_tail(spec, (3, 4, 5, 5))
    leaves = [each for each in tensors if each is not None and each.requires_grad]
    first, second = torch.randn(2, *tensors.u.shape, dtype=torch.float64).unbind()
    found, wanted = fused_tail(spec, tensors, "composite"), tail(spec, tensors)
    assert found.twin is not None
    assert wanted.twin is not None
    assert found.twin.data_ptr() == found.out.data_ptr()
    for weights in ((1, 1), (1, 0), (0, 1)):
        losses = [
            sum(
                weight * (out * g).sum()
                for weight, out, g in zip(weights, outs, (first, second), strict=True)
                if weight
            )
            for outs in ((found.out, found.twin), (wanted.out, wanted.twin))
        ]
        got, want = (torch.autograd.grad(loss, leaves, retain_graph=True) for loss in losses)  # type: ignore[arg-type]
        assert worst(list(got), list(want)) < 1e-9


@pytest.mark.parametrize("norm", ["batch", "none"])
@pytest.mark.parametrize("outer", ["relu", "identity"])
@pytest.mark.parametrize("alone", [False, True])
def test_it_is_differentiable_twice(norm: str, outer: str, alone: bool) -> None:
    spec = Tail(norm, outer=outer, hidden="silu", fork=not alone)
    tensors = random_tail(spec, (2, 3, 3, 2), keep=True, residual=not alone)
    leaves = [each for each in tensors if each is not None and each.requires_grad]
    g, again, ds = (
        torch.randn(2, *tensors.u.shape).double(),
        torch.randn(tensors.u.shape).double(),
        torch.randn(2, 3),
    )
    found = []
    for result in (fused_tail(spec, tensors, "composite"), tail(spec, tensors)):
        assert (result.twin is None) == alone
        twin = result.out if result.twin is None else result.twin
        loss = (result.out * g[0]).sum() + (twin.square() * g[1]).sum() + (result.s * ds).sum()
        first = torch.autograd.grad(loss, leaves, create_graph=True)
        second = torch.autograd.grad((first[0] * again).sum() + first[-1].square().sum(), leaves[2:])
        found.append([*first, *second])
    assert worst(*found) < 1e-9


def test_it_is_differentiable_twice_where_the_branch_is_half_as_precise_as_the_sum() -> None:
    spec = Tail(outer="identity", hidden="silu")
    tensors = random_tail(spec, (4, 8, 5, 5), dtype=torch.bfloat16, parameters=torch.float32)
    tensors = tensors._replace(residual=torch.randn(4, 8, 5, 5).requires_grad_())
    wide, g = doubled(tensors), torch.randn(4, 8, 5, 5).bfloat16()
    found = []
    for out, leaves in (
        (fused_tail(spec, tensors, "composite").out, tensors),
        (tail(spec, wide).out, wide),
    ):
        learning = [each for each in leaves if each is not None]
        first = torch.autograd.grad(out, learning, g.to(out), create_graph=True)
        second = torch.autograd.grad(first[-1].square().sum(), learning[2:], allow_unused=True)
        # The map's own gradient is rounded to half precision.
        found.append([*first[1:], *(each for each in second if each is not None)])
    assert len(found[0]) == len(found[1]) > len(first)
    assert worst(*found) < 1e-5


def test_it_saves_the_map_the_output_and_numbers_per_channel() -> None:
    tensors = random_tail(Tail(), (4, 8, 16, 16))
    sizes = []

    def pack(tensor: Tensor) -> Tensor:
        sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        fused_tail(Tail(), tensors, "composite")
    maps = [size for size in sizes if size >= 8 * 16 * 16]
    assert maps == [4 * 8 * 16 * 16] * 2
    assert sum(sizes) - sum(maps) < 700


@pytest.mark.parametrize(("outer", "forward", "backward"), [("relu", 4, 7), ("identity", 4, 5)])
def test_its_passes_over_the_map(
    outer: str, forward: int, backward: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Each operator reads and writes what it is given and gives, once; which one reads u is its contract.
    spec = Tail(outer=outer)
    tensors = random_tail(spec, (4, 8, 16, 16))
    passes = []
    _watch(monkeypatch, tensors.u.numel(), lambda given, made: passes.append(len(given) + len(made)))
    result = fused_tail(spec, tensors, "composite")
    assert sum(passes) == forward
    passes.clear()
    result.out.backward(torch.ones_like(result.out))
    _forget()
    assert sum(passes) == backward


@pytest.mark.parametrize("last", [False, True])
def test_every_step_is_given_maps_of_one_dense_layout(last: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def odd(tensor: Tensor) -> Tensor:
        return tensor.detach().transpose(2, 3).contiguous().transpose(2, 3).requires_grad_()

    spec = Tail(outer="identity", fork=True)
    tensors = random_tail(spec, (4, 8, 6, 5))
    first, second, residual = (odd(torch.randn(4, 8, 6, 5).double()) for _ in range(3))
    form = torch.channels_last if last else torch.contiguous_format
    u = tensors.u.detach().contiguous(memory_format=form).requires_grad_() if last else odd(tensors.u)
    tensors = tensors._replace(u=u, residual=residual)
    maps: list[Tensor] = []
    _watch(monkeypatch, u.numel(), lambda given, made: maps.extend(given))
    for readers in (1, 2):
        result = fused_tail(spec, tensors, "composite")
        outs = [each for each in (result.out, result.twin) if each is not None]
        torch.autograd.backward(outs[:readers], [first, second][:readers])
    _forget()
    assert len(maps) == 2 * 3 + 4 + 5
    assert all(each.is_contiguous(memory_format=form) for each in maps)


def _watch(
    monkeypatch: pytest.MonkeyPatch, size: int, note: Callable[[list[Tensor], list[Tensor]], object]
) -> None:
    """Tells what maps each step of the composite is given, and what it makes."""

    def maps(values: Any) -> list[Tensor]:
        every = values if isinstance(values, tuple) else (values,)
        return [each for each in every if isinstance(each, Tensor) and each.numel() == size]

    for name in operators.SCHEMAS:
        step = operators.step(name, "composite")

        def watched(*args: object, step: Callable[..., object] = step) -> object:
            result = step(*args)
            note(maps(args), maps(result))
            return result

        monkeypatch.setattr(f"senet.kernels.composite.{name}", watched)
    _forget()


def _forget() -> None:
    operators.step.cache_clear()
    operators._functions.cache_clear()


def _synchronised(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    torch.save(_part(rank, torch.distributed.group.WORLD), Path(folder) / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def _part(rank: int, group: object) -> dict[str, list[Tensor]]:
    """What one of two processes has of a batch, and its gradients."""
    spec = Tail(group=group)
    tensors = random_tail(spec, (5, 4, 3, 3))
    # Shares of different sizes.
    part = slice(0, 2) if rank == 0 else slice(2, 5)
    own = tensors._replace(
        u=tensors.u[part].detach().requires_grad_(),
        residual=None if tensors.residual is None else tensors.residual[part].detach().requires_grad_(),
    )
    result = fused_tail(spec, own, "composite")
    generator = torch.Generator().manual_seed(1)
    g = torch.randn(tensors.u.shape, generator=generator).double()[part]
    leaves = [each for each in own if each is not None and each.requires_grad]
    with pytest.raises(BackendError, match="shares its statistics"):
        torch.autograd.grad(result.out, leaves, g, create_graph=True)
    found = [each.detach() for each in result if each is not None]
    return {"result": found, "grads": list(torch.autograd.grad(result.out, leaves, g))}


def test_statistics_shared_by_processes_are_those_of_the_whole_batch(tmp_path: Path) -> None:
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    spawn(_synchronised, (str(tmp_path),), nprocs=2)
    parts = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    _check_parts(parts)
    assert len(parts) == 2


def _check_parts(parts: list[dict[str, list[Tensor]]]) -> None:
    tensors = random_tail(Tail(), (5, 4, 3, 3))
    whole = tail(Tail(), tensors)
    generator = torch.Generator().manual_seed(1)
    g = torch.randn(tensors.u.shape, generator=generator).double()
    leaves = [each for each in tensors if each is not None and each.requires_grad]
    wanted = torch.autograd.grad(whole.out, leaves, g)
    torch.testing.assert_close(torch.cat([part["result"][0] for part in parts]), whole.out)
    for part in parts:
        torch.testing.assert_close(part["result"][2:4], [whole.mean, whole.variance])
    for index, want in enumerate(wanted):
        found = [part["grads"][index] for part in parts]
        torch.testing.assert_close(torch.cat(found) if index < 2 else found[0] + found[1], want)


def test_a_module_of_batch_norm_agrees_with_the_reference() -> None:
    # The reference's own norm against the module that everybody uses.
    tensors = random_tail(Tail(outer="identity"), (4, 3, 5, 5), residual=False, bias=False)
    norm = nn.BatchNorm2d(3, momentum=1.0).double()
    v = norm(tensors.u)
    result = tail(Tail(outer="identity"), tensors)
    torch.testing.assert_close(result.out, v * result.s[:, :, None, None])
    torch.testing.assert_close((result.mean, result.variance), (norm.running_mean, norm.running_var))
