from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import senet
from senet.acceleration.pointwise import Gates
from senet.deploy.forms import BlockedScale, Deployed, Excite, Scale


@settings(max_examples=40, deadline=None)
@given(
    gate=st.sampled_from(["sigmoid", "tanh", "relu", "hardsigmoid"]),
    init=st.sampled_from(["random", "identity"]),
    bias=st.booleans(),
    spatial=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    batch=st.integers(0, 3),
)
def test_a_block_in_its_form_computes_what_the_block_does(
    gate: str, init: str, bias: bool, spatial: list[int], batch: int
) -> None:
    block = senet.SqueezeExcitation(6, hidden=3, gate=gate, bias=bias, init=init).double()
    with torch.no_grad():
        block.fc2.weight.normal_()
    u = torch.randn(batch, 6, *spatial, dtype=torch.float64)
    excite = Excite(Gates(block.excitation), u.ndim)
    scales = [Scale()] + [BlockedScale(), BlockedScale(6)] * (u.ndim == 4)
    for scale in scales:
        torch.testing.assert_close(Deployed(excite, scale)(u), block(u), rtol=1e-12, atol=1e-12)


def test_it_stands_where_a_unit_calls_its_block_itself() -> None:
    block = senet.SqueezeExcitation(8, hidden=2)
    u, r, norm = torch.randn(2, 8, 3, 3), torch.randn(2, 8, 3, 3), torch.nn.BatchNorm2d(8).eval()
    deployed = Deployed(Excite(Gates(block.excitation), 4), Scale())
    around: dict[str, Any] = {"norm": norm, "residual": r, "activation": torch.nn.ReLU()}
    torch.testing.assert_close(deployed.tail(u, **around)[0], block.tail(u, **around)[0])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_it_holds_copies_in_the_dtype_of_the_block(dtype: torch.dtype) -> None:
    block = senet.SqueezeExcitation(16, hidden=2).to(dtype)
    deployed = Deployed(Excite(Gates(block.excitation), 4), BlockedScale(16))
    assert {parameter.dtype for parameter in deployed.parameters()} == {dtype}
    u = torch.randn(1, 16, 2, 2, dtype=dtype)
    before = deployed(u)
    with torch.no_grad():
        block.fc1.weight.zero_()
    assert torch.equal(deployed(u), before)
