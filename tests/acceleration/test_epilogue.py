import copy
import functools
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.acceleration.held import stirred
from tests.acceleration.networks import bottlenecks, inserted
from tests.networks import Net
from timm.layers.squeeze_excite import SEModule
from timm.models.resnet import Bottleneck
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.nn.modules.module import register_module_forward_hook
from torch.utils._python_dispatch import TorchDispatchMode

import senet
from senet.acceleration import epilogue
from senet.acceleration.epilogue import Known, scaled
from senet.acceleration.pending import Pending
from senet.acceleration.pointwise import GatedOutput
from senet.errors import BackendError
from senet.kernels import reference

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
from eager import Passes


def _timm() -> nn.Module:
    """Two of timm's units."""
    return Net(*(Bottleneck(64, 16, attn_layer=SEModule) for _ in range(2)), channels=64, leaving=64)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "ours": bottlenecks,
    "ours, identity": lambda: bottlenecks("identity"),
    "timm": _timm,
    "torchvision's way": inserted,
}
LAYERS = {"ours": 3, "ours, identity": 1, "timm": 2, "torchvision's way": 2}
X = torch.randn(2, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@functools.cache
def _simplified(name: str) -> nn.Module:
    return senet.simplify(stirred(NETWORKS[name]()).double().eval())


def _pair(name: str = "timm", backend: str = "composite") -> tuple[Any, Any]:
    """A simplified network that waits, of any size with a backend by name, and one that never does."""
    fast, plain = (copy.deepcopy(_simplified(name)) for _ in range(2))
    for module in fast.modules():
        if isinstance(module, GatedOutput):
            module.backend = backend
    senet.accelerate(plain, backend="reference")
    return fast, plain


@pytest.fixture
def tails(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What each tail in one pass was asked for."""
    asked: list[dict[str, Any]] = []
    own = Known.tail

    def tail(self: Known, u: Tensor, **around: Any) -> Tensor:
        asked.append(around)
        return own(self, u, **around)

    monkeypatch.setattr(Known, "tail", tail)
    return asked


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_scale_sum_and_activation_are_one_pass(name: str, tails: list[dict[str, Any]]) -> None:
    fast, plain = _pair(name)
    # Those of the comparison in ``simplify``, whose images are larger.
    tails.clear()
    with torch.no_grad():
        torch.testing.assert_close(fast(X), plain(X), rtol=1e-10, atol=1e-10)
        assert len(tails) == LAYERS[name] <= sum(isinstance(each, GatedOutput) for each in fast.modules())
        assert all(each["residual"] is not None and each["outer"] == "relu" for each in tails)
        assert torch.equal(fast(X), fast(X))
    # Nothing needs a gradient either where nothing can have one.
    tails.clear()
    fast.requires_grad_(False)(X)
    assert len(tails) == LAYERS[name]


def test_it_takes_three_passes_of_seven() -> None:
    u, r, s = torch.randn(2, 8, 9, 9), torch.randn(2, 8, 9, 9), torch.rand(2, 8)
    ways: list[Any] = [Pending(u).gated(Known(s, "activation", "composite")), reference.scale]
    with Passes(u.numel()) as one:
        (ways[0] + r).relu()
    with Passes(u.numel()) as layers:
        (ways[1](u, s) + r).relu()
    assert (one.total, layers.total) == (3, 7)


@pytest.mark.parametrize("backend", ["composite", "cpp"])
@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_numbers_nan_and_format_are_those_of_the_layers(
    backend: str, form: torch.memory_format, dtype: torch.dtype
) -> None:
    u, r = torch.randn(2, 2, 8, 9, 7, dtype=torch.float64)
    u[0, 0, 0, 0], u[0, 1, 0, 1], r[1, 2, 3, 4], r[1, 3, 0, 0] = torch.tensor([1, -1, 1, -1]) / 0.0
    u[0, 2, 0, 0] = r[1, 2, 0, 0] = float("nan")
    r[0, 0, 0, 0] = -torch.inf
    u, r = (each.to(dtype).contiguous(memory_format=form) for each in (u, r))
    s = torch.rand(2, 8)
    if senet.kernels.why(u, norm="none", backend=backend).name is None:
        pytest.skip("there is no compiler here")
    pending: Any = scaled(u, s, "activation", backend)
    assert isinstance(pending, Pending)
    found = (pending + r).relu()
    assert found.dtype == dtype
    assert found.is_contiguous(memory_format=form)
    wanted = (u.double() * s.double()[:, :, None, None] + r.double()).relu()
    # Rounded once, after float32's own roundings of product and sum.
    eps = torch.finfo(dtype).eps
    bound = max(eps, 2 * torch.finfo(torch.float32).eps if dtype != torch.float64 else 2 * eps)
    torch.testing.assert_close(found.double(), wanted, rtol=bound, atol=8 * bound, equal_nan=True)
    assert torch.equal(found.isnan(), ((u * s.to(dtype)[:, :, None, None]) + r).relu().isnan())


def test_small_maps_are_left_to_the_operations(
    tails: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    fast, _ = _pair(backend="auto")
    tails.clear()
    with torch.no_grad():
        fast(X)
        assert not tails
        monkeypatch.setattr(epilogue, "WORTHWHILE", 1)
        fast(X)
    operator = senet.kernels.why(X, norm="none").name != "reference"
    assert len(tails) == (LAYERS["timm"] if operator else 0)


class _Looks(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert "senet" not in str(func)
        return func(*args, **(kwargs or {}))


def _watched(model: Any) -> Tensor:
    with _Looks(), torch.no_grad():
        scores: Tensor = model(X)
    return scores


def _hooked(model: Any) -> Tensor:
    handle = register_module_forward_hook(lambda *_: None)
    with torch.no_grad():
        scores: Tensor = model(X)
    handle.remove()
    return scores


def _exported(model: Any) -> Tensor:
    with torch.no_grad():
        exported = torch.export.export(model, (X,), strict=False)
    assert not any("senet" in str(node.target) for node in exported.graph.nodes)
    scores: Tensor = exported.module()(X)
    return scores


def _compiled(model: Any) -> Tensor:
    with torch.no_grad():
        scores: Tensor = torch.compile(model, backend="eager", fullgraph=True)(X)
    return scores


def _jvp(model: Any) -> Tensor:
    with forward_ad.dual_level(), torch.no_grad():
        scores: Tensor = forward_ad.unpack_dual(model(forward_ad.make_dual(X, X))).primal
    return scores


def _fake(model: Any) -> Tensor:
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        assert model(torch.empty(2, 3, 8, 8, dtype=torch.float64)).shape == (2, 4)
    scores: Tensor = model(X)
    return scores


PLAIN: dict[str, Callable[[Any], Tensor]] = {
    "a gradient is needed": lambda model: model(X).detach(),
    "a dispatch mode": _watched,
    "a global hook": _hooked,
    "export": _exported,
    "compile": _compiled,
    "jit.trace": lambda model: torch.jit.trace(model.requires_grad_(False), X, check_trace=False)(X),
    "forward-mode": _jvp,
    "vmap": lambda model: torch.vmap(model.requires_grad_(False))(X[None])[0],
    "fake": _fake,
    "no images": lambda model: torch.cat([model.requires_grad_(False)(X[:0]), torch.ones(1, 4).double()]),
}


@pytest.mark.parametrize("how", sorted(PLAIN))
def test_everything_else_is_as_it_was(
    how: str, tails: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(epilogue, "WORTHWHILE", 0)
    fast, plain = _pair(backend="auto")
    tails.clear()
    assert torch.equal(PLAIN[how](fast), PLAIN[how](plain))
    assert not tails


@pytest.mark.parametrize("path", ["conv3", "bn3", "se", "act3", ""])
def test_hooks_see_maps(path: str, tails: list[dict[str, Any]]) -> None:
    fast, plain = _pair()
    tails.clear()
    seen: list[list[Any]] = [[], []]
    for model, found in zip((fast, plain), seen, strict=True):
        hooked = model.units[1].get_submodule(path)
        # What it gives is copied: the unit goes on in place.
        hooked.register_forward_hook(
            lambda module, args, out, found=found: found.extend([type(args[0]), type(out), out.clone()])
        )
        with torch.no_grad():
            model(X)
    assert seen[0][:2] == seen[1][:2] == [Tensor, Tensor]
    torch.testing.assert_close(seen[0][2], seen[1][2], rtol=1e-10, atol=1e-10)
    # Of the unit itself, a hook sees nothing on the way.
    assert len(tails) == (2 if path == "" else 1)


def test_who_calls_a_module_by_itself_gets_a_map(tails: list[dict[str, Any]]) -> None:
    fast, plain = _pair()
    tails.clear()
    unit, same = fast.units[0], plain.units[0]
    with torch.no_grad():
        u, x = torch.randn(2, 16, 5, 5).double(), torch.randn(2, 64, 5, 5).double()
        for given in (unit.conv3(u), unit(x), fast.units(x)):
            assert type(given) is Tensor
        assert len(tails) == 3
        assert type(unit.conv3(u)) is Tensor
        assert torch.equal(unit.conv3(u), same.conv3(u))


def test_copies_and_pickles_wait_for_their_own(tails: list[dict[str, Any]]) -> None:
    fast, _ = _pair()
    with torch.no_grad():
        wanted = fast(X)
        for copied in (copy.deepcopy(fast), pickle.loads(pickle.dumps(fast))):
            tails.clear()
            assert torch.equal(copied(X), wanted)
            assert len(tails) == 2
            nn.init.zeros_(copied.units[0].conv3.conv.weight)
            copied.units[0].act3.register_forward_hook(lambda *_: None)
            assert not torch.equal(copied(X), wanted)
            assert len(tails) == 3
        tails.clear()
        assert torch.equal(fast(X), wanted)
        assert len(tails) == 2


def test_a_residual_that_is_not_alike_is_added_by_pytorch() -> None:
    u, s = torch.randn(2, 8, 3, 3), torch.rand(2, 8)
    r = torch.randn(2, 8, 3, 3, requires_grad=True)
    known = Known(s, "activation", "composite")
    found: Any = (Pending(u).gated(known) + r).relu()
    found.sum().backward()
    wanted = (reference.scale(u, s) + r).relu()
    assert torch.equal(found, wanted)
    assert torch.equal(r.grad, (wanted > 0).float())  # type: ignore[arg-type]
    wide: Any = Pending(u).gated(known) + r.detach().double()
    assert wide.relu().dtype == torch.float64
    # In place, a sum keeps the dtype of what is added to.
    narrow: Any = Pending(u).gated(known)
    narrow += r.detach().double()
    assert narrow.relu().dtype == torch.float32


def test_drop_path_is_taken_in() -> None:
    u, r = torch.randn(2, 2, 8, 3, 3).double()
    s, keep = torch.rand(2, 8).double(), torch.tensor([0.0, 2.0]).double()[:, None, None, None]
    found: Any = Pending(u).gated(Known(s, "activation", "composite"))
    torch.testing.assert_close((found * keep + r).relu(), (reference.scale(u, s) * keep + r).relu())


def test_a_backend_that_is_asked_for_serves_or_raises(tails: list[dict[str, Any]]) -> None:
    fast, _ = _pair(backend="composite")
    tails.clear()
    with torch.no_grad():
        with pytest.raises(BackendError, match="the map is empty"):
            fast(X[:0])
        assert len(senet.accelerate(fast, backend="triton")) == 2
        with pytest.raises(BackendError, match=r"not on a GPU|triton is not installed|torch\.float64"):
            fast(X)
        assert len(senet.accelerate(fast, backend="composite")) == 2
        fast(X)
    assert len(tails) == 2
