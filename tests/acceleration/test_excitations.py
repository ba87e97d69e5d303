import pytest
import torch
import torchvision
from timm.layers.eca import EcaModule
from timm.layers.squeeze_excite import SEModule
from torch import Tensor, nn
from torch.nn import functional as F

from senet.acceleration.excitations import Layers, Own, read
from senet.block import SqueezeExcitation
from senet.kernels.reference import ACTIVATIONS, GATES, excite, squeeze_avg


class _ByHand(nn.Module):
    """What people copy."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Sequential(
            nn.Linear(8, 2, bias=False), nn.ReLU(), nn.Linear(2, 8, bias=False), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        b, c, _, _ = x.size()
        y = self.fc(self.pool(x).view(b, c)).view(b, c, 1, 1)
        gated: Tensor = x * y.expand_as(x)
        return gated


def _check_reads_as(module: nn.Module, hidden: str, gate: str) -> None:
    found = read(module, 8, 4)
    assert isinstance(found, Layers)
    assert (found.hidden, found.gate) == (hidden, gate)
    w1, b1, w2, b2, *_ = found()
    assert w1.shape[::-1] == w2.shape
    assert (b1 is None) == (b2 is None)


@pytest.mark.parametrize(
    ("module", "hidden", "gate"),
    [
        (SEModule(8), "relu", "sigmoid"),
        (SEModule(8, bias=False, rd_channels=8), "relu", "sigmoid"),
        (SEModule(8, act_layer=nn.SiLU, gate_layer="hard_sigmoid"), "silu", "hardsigmoid"),
        (torchvision.ops.SqueezeExcitation(8, 2), "relu", "sigmoid"),
        (
            torchvision.ops.SqueezeExcitation(8, 8, activation=nn.Hardswish, scale_activation=nn.Hardsigmoid),
            "hardswish",
            "hardsigmoid",
        ),
        (_ByHand(), "relu", "sigmoid"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else str(value),
)
def test_any_librarys_module_is_read_by_what_it_computes(module: nn.Module, hidden: str, gate: str) -> None:
    _check_reads_as(module, hidden, gate)
    # As it is now, not as it was when it was read.
    found = read(module, 8, 4)
    assert isinstance(found, Layers)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_()
    w1, b1, w2, b2, *_ = found()
    u = torch.randn(2, 8, 3, 3)
    s = excite(squeeze_avg(u), w1, b1, w2, b2, GATES[gate], ACTIVATIONS[hidden])
    torch.testing.assert_close(u * s[:, :, None, None], module(u))


class _WithDropout(_ByHand):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.dropout(x, 0.5, self.training))


@pytest.mark.parametrize("training", [True, False])
def test_what_training_alone_does_is_seen_in_any_mode(training: bool) -> None:
    module = _WithDropout().train(training)
    before = torch.get_rng_state()
    assert (
        read(module, 8, 4) == "it computes something else than an average, two layers, a gate and a product"
    )
    assert all(each.training is training for each in module.modules())
    assert torch.equal(torch.get_rng_state(), before)


def test_a_subclass_that_computes_something_else_is_left_alone() -> None:
    class Doubled(SqueezeExcitation):
        def forward(self, u: Tensor, mask: Tensor | None = None) -> Tensor:
            return 2 * super().forward(u, mask)

    assert read(Doubled(8, 2), 8, 4) == "its class, or one of its layers, computes something of its own"


def test_a_block_of_ours_reads_itself() -> None:
    found = read(SqueezeExcitation(8, 2, gate="tanh", init="identity"), 8, 4)
    assert isinstance(found, Own)
    assert found().one_at_zero
    assert read(SqueezeExcitation(8, 2, squeeze="max"), 8, 4) == (
        "its squeeze is a maximum, which the norm's sums do not give"
    )
    assert read(SqueezeExcitation(8, 2, squeeze="none"), 8, 4) == "it has no squeeze: its gates are a map"


class _Twice(nn.Module):
    """SE whose product is taken twice."""

    def __init__(self) -> None:
        super().__init__()
        self.se = torchvision.ops.SqueezeExcitation(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        gated: Tensor = self.se(self.se(x))
        return gated


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (EcaModule(8), "it has 1 layers, and SE has two"),
        (SEModule(8, norm_layer=nn.BatchNorm2d), "it has more to it than two layers: bn.weight"),
        (SEModule(8, add_maxpool=True), "it computes something else than an average"),
        (SEModule(8, act_layer=nn.GELU), "it computes something else"),
        (SEModule(16), "it computes something else"),
        (_Twice(), "it computes something else"),
        (nn.ReLU(), "it has 0 layers"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_what_is_no_se_says_why(module: nn.Module, reason: str) -> None:
    found = read(module, 8, 4)
    assert isinstance(found, str)
    assert found.startswith(reason)


def test_the_identity_start_hides_nothing() -> None:
    # With a last layer of zeros every gate is constant: it is random weights that tell.
    module = SEModule(8, act_layer=nn.SiLU)
    nn.init.zeros_(module.fc2.weight)
    _check_reads_as(module.to("meta"), "silu", "sigmoid")
