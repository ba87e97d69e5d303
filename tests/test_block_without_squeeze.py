"""The block without a squeeze, each position with gates of its own (Table 16)."""

import pytest
import torch
from torch import Tensor

from senet import SqueezeExcitation, functional
from senet.graph.trace import trace
from tests.blocks import awkward_maps, randomised


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("gate", functional.GATES)
def test_without_a_squeeze_the_identity_start_changes_nothing_either(gate: str, bias: bool) -> None:
    block = SqueezeExcitation(32, 4, squeeze="none", gate=gate, bias=bias, init="identity")
    u = torch.randn(2, 32, 3, 4)
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        assert torch.equal(block(u.to(dtype)), u.to(dtype))
    assert torch.equal(block.gate(u), torch.ones(2, 32, 3, 4))


@pytest.mark.parametrize("name", awkward_maps())
def test_without_a_squeeze_each_position_has_the_gates_of_a_map_of_it_alone(name: str) -> None:
    squeezed = randomised(SqueezeExcitation(24, 4))
    block = SqueezeExcitation(24, 4, squeeze="none")
    block.load_state_dict(squeezed.state_dict())  # The same weights.
    u = awkward_maps()[name]
    out, s = block(u), block.gate(u)
    assert out.shape == s.shape == u.shape
    rows = u.movedim(1, -1).reshape(-1, 24, 1)
    alone = squeezed.gate(rows).reshape(*u.movedim(1, -1).shape).movedim(-1, 1)
    torch.testing.assert_close(s, alone)
    torch.testing.assert_close(out, u * alone)
    if name.endswith("hannels last"):
        assert out.stride() == u.stride()
    if u.is_contiguous():
        assert out.is_contiguous()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_without_a_squeeze_gates_of_half_precision_maps_are_float32(dtype: torch.dtype) -> None:
    block = randomised(SqueezeExcitation(16, 4, squeeze="none"))
    u = torch.randn(2, 16, 5, 5).to(dtype)
    with torch.autocast("cpu", dtype):
        s, out = block.gate(u), block(u)
    assert (s.dtype, out.dtype) == (torch.float32, dtype)
    assert torch.equal(s, block.gate(u.float()))


def test_without_a_squeeze_a_channels_last_map_is_not_copied() -> None:
    block = SqueezeExcitation(16, 4, squeeze="none")
    u = torch.randn(2, 16, 5, 5)
    last = u.contiguous(memory_format=torch.channels_last)
    copied, not_copied = (
        [op.name for op in trace(block, each, without_memory=False).ops] for each in (u, last)
    )
    assert "clone" in copied
    assert "clone" not in not_copied


def test_without_a_squeeze_positions_do_not_see_each_other() -> None:
    block = randomised(SqueezeExcitation(16, 4, squeeze="none"))
    u = torch.randn(1, 16, 8)
    spoiled = torch.cat([u[:, :, :5], torch.full((1, 16, 3), float("nan"))], dim=2)
    torch.testing.assert_close(block(spoiled)[:, :, :5], block(u[:, :, :5]))
    s = block.gate(spoiled, torch.arange(8)[None] < 5)
    torch.testing.assert_close(s[:, :, :5], block.gate(u[:, :, :5]))
    torch.testing.assert_close(s[:, :, 5:], block.gate(torch.zeros(1, 16, 3)))


def test_without_a_squeeze_the_tail_is_the_layers_and_hooks_see_maps() -> None:
    block = randomised(SqueezeExcitation(8, 2, squeeze="none"))
    norm, relu = torch.nn.BatchNorm2d(8).eval(), torch.nn.ReLU()
    u, residual = torch.randn(2, 8, 4, 4), torch.randn(2, 8, 4, 4)
    seen: list[Tensor] = []
    block.register_gate_hook(lambda _, s: seen.append(s))
    out, twin = block.tail(u, norm=norm, residual=residual, activation=relu, fork=True)
    assert seen[0].shape == (2, 8, 4, 4)
    assert out is twin
    torch.testing.assert_close(out, (norm(u) * seen[0] + residual).relu())
