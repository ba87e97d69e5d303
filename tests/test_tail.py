import pytest
import torch
from torch import nn

from senet.tail import Excitation, activation_name, is_bare, tail


def _excitation(channels: int) -> Excitation:
    return Excitation(torch.randn(3, channels), None, torch.randn(channels, 3), torch.randn(channels))


@pytest.mark.parametrize("backend", ["reference", "aten", "composite"])
def test_it_runs_and_updates_the_norm(backend: str) -> None:
    norm, u, residual = nn.BatchNorm2d(4), torch.randn(3, 4, 5, 5), torch.randn(3, 4, 5, 5)
    excitation = _excitation(4)
    result = tail(u, excitation, norm=norm, residual=residual, outer="relu", backend=backend)
    wanted = nn.BatchNorm2d(4)
    v = wanted(u)
    torch.testing.assert_close(result.out, (v * result.s[:, :, None, None] + residual).relu())
    torch.testing.assert_close(norm.state_dict(), wanted.state_dict())
    alone = tail(u, excitation, backend=backend)
    torch.testing.assert_close(alone.out, u * alone.s[:, :, None, None])


def test_a_module_is_bare_until_something_is_attached() -> None:
    module = nn.ReLU()
    assert is_bare(module, None)
    handle = module.register_forward_hook(lambda *_: None)
    assert not is_bare(nn.Identity(), module)
    handle.remove()
    assert is_bare(module)
    module.register_full_backward_hook(lambda *_: None)
    assert not is_bare(module)
    replaced = nn.ReLU()
    replaced.forward = torch.tanh  # type: ignore[method-assign]
    assert not is_bare(replaced)
    everywhere = nn.modules.module.register_module_forward_hook(lambda *_: None)
    assert not is_bare(nn.ReLU())
    everywhere.remove()
    assert is_bare(nn.ReLU())


def test_activations_by_name() -> None:
    class ReLU(nn.Module):
        """Somebody's own of that name may do something else."""

    modules = (None, nn.Identity(), nn.ReLU(inplace=True), nn.SiLU(), nn.Hardswish(), nn.GELU(), ReLU())
    assert [activation_name(module) for module in modules] == [
        "identity", "identity", "relu", "silu", "hardswish", None, None,
    ]  # fmt: skip
