"""The block: options, errors, accuracy in every dtype, shapes, and what a module must survive."""

import copy
import itertools
import pickle
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save
from torch import Tensor

import senet
from senet import SEConfig, SqueezeExcitation, functional
from senet.errors import OptionError, ShapeError
from senet.kernels import reference

OPTIONS = [
    {"squeeze": squeeze, "gate": gate, "bias": bias, "init": init}
    for squeeze, gate, bias, init in itertools.product(
        functional.SQUEEZES, functional.GATES, (True, False), ("random", "identity")
    )
]


def double_formula(block: SqueezeExcitation, u: Tensor, s_only: bool = False) -> Tensor:
    """Equations 2 to 4 with a sigmoid, in float64, independent of the reference."""
    weights = [parameter.double() for parameter in block.parameters()]
    w1, b1, w2, b2 = weights if len(weights) == 4 else (weights[0], 0.0, weights[1], 0.0)
    u = u.double()
    z = u.flatten(2).sum(2) / u[0, 0].numel()
    s = 1 / (1 + torch.exp(-(torch.clamp(z @ w1.T + b1, min=0) @ w2.T + b2)))
    return s if s_only else torch.einsum("nc...,nc->nc...", u, s)


def randomised(block: SqueezeExcitation) -> SqueezeExcitation:
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.normal_(std=0.5)
    return block


# ------------------------------------------------------------------ options and state


def test_parameters_have_the_published_shapes() -> None:
    shapes = {key: tuple(value.shape) for key, value in SqueezeExcitation(256).state_dict().items()}
    assert shapes == {"fc1.weight": (16, 256), "fc1.bias": (16,), "fc2.weight": (256, 16), "fc2.bias": (256,)}
    assert list(SqueezeExcitation(256, bias=False).state_dict()) == ["fc1.weight", "fc2.weight"]


@given(channels=st.integers(1, 2048), reduction=st.integers(1, 64))
@settings(max_examples=30)
def test_the_hidden_width_is_floor_division_and_never_zero(channels: int, reduction: int) -> None:
    config = SEConfig(reduction=reduction)
    if channels < reduction:
        with pytest.raises(OptionError, match=f"{channels} // {reduction} is 0"):
            config.hidden_width(channels)
    else:
        assert config.hidden_width(channels) == channels // reduction
    assert SEConfig(reduction=reduction, hidden=3).hidden_width(channels) == 3


def test_a_config_makes_its_block() -> None:
    config = SEConfig(reduction=4, squeeze="max", gate="tanh", bias=False, init="identity")
    block = config.build(32)
    assert block.config == config
    assert (block.fc1.in_features, block.fc1.out_features) == (32, 8)
    assert [key for key, _ in block.named_parameters()] == ["fc1.weight", "fc2.weight"]
    assert "max 32 -> 8 -> 32 tanh, one at zero" in repr(block)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"channels": 8}, r"hidden width 8 // 16 is 0.*at most 8, or set hidden="),
        ({"channels": 0}, "channels=0"),
        ({"channels": 64, "reduction": 0}, "reduction=0"),
        ({"channels": 64, "reduction": 2.0}, "reduction=2.0"),
        ({"channels": 64, "hidden": 0}, "hidden=0"),
        ({"channels": 64, "gate": "sigmod"}, "Did you mean 'sigmoid'"),
        ({"channels": 64, "squeeze": "mean"}, "Allowed: avg, max"),
        ({"channels": 64, "init": "zero"}, "Allowed: random, identity"),
        ({"channels": 64, "bias": 1}, "bias=1"),
    ],
)
def test_options_that_are_not_allowed(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        SqueezeExcitation(**arguments)


def test_an_unknown_option_names_the_nearest() -> None:
    with pytest.raises(OptionError, match="Did you mean 'reduction'"):
        SEConfig.from_dict({"reductoin": 8})
    with pytest.raises(OptionError, match=r"SqueezeExcitation\(reductoin.*Did you mean 'reduction'"):
        SqueezeExcitation(64, reductoin=8)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(2, 8), (2, 9, 4, 4), (2, 4, 4, 8), (8,)])
