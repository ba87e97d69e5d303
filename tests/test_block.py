"""The block: options, errors, gradients, the identity start, and what a module must survive."""

import copy
import itertools
import pickle
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.utils import prune

import senet
from senet import SEConfig, SqueezeExcitation, functional
from senet.errors import OptionError, ShapeError, UndefinedError
from senet.kernels import reference
from tests.blocks import randomised

OPTIONS = [
    {"squeeze": squeeze, "gate": gate, "bias": bias, "init": init}
    for squeeze, gate, bias, init in itertools.product(
        functional.SQUEEZES, functional.GATES, (True, False), ("random", "identity")
    )
]


# ------------------------------------------------------------------ options, state and shapes


def test_parameters_have_the_published_shapes() -> None:
    shapes = {key: tuple(value.shape) for key, value in SqueezeExcitation(256).state_dict().items()}
    assert shapes == {"fc1.weight": (16, 256), "fc1.bias": (16,), "fc2.weight": (256, 16), "fc2.bias": (256,)}
    assert list(SqueezeExcitation(256, bias=False).state_dict()) == ["fc1.weight", "fc2.weight"]


@given(channels=st.integers(1, 2048), reduction=st.integers(1, 64))
@settings(max_examples=30)
def test_the_hidden_width_is_floor_division_and_never_zero(channels: int, reduction: int) -> None:
    config = SEConfig(reduction=reduction)
    if channels < reduction:
        with pytest.raises(UndefinedError, match=f"{channels} // {reduction} is 0"):
            config.hidden_width(channels)
    else:
        assert config.hidden_width(channels) == channels // reduction
    assert SEConfig(reduction=reduction, hidden=3).hidden_width(channels) == 3


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
        ({"channels": 64, "squeeze": "mean"}, "Allowed: avg, max, none"),
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


def test_a_map_without_height_is_an_error() -> None:
    with pytest.raises(ShapeError, match=r"no positions: \(2, 16, 0, 4\)"):
        SqueezeExcitation(16)(torch.zeros(2, 16, 0, 4))


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(str(v) for v in o.values()))
def test_every_option_reaches_the_gate(options: dict[str, Any]) -> None:
    block = randomised(SqueezeExcitation(8, 2, **options))
    u = torch.randn(3, 8, 5, 6)
    rows = u.flatten(2).transpose(1, 2)
    z = {"avg": rows.mean(1, keepdim=True), "max": rows.max(1, keepdim=True).values, "none": rows}
    table = reference.GATES if options["init"] == "random" else reference.ONE_AT_ZERO
    s = table[options["gate"]](block.fc2(block.fc1(z[options["squeeze"]]).relu())).transpose(1, 2)
    s = s.unflatten(2, (5, 6) if options["squeeze"] == "none" else (1, 1))
    torch.testing.assert_close(block.gate(u), s if options["squeeze"] == "none" else s.flatten(1))
    torch.testing.assert_close(block(u), u * s)


def test_a_mask_leaves_padding_out_of_the_gate() -> None:
    block = randomised(SqueezeExcitation(16, 4))
    short = torch.randn(1, 16, 5)
    padded = torch.cat([short, torch.full((1, 16, 3), 1e9)], dim=2)
    mask = torch.arange(8)[None] < 5
    torch.testing.assert_close(block.gate(padded, mask), block.gate(short))
    torch.testing.assert_close(block(padded, mask)[:, :, :5], block(short))
    with pytest.raises(ShapeError, match="the mask is"):
        block(padded, mask[:, :7])


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


# ------------------------------------------------------------------ what a module must survive


@pytest.mark.parametrize("squeeze", functional.SQUEEZES)
@pytest.mark.parametrize("init", ["random", "identity"])
def test_copies_pickles_and_safetensors(init: str, squeeze: str) -> None:
    block = randomised(SqueezeExcitation(32, 4, init=init, squeeze=squeeze))
    u = torch.randn(2, 32, 5, 5)
    wanted = block(u)
    copied = copy.deepcopy(block)
    loaded = SqueezeExcitation(32, 4, init=init, squeeze=squeeze)
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


