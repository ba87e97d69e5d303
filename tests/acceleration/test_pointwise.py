import copy
import pickle
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from senet.acceleration.pointwise import GatedInput, GatedOutput
from senet.kernels import reference
from senet.kernels.reference import ACTIVATIONS, GATES, ONE_AT_ZERO
from senet.tail import Excitation

CONVOLUTIONS = {3: nn.Conv1d, 4: nn.Conv2d, 5: nn.Conv3d}


def _excitation(channels: int, width: int, *, bias: bool = True, **kind: Any) -> Excitation:
    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64)

    biases = (draw(width), draw(channels)) if bias else (None, None)
    return Excitation(draw(width, channels), biases[0], draw(channels, width), biases[1], **kind)


def _gated(u: Tensor, excitation: Excitation) -> Tensor:
    """SE layer by layer."""
    w1, b1, w2, b2, gate, one_at_zero, hidden = excitation
    kinds = ONE_AT_ZERO if one_at_zero else GATES
    s = reference.excite(reference.squeeze_avg(u), w1, b1, w2, b2, kinds[gate], ACTIVATIONS[hidden])
    return reference.scale(u, s)


maps = st.tuples(st.integers(1, 3), st.lists(st.integers(1, 7), min_size=1, max_size=3))
kinds = st.fixed_dictionaries(
    {
        "gate": st.sampled_from(sorted(GATES)),
        "hidden": st.sampled_from(sorted(ACTIVATIONS)),
        "one_at_zero": st.booleans(),
        "bias": st.booleans(),
    }
)


@given(sizes=maps, groups=st.integers(1, 3), bias=st.booleans(), kind=kinds, seed=st.integers(0, 99))
def test_the_squeeze_before_a_convolution_is_that_after_it(
    sizes: tuple[int, list[int]], groups: int, bias: bool, kind: dict[str, Any], seed: int
) -> None:
    torch.manual_seed(seed)
    count, positions = sizes
    conv = CONVOLUTIONS[len(positions) + 2](2 * groups, 3 * groups, 1, groups=groups, bias=bias).double()
    excitation = _excitation(3 * groups, 2, **kind)
    x = torch.randn(count, 2 * groups, *positions, dtype=torch.float64)
    found = GatedOutput(conv, excitation)(x)
    torch.testing.assert_close(found, _gated(conv(x), excitation), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("last", [False, True], ids=["channels first", "channels last"])
@given(sizes=maps, bias=st.booleans(), kind=kinds, seed=st.integers(0, 99))
def test_gates_in_the_weights_are_gates_of_the_map(
    last: bool, sizes: tuple[int, list[int]], bias: bool, kind: dict[str, Any], seed: int
) -> None:
    torch.manual_seed(seed)
    count, positions = sizes
    conv = CONVOLUTIONS[len(positions) + 2](4, 3, 1, bias=bias).double()
    excitation = _excitation(4, 2, **kind)
    x = torch.randn(count, 4, *positions, dtype=torch.float64)
    x = x.movedim(1, -1).contiguous().movedim(-1, 1) if last else x
    found = GatedInput(conv, excitation)(x)
    torch.testing.assert_close(found, conv(_gated(x, excitation)), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", [GatedOutput, GatedInput])
@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last])
def test_the_memory_format_stays(kind: Any, form: torch.memory_format) -> None:
    conv = nn.Conv2d(4, 6, 1)
    module = kind(conv, _excitation(6 if kind is GatedOutput else 4, 2)).float().to(memory_format=form)
    x = torch.randn(2, 4, 5, 7).to(memory_format=form)
    assert module(x).is_contiguous(memory_format=form)


@pytest.mark.parametrize("kind", [GatedOutput, GatedInput])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_gated_in_float32(kind: Any, dtype: torch.dtype) -> None:
    """Gates of sums that float16 does not hold."""
    conv = nn.Conv2d(4, 4, 1)
    nn.init.uniform_(conv.weight, 0.1, 0.4)
    excitation = _excitation(4, 2)
    # Whose gates are not all saturated by such means.
    module = kind(conv, excitation._replace(w1=excitation.w1 / 300)).to(dtype)
    wide = copy.deepcopy(module).double()
    x = (100 + 10 * torch.randn(2, 4, 64, 64)).to(dtype)
    found = module(x)
    assert found.dtype == dtype
    assert module.gates(x).dtype == torch.float32
    error = (found.double() - wide(x.double())).abs().max() / found.double().abs().max()
    assert error < 4 * torch.finfo(dtype).eps
    with torch.autocast("cpu", torch.bfloat16):
        assert module.float()(x.float()).dtype == torch.bfloat16


@pytest.mark.parametrize("kind", [GatedOutput, GatedInput])
def test_they_are_copied_pickled_exported_and_compiled(kind: Any) -> None:
    module = kind(nn.Conv2d(4, 4, 1), _excitation(4, 2)).float()
    x = torch.randn(2, 4, 5, 5)
    wanted = module(x)
    assert torch.equal(copy.deepcopy(module)(x), wanted)
    assert torch.equal(pickle.loads(pickle.dumps(module))(x), wanted)
    dynamic = ({0: torch.export.Dim.AUTO, 2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO},)
    exported = torch.export.export(module, (x,), dynamic_shapes=dynamic).module()
    y = torch.randn(3, 4, 6, 7)
    torch.testing.assert_close(exported(y), module(y))
    assert "relu, sigmoid" in repr(module)


def test_nan_stays_in_its_image() -> None:
    x = torch.randn(3, 4, 5, 5)
    x[1, 2, 0, 0] = float("nan")
    for kind in (GatedOutput, GatedInput):
        out = kind(nn.Conv2d(4, 4, 1), _excitation(4, 2)).float()(x)
        assert [bool(each.isnan().all()) for each in out] == [False, True, False]
        assert not out[[0, 2]].isnan().any()