def test_maps_that_do_not_fit(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"SqueezeExcitation\(8\)"):
        SqueezeExcitation(8, 2)(torch.zeros(shape))


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(str(v) for v in o.values()))
def test_every_option_reaches_the_gate(options: dict[str, Any]) -> None:
    block = randomised(SqueezeExcitation(8, 2, **options))
    u = torch.randn(3, 8, 5, 6)
    z = u.mean((2, 3)) if options["squeeze"] == "avg" else u.flatten(2).max(2).values
    table = reference.GATES if options["init"] == "random" else reference.ONE_AT_ZERO
    s = table[options["gate"]](block.fc2(block.fc1(z).relu()))
    torch.testing.assert_close(block.gate(u), s)
    torch.testing.assert_close(block(u), u * s[:, :, None, None])


# ------------------------------------------------------------------ gradients


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(str(v) for v in o.values()))
def test_gradcheck_of_every_option(options: dict[str, Any]) -> None:
    block = randomised(SqueezeExcitation(4, hidden=3, **options).double())
    parameters = dict(block.named_parameters())
    for spatial, masked in (((3,), True), ((2, 3), False), ((2, 1, 2), False)):
        u = torch.randn(2, 4, *spatial, dtype=torch.float64, requires_grad=True)
        mask = torch.tensor([[True, True, False], [True, False, True]]) if masked else None

        def run(u: Tensor, *values: Tensor, mask: Tensor | None = mask) -> Tensor:
            state = dict(zip(parameters, values, strict=True))
            out: Tensor = torch.func.functional_call(block, state, (u, mask))
            return out

        assert torch.autograd.gradcheck(run, (u, *parameters.values()))
        if not masked and options["gate"] in ("sigmoid", "tanh"):
            assert torch.autograd.gradgradcheck(run, (u, *parameters.values()))


# ------------------------------------------------------------------ the identity start


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("gate", functional.GATES)
def test_the_identity_start_changes_nothing_and_learns(gate: str, bias: bool) -> None:
    block = SqueezeExcitation(32, 4, gate=gate, bias=bias, init="identity")
    u = torch.randn(4, 32, 6, 6)
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        assert torch.equal(block(u.to(dtype)), u.to(dtype))
    assert torch.equal(block.gate(u), torch.ones(4, 32))

    optimizer = torch.optim.SGD(block.parameters(), lr=0.1)
    target = torch.randn(4, 32, 6, 6)
    first: list[float] = []
    last: list[float] = []
    for _ in range(2):
        optimizer.zero_grad()
        (block(u) - target).square().mean().backward()
        assert block.fc1.weight.grad is not None
        assert block.fc2.weight.grad is not None
        first.append(block.fc1.weight.grad.abs().max().item())
        last.append(block.fc2.weight.grad.abs().max().item())
        optimizer.step()
    assert last[0] > 0, "the last layer learns from the first step"
    assert first == [0.0, first[1]]
    assert first[1] > 0, "the first layer learns from the second"


def test_the_two_kinds_of_gate_do_not_take_each_others_weights() -> None:
    random, identity = SqueezeExcitation(32), SqueezeExcitation(32, init="identity")
    assert set(identity.state_dict()) - set(random.state_dict()) == {"one_at_zero"}
    for one, other in ((random, identity), (identity, random)):
        for strict in (True, False):
            with pytest.raises(RuntimeError, match="whose gate is another function"):
                one.load_state_dict(other.state_dict(), strict=strict)
    # A checkpoint of the network without SE says nothing of the gate: it may load.
    assert len(identity.load_state_dict({}, strict=False).missing_keys) == 5


# ------------------------------------------------------------------ accuracy

