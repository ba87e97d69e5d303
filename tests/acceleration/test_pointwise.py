import copy
import pickle
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests import bars
from tests.tails import worst
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


def _layers(module: Any, excitation: Excitation, x: Tensor) -> Tensor:
    """What a module stands for, in the dtype of x."""
    conv, excitation = copy.deepcopy(module.conv).to(x.dtype), _in(x.dtype, excitation)
    if isinstance(module, GatedOutput):
        return _gated(conv(x), excitation)
    found: Tensor = conv(_gated(x, excitation))
    return found


def _in(dtype: torch.dtype, excitation: Excitation) -> Excitation:
    given_: Any = [each.to(dtype) if isinstance(each, Tensor) else each for each in excitation]
    return Excitation(*given_)


@pytest.mark.parametrize("kind", [GatedOutput, GatedInput])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("dtype", bars.FORWARD)
def test_they_are_as_exact_as_the_layers(kind: Any, last: bool, dtype: torch.dtype) -> None:
    conv, excitation = nn.Conv2d(24, 24, 1).to(dtype), _in(dtype, _excitation(24, 6))
    module = kind(conv, excitation)
    form = torch.channels_last if last else torch.contiguous_format
    x = torch.randn(3, 24, 7, 9).to(dtype).contiguous(memory_format=form).requires_grad_()
    wide, g = x.detach().double().requires_grad_(), torch.randn(3, 24, 7, 9)
    exact = _layers(module, excitation, wide)
    (wanted,) = torch.autograd.grad(exact, wide, g.double())
    errors = []
    for out in (module(x), _layers(module, excitation, x)):
        (found,) = torch.autograd.grad(out, x, g.to(dtype))
        errors.append((worst([out], [exact]), worst([found], [wanted])))
    assert module.gates.fc1.weight.dtype == module.gates.fc1.bias.dtype == dtype
    for (ours, eager), times in zip(zip(*errors, strict=True), (1, 5), strict=True):
        assert ours <= times * bars.FORWARD[dtype]
        assert ours <= max(1.5 * eager, 2 * times * torch.finfo(dtype).eps)


def test_the_first_layer_for_the_input_is_rounded_once() -> None:
    conv, excitation = nn.Conv2d(64, 64, 1), _in(torch.float32, _excitation(64, 8))
    found: Any = GatedOutput(conv, excitation).gates.fc1
    w1, b1 = _in(torch.float64, excitation)[:2]
    assert b1 is not None
    weight, bias = conv.weight.flatten(1).double(), conv.get_parameter("bias").double()
    assert torch.equal(found.weight, (w1 @ weight).float())
    assert torch.equal(found.bias, (w1 @ bias + b1).float())


@pytest.mark.parametrize("kind", [GatedOutput, GatedInput])
@pytest.mark.parametrize("size", [(1, 1), (1, 70_000), (112, 112)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_gates_of_huge_half_precision_maps(kind: Any, size: tuple[int, int], dtype: torch.dtype) -> None:
    excitation = _excitation(2, 2)
    module = kind(nn.Conv2d(2, 2, 1).double(), excitation)
    for x in bars.huge(dtype, size, last=True):
        # Such that no gate is saturated.
        module.gates.fc1.weight.data = (excitation.w1 / x.double().abs().max()).to(dtype)
        s = module.to(dtype).gates(x)
        wide = copy.deepcopy(module).double().gates(x.double())
        assert 1e-4 < wide.min() < wide.max() < 1 - 1e-4
        torch.testing.assert_close(s.double(), wide, rtol=2**-11, atol=0)


@pytest.mark.parametrize("name", ["batch 0", *bars.MAPS])
@pytest.mark.parametrize("kind", [GatedOutput, GatedInput])
def test_awkward_maps(kind: Any, name: str) -> None:
    x = bars.MAPS.get(name, torch.ones(0, 24, 9, 10))
    channels = x.shape[1]
    conv: Any = CONVOLUTIONS[x.ndim](channels, channels, 1)
    excitation = _excitation(channels, 2)
    module = kind(conv, excitation).float()
    out, wanted = module(x), _layers(module, excitation, x.double())
    assert out.shape == wanted.shape
    assert not out.numel() or worst([out], [wanted]) < 2e-6
    if kind is GatedOutput:
        assert out.stride() == conv(x).stride()
    else:
        assert out.stride() == x.stride() if name.endswith("hannels last") else out.is_contiguous()


@settings(max_examples=200)
@given(spoils=bars.SPOILS, last=st.booleans(), kind=kinds, bias=st.booleans(), seed=st.integers(0, 2**31))
def test_what_is_not_finite_stays_in_its_image(
    spoils: list[Any], last: bool, kind: dict[str, Any], bias: bool, seed: int
) -> None:
    """With the gates in the weights it is so in the same places as with layers. Squeezed before the
    convolution, a NaN makes its whole image NaN, as with layers; an Inf is not finite where it stands, but
    elsewhere in its image Inf − Inf may be NaN in the one order of sums and Inf in the other."""
    torch.manual_seed(seed)
    conv, excitation = nn.Conv2d(4, 4, 1, bias=bias).double(), _excitation(4, 2, **kind)
    clean = torch.randn(3, 4, 5, 6, dtype=torch.float64)
    clean = clean.contiguous(memory_format=torch.channels_last) if last else clean
    x = bars.spoilt(clean, spoils)
    for module in (GatedInput(conv, excitation), GatedOutput(conv, excitation)):
        out, wanted = module(x), _layers(module, excitation, x)
        assert torch.equal(out[[0, 2]], module(clean)[[0, 2]])
        if isinstance(module, GatedInput):
            assert bars.same_kind(out, wanted)
        elif x.isnan().any():
            assert out[1].isnan().all()
            assert wanted[1].isnan().all()
        else:
            there = x[1].isinf().any(0)
            assert not out[1, :, there].isfinite().any()
            assert not wanted[1, :, there].isfinite().any()


def test_what_they_print() -> None:
    for one_at_zero, told in ((False, "relu, tanh\n"), (True, "relu, tanh, one at zero\n")):
        excitation = _excitation(4, 2, gate="tanh", one_at_zero=one_at_zero)
        assert told in repr(GatedInput(nn.Conv2d(4, 4, 1), excitation))