@pytest.mark.parametrize(
    "options",
    [{}, {"squeeze": "max", "gate": "hardsigmoid", "init": "identity"}, {"squeeze": "none", "gate": "tanh"}],
)
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


class Doubled(SqueezeExcitation):
    """A subclass that computes something else."""

    def forward(self, u: Tensor, mask: Tensor | None = None) -> Tensor:
        return 2 * super().forward(u, mask)


class Halved(SqueezeExcitation):
    def gate(self, u: Tensor, mask: Tensor | None = None) -> Tensor:
        return super().gate(u, mask) / 2


def test_what_a_subclass_changes_is_heeded_by_units_too() -> None:
    plain, doubled, halved = SqueezeExcitation(8, 2), Doubled(8, 2), Halved(8, 2)
    u, r = torch.randn(2, 2, 8, 3, 3)
    for factor, block in ((2, doubled), (0.5, halved)):
        block.load_state_dict(plain.state_dict())
        torch.testing.assert_close(block(u), factor * plain(u))
        torch.testing.assert_close(block.tail(u, residual=r)[0], factor * plain(u) + r)
        assert not block.is_plain
    assert plain.is_plain


class Adapted(nn.Linear):
    """A layer with something beside it, as adapters have it."""

    def __init__(self, inside: nn.Linear) -> None:
        super().__init__(inside.in_features, inside.out_features)
        self.load_state_dict(inside.state_dict())
        self.beside = nn.Linear(inside.in_features, inside.out_features)

    def forward(self, x: Tensor) -> Tensor:
        given: Tensor = super().forward(x) + self.beside(x)
        return given


@pytest.mark.parametrize("squeeze", ["avg", "max", "none"])
@pytest.mark.parametrize("init", ["random", "identity"])
def test_layers_in_place_of_its_own_are_called(squeeze: str, init: str) -> None:
    block = SqueezeExcitation(8, 2, squeeze=squeeze, init=init)
    with torch.no_grad():
        block.fc2.weight.normal_()
    u = torch.randn(2, 8, 3, 3)
    wanted = block(u)
    block.fc2 = Adapted(block.fc2)
    with torch.no_grad():
        for each in block.fc2.beside.parameters():
            each.zero_()
    torch.testing.assert_close(block(u), wanted)
    torch.testing.assert_close(block.tail(u)[0], wanted)
    block(u).square().sum().backward()
    assert block.fc2.beside.weight.grad is not None
    assert block.fc2.beside.weight.grad.any()


@pytest.mark.parametrize("tool", ["pruned", "spectral", "parametrized"])
def test_weights_that_are_made_as_a_layer_is_called_are_those_of_now(tool: str) -> None:
    block, u = SqueezeExcitation(8, 2), torch.randn(2, 8, 3, 3)
    if tool == "pruned":
        prune.l1_unstructured(block.fc1, "weight", 0.5)
    elif tool == "spectral":
        torch.nn.utils.spectral_norm(block.fc1)
    else:
        torch.nn.utils.parametrizations.weight_norm(block.fc1)
    learning = [each for each in block.fc1.parameters() if each.ndim == 2]
    for _ in range(2):
        block(u).square().sum().backward()
        assert all(each.grad is not None for each in learning)
        with torch.no_grad():
            for each in learning:
                each.mul_(torch.rand_like(each))
    hidden = torch.relu(block.fc1(u.mean((2, 3))))
    wanted = u * torch.sigmoid(block.fc2(hidden))[:, :, None, None]
    torch.testing.assert_close(block.eval()(u), wanted if tool != "spectral" else block(u))


def test_a_norm_with_an_activation_is_called() -> None:
    block, norm = SqueezeExcitation(8, 2), BatchNormAct2d(8)
    same, u = copy.deepcopy(norm), torch.randn(4, 8, 3, 3)
    torch.testing.assert_close(block.tail(u, norm=norm)[0], block(same(u)))