FORWARD_BARS = {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("size", [1, 7, 56])
@pytest.mark.parametrize("lowered_weights", [False, True])
@pytest.mark.parametrize("dtype", FORWARD_BARS)
def test_parity_with_float64(
    dtype: torch.dtype, lowered_weights: bool, size: int, memory_format: torch.memory_format
) -> None:
    _check_parity("cpu", dtype, lowered_weights, size, memory_format)


@pytest.mark.gpu
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("size", [1, 7, 56])
@pytest.mark.parametrize("dtype", FORWARD_BARS)
def test_parity_with_float64_on_a_gpu(
    dtype: torch.dtype, size: int, memory_format: torch.memory_format
) -> None:
    _check_parity("cuda", dtype, True, size, memory_format)


def _check_parity(
    device: str, dtype: torch.dtype, lowered_weights: bool, size: int, memory_format: torch.memory_format
) -> None:
    block = randomised(SqueezeExcitation(64).to(device))
    if lowered_weights:
        block = block.to(dtype)
    u = torch.randn(4, 64, size, size, device=device).to(dtype).contiguous(memory_format=memory_format)
    upstream = torch.randn(u.shape, device=device).to(dtype)
    exact_u = u.double().requires_grad_()
    exact_block = copy.deepcopy(block).double()
    exact = double_formula(exact_block, exact_u)
    exact.backward(upstream.double())
    u = u.requires_grad_()
    out = block(u)
    out.backward(upstream)

    def error(found: Tensor | None, wanted: Tensor | None) -> float:
        assert found is not None
        assert wanted is not None
        return ((found.double() - wanted).abs().max() / wanted.abs().max()).item()

    assert out.dtype == dtype
    assert error(out, exact) <= FORWARD_BARS[dtype]
    bar = 5 * FORWARD_BARS[dtype]
    assert error(u.grad, exact_u.grad) <= bar
    for (name, parameter), other in zip(block.named_parameters(), exact_block.parameters(), strict=True):
        assert error(parameter.grad, other.grad) <= bar, name


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("size", [(1, 1), (1, 70_000), (7, 7), (112, 112), (4096, 4096)])
@pytest.mark.parametrize(
    ("dtype", "top", "bar"), [(torch.float16, 60_000, 2**-11), (torch.bfloat16, 1e30, 2**-8)]
)
def test_the_squeeze_of_huge_half_precision_maps(
    dtype: torch.dtype, top: float, bar: float, size: tuple[int, int], memory_format: torch.memory_format
) -> None:
    constant = torch.full((1, 2, *size), top, dtype=dtype).contiguous(memory_format=memory_format)
    constant[:, 1] = -top
    spread = (torch.rand(1, 2, *size) * top).to(dtype).contiguous(memory_format=memory_format)
    for u in (constant, spread):
        z = functional.squeeze(u)
        wanted = u.double().mean((2, 3))
        assert z.dtype == torch.float32
        assert torch.isfinite(z).all()
        assert ((z - wanted).abs() <= bar * wanted.abs()).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_squeeze_of_half_precision_maps_is_not_rounded_to_half(dtype: torch.dtype) -> None:
    u = torch.rand(2, 64, 15, 15).to(dtype)
    z = functional.squeeze(u)
    torch.testing.assert_close(z.double(), u.double().mean((2, 3)), rtol=1e-6, atol=0)


def test_a_map_whose_sum_overflows_float16() -> None:
    u = torch.full((1, 16, 112, 112), 60_000.0, dtype=torch.float16)
    assert u.sum((2, 3)).isinf().all()
    assert torch.equal(functional.squeeze(u), torch.full((1, 16), 60_000.0))
    block = SqueezeExcitation(16).half()
    assert torch.isfinite(block(u)).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_does_not_lower_the_gate(dtype: torch.dtype) -> None:
    block = randomised(SqueezeExcitation(64))
    u = torch.randn(2, 64, 8, 8).to(dtype)
    outside = block.gate(u)
    with torch.autocast("cpu", dtype):
        inside, out = block.gate(u), block(u)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, outside)
    assert out.dtype == dtype


# ------------------------------------------------------------------ NaN, Inf and shapes


