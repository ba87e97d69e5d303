"""What every fast form of a tail is held to, beside the same layers in float64 and in eager PyTorch."""

from collections.abc import Callable
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from senet.kernels.reference import Tail, TailResult, TailTensors, tail
from tests.blocks import awkward_maps
from tests.tails import SPECS, doubled, random_tail, worst

Run = Callable[[Tail, TailTensors], TailResult]

# Maximum error over maximum value.
FORWARD = {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}
FORMS = [
    Tail(),
    Tail("fixed"),
    Tail("none", gate="hardsigmoid"),
    Tail(inner="silu", outer="identity", hidden="silu"),
    Tail("fixed", "hardswish", "identity", one_at_zero=True),
]
BAD = (torch.nan, torch.inf, -torch.inf)


def check_parity(run: Run, spec: Tail, dtype: torch.dtype, last: bool) -> None:
    tensors = random_tail(spec, (4, 8, 7, 5), dtype=dtype, parameters=torch.float32, hidden=4)
    form = torch.channels_last if last else torch.contiguous_format
    tensors = tensors._replace(u=tensors.u.detach().contiguous(memory_format=form).requires_grad_())
    wide = doubled(tensors)
    exact = tail(spec, wide)
    # Where the ReLU may fall either way a gradient is either of two: there none comes in.
    entering = tail(_without_relu(spec), wide).out.detach()
    g = torch.randn_like(entering) * (entering.abs() > 0.03 * entering.abs().max())
    ds = torch.randn_like(exact.s)
    wanted = _gradients(exact, wide, g, ds)
    errors = []
    for each in (run(spec, tensors), tail(spec, tensors)):
        found = _gradients(each, tensors, g, ds)
        assert each.out.dtype == dtype
        assert each.out.is_contiguous(memory_format=form)
        errors.append((worst([each.out], [exact.out]), worst(found, wanted)))
    ours, eager = errors
    assert ours[0] <= FORWARD[dtype]
    assert ours[1] <= 5 * FORWARD[dtype]
    # Eager PyTorch may be exact by chance: some four roundings are nobody's fault.
    unit = 2 * torch.finfo(dtype).eps
    assert ours[0] <= max(1.5 * eager[0], unit)
    assert ours[1] <= max(1.5 * eager[1], 5 * unit)


def _without_relu(spec: Tail) -> Tail:
    return Tail(**{**vars(spec), "outer": "identity"})


def _gradients(result: TailResult, tensors: TailTensors, g: Tensor, ds: Tensor) -> list[Tensor]:
    leaves = [each for each in tensors if each is not None and each.requires_grad]
    incoming = [g.to(result.out.dtype), ds.to(result.s.dtype)]
    return list(torch.autograd.grad([result.out, result.s], leaves, incoming))


def same_kind(found: Tensor, wanted: Tensor) -> bool:
    """Whether both are NaN, +Inf and −Inf in the same places."""
    return all(
        torch.equal(kind(found), kind(wanted)) for kind in (torch.isnan, torch.isposinf, torch.isneginf)
    )


# What is not finite, in one sample of a map (3, 4, 5, 6): the values and where they stand.
SPOILS = st.lists(
    st.tuples(st.sampled_from(BAD), st.integers(0, 3), st.integers(0, 4), st.integers(0, 5)),
    min_size=1,
    max_size=3,
)
SPOILT = {
    "spec": SPECS,
    "spoils": SPOILS,
    "residual": st.booleans(),
    "last": st.booleans(),
    "seed": st.integers(0, 2**31),
}


def spoilt(u: Tensor, spoils: list[Any]) -> Tensor:
    """The map with these values in its second sample."""
    u = u.detach().clone()
    for value, *place in spoils:
        u[(1, *place)] = value
    return u


def check_nonfinite(
    runs: dict[str, Run], spec: Tail, spoils: list[Any], residual: bool, last: bool, seed: int
) -> None:
    clean = random_tail(spec, (3, 4, 5, 6), seed, dtype=torch.float32, residual=residual)
    form = torch.channels_last if last else torch.contiguous_format
    clean = clean._replace(u=clean.u.detach().contiguous(memory_format=form))
    bad = clean._replace(u=spoilt(clean.u, spoils))
    wanted = tail(spec, bad)
    for name, run in runs.items():
        found = run(spec, bad)
        assert same_kind(found.s, wanted.s), name
        # The traceable form multiplies the gates into the norm: of one that is infinite, which no bounded
        # gate is, the sum may then be NaN where eager PyTorch has Inf.
        if name != "aten" or bool(wanted.s.isfinite().all()):
            assert same_kind(found.out, wanted.out), name
        # The batch's own statistics reach every sample, as they do in eager PyTorch.
        if spec.norm != "batch":
            assert torch.equal(found.out[[0, 2]], run(spec, clean).out[[0, 2]]), name


MAPS = {name: u for name, u in awkward_maps().items() if len(u)} | {
    "1 channel": torch.randn(3, 1, 4, 4),
    "1 number": torch.randn(1, 24, 1, 1),
}


def check_awkward(run: Run, name: str, spec: Tail) -> None:
    u = MAPS[name]
    tensors = random_tail(spec, tuple(u.shape), dtype=torch.float32, parameters=torch.float32, hidden=7)
    tensors = tensors._replace(u=u.detach().requires_grad_())
    wide = doubled(tensors)
    found, wanted = run(spec, tensors), tail(spec, wide)
    assert worst([found.out, found.s], [wanted.out, wanted.s]) < 2e-6
    assert found.out.is_contiguous() or found.out.stride() == u.stride()
    if u.is_contiguous() or name.endswith("hannels last"):
        assert found.out.stride() == u.stride()
    (du,) = torch.autograd.grad(found.out.square().sum(), tensors.u)
    assert du.shape == u.shape
    assert du.isfinite().all()


def check_repeated(run: Run, spec: Tail) -> None:
    tensors = random_tail(spec, (3, 20, 17, 13), dtype=torch.float32)
    g, ds = torch.randn(tensors.u.shape), torch.randn(3, 20)
    first, second = (
        [each.out, each.s, *_gradients(each, tensors, g, ds)] for each in (run(spec, tensors) for _ in "12")
    )
    assert all(map(torch.equal, first, second))


def huge(dtype: torch.dtype, size: tuple[int, int], last: bool) -> list[Tensor]:
    """Maps (1, 2, *size) whose sums ``dtype`` does not hold."""
    top = 60_000.0 if dtype is torch.float16 else 1e30
    sign = torch.tensor([1.0, -1.0]).reshape(1, 2, 1, 1)
    form = torch.channels_last if last else torch.contiguous_format
    maps = ((top * sign).expand(1, 2, *size), torch.rand(1, 2, *size) * top)
    return [each.to(dtype).contiguous(memory_format=form) for each in maps]


def check_squeezed(z: Tensor, u: Tensor) -> None:
    wanted = u.double().mean((2, 3))
    assert z.dtype == torch.float32
    assert z.isfinite().all()
    bar = 2**-11 if u.dtype is torch.float16 else 2**-8
    assert ((z - wanted).abs() <= bar * wanted.abs()).all()