@settings(max_examples=200)
@given(
    value=st.sampled_from([float("nan"), float("inf"), float("-inf")]),
    place=st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(0, 3), st.integers(0, 4)),
    second=st.sampled_from([None, float("nan"), float("inf"), float("-inf")]),
    seed=st.integers(0, 2**31),
)
def test_what_is_not_finite_stays_where_it_is_in_plain_pytorch(
    value: float, place: tuple[int, int, int, int], second: float | None, seed: int
) -> None:
    torch.manual_seed(seed)
    block = randomised(SqueezeExcitation(4, 2))
    clean = torch.randn(3, 4, 4, 5)
    u = clean.clone()
    u[place] = value
    if second is not None:
        u[place[0], 3 - place[1], 0, 0] = second
    w1, b1, w2, b2 = block.parameters()
    plain = u * torch.sigmoid(torch.relu(u.mean((2, 3)) @ w1.T + b1) @ w2.T + b2)[:, :, None, None]
    out = block(u)
    assert torch.equal(out.isnan(), plain.isnan())
    assert torch.equal(out.isposinf(), plain.isposinf())
    assert torch.equal(out.isneginf(), plain.isneginf())
    others = [sample for sample in range(3) if sample != place[0]]
    assert torch.equal(out[others], block(clean)[others])


def _awkward_maps() -> dict[str, Tensor]:
    base = torch.randn(4, 24, 9, 10)
    return {
        "batch 0": base[:0],
        "1x1": base[:, :, :1, :1],
        "1x70000": torch.randn(1, 24, 1, 70_000),
        "expanded": torch.randn(4, 24, 1, 1).expand(4, 24, 9, 10),
        "expanded batch": base[:1].expand(4, 24, 9, 10),
        "sliced": base[:, :, ::2, 1::3],
        "sliced channels": torch.randn(4, 48, 5, 5)[:, ::2],
        "channels last": base.contiguous(memory_format=torch.channels_last),
        "transposed": base.transpose(2, 3),
        "unaligned": torch.randn(4 * 24 * 90 + 1)[1:].view(4, 24, 9, 10),
        "1-D": torch.randn(2, 24, 11),
        "3-D": torch.randn(2, 24, 3, 4, 5),
        "3-D channels last": torch.randn(2, 24, 3, 4, 5).contiguous(memory_format=torch.channels_last_3d),
    }


@pytest.mark.parametrize("name", _awkward_maps())
@pytest.mark.parametrize("options", [{}, {"reduction": 7}, {"hidden": 1}, {"reduction": 24}])
def test_awkward_maps(name: str, options: dict[str, Any]) -> None:
    block = randomised(SqueezeExcitation(24, **options))
    u = _awkward_maps()[name]
    out = block(u)
    assert out.shape == u.shape
    if len(u):
        exact = double_formula(block, u)
        assert (out - exact).abs().max() <= 1e-6 * exact.abs().max()
    if name.endswith("hannels last"):
        assert out.stride() == u.stride()
    if u.is_contiguous():
        assert out.is_contiguous()


def test_one_channel() -> None:
    block = randomised(SqueezeExcitation(1, 1))
    u = torch.randn(3, 1, 4, 4)
    torch.testing.assert_close(block(u).double(), double_formula(block, u))


def test_a_map_without_height_is_an_error() -> None:
    with pytest.raises(ShapeError, match=r"no positions: \(2, 16, 0, 4\)"):
        SqueezeExcitation(16)(torch.zeros(2, 16, 0, 4))


@pytest.mark.gpu
def test_more_than_two_billion_elements() -> None:
    block = randomised(SqueezeExcitation(16).half().cuda())
    u = torch.ones(33, 16, 2048, 2048, dtype=torch.float16, device="cuda")
    assert u.numel() > 2**31
    out = block(u)
    torch.testing.assert_close(
        out[-1, :, -1, -1].double(), double_formula(block, u[-1:, :, :2, :2])[0, :, 0, 0]
    )


def test_a_mask_leaves_padding_out_of_the_gate() -> None:
    block = randomised(SqueezeExcitation(16, 4))
    short = torch.randn(1, 16, 5)
    padded = torch.cat([short, torch.full((1, 16, 3), 1e9)], dim=2)
    mask = torch.arange(8)[None] < 5
    torch.testing.assert_close(block.gate(padded, mask), block.gate(short))
    torch.testing.assert_close(block(padded, mask)[:, :, :5], block(short))
    with pytest.raises(ShapeError, match="the mask is"):
        block(padded, mask[:, :7])


# ------------------------------------------------------------------ what a module must survive


@pytest.mark.parametrize("init", ["random", "identity"])
def test_copies_pickles_and_safetensors(init: str) -> None:
    block = randomised(SqueezeExcitation(32, 4, init=init))
    u = torch.randn(2, 32, 5, 5)
    wanted = block(u)
    copied = copy.deepcopy(block)
    loaded = SqueezeExcitation(32, 4, init=init)
    loaded.load_state_dict(load(save(block.state_dict())))
    for other in (copied, pickle.loads(pickle.dumps(block)), loaded):
        assert torch.equal(other(u), wanted)
    randomised(copied)
    assert torch.equal(block(u), wanted), "the copy is independent"


def test_a_block_on_meta_computes_shapes_and_can_be_materialised() -> None:
    with torch.device("meta"):
        block = SqueezeExcitation(16, init="identity")
        assert block(torch.zeros(2, 16, 4, 4)).shape == (2, 16, 4, 4)
    block.to_empty(device="cpu")
    block.reset_parameters()
    u = torch.randn(2, 16, 4, 4)
    assert torch.equal(block(u), u)
    assert block.state_dict()["one_at_zero"] == 1


def test_gate_hooks_see_every_gate_and_end() -> None:
    block = SqueezeExcitation(16)
    seen: list[Tensor] = []
    handle = block.register_gate_hook(lambda _, s: seen.append(s))
    u = torch.randn(2, 16, 4, 4)
    block(u)
    assert torch.equal(seen[0], block.gate(u))
    handle.remove()
    block(u)
    assert len(seen) == 2


@pytest.mark.parametrize("options", [{}, {"squeeze": "max", "gate": "hardsigmoid", "init": "identity"}])
def test_compile_and_export(options: dict[str, Any]) -> None:
    block = randomised(SqueezeExcitation(16, **options)).eval()
    u = torch.randn(2, 16, 6, 7)
    wanted = block(u)
    compiled = torch.compile(block, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(u), wanted)
    sizes = {0: torch.export.Dim("n"), 2: torch.export.Dim("h"), 3: torch.export.Dim("w")}
    exported = torch.export.export(block, (u,), dynamic_shapes=(sizes,))
    other = torch.randn(5, 16, 4, 9)
    torch.testing.assert_close(exported.module()(other), block(other))
    assert not any("autocast" in str(node.target) for node in exported.graph.nodes)


@pytest.mark.parametrize(
    ("rule", "widths"),
    [
        ("paper", [1, 2, 4, 7, 10, 12, 20, 42]),
        ("timm", [8, 8, 8, 8, 8, 16, 24, 40]),
        ("mmpretrain", [8, 8, 8, 8, 16, 16, 24, 40]),
    ],
)
def test_hidden_widths_follow_a_rule_that_has_a_name(rule: str, widths: list[int]) -> None:
    """The widths that these libraries make of the same channels at r = 16."""
    config = SEConfig(width_rule=rule)
    assert [config.hidden_width(channels) for channels in (16, 40, 64, 112, 160, 192, 320, 672)] == widths
    block = config.build(40)
    assert block.fc1.out_features == widths[1]
    assert sum(parameter.numel() for parameter in block.parameters()) == config.parameters(40)


def test_a_width_rule_is_checked_and_never_gives_zero() -> None:
    with pytest.raises(OptionError, match="Did you mean 'timm'"):
        SEConfig(width_rule="tim")
    assert SEConfig(64, width_rule="timm").hidden_width(16) == 8
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.ReLU())
    plan = senet.plan(model, width_rule="timm", example=torch.ones(2, 3, 8, 8))
    assert [row["hidden"] for row in plan.rows] == [8] * len(plan.sites)
