"""The residual units: where SE stands, and the shortcut without parameters."""

from typing import Any

import pytest
import torch
from torch import nn

import senet
from senet import SEConfig
from senet.models.units import PadShortcut, Stage


@pytest.mark.parametrize("placement", ["standard", "pre", "post", "identity", "3x3"])
def test_each_placement_gates_its_tensor(placement: str) -> None:
    """Closing every gate shows what it gates: the output is then computed by hand."""
    model = senet.build("se_resnet50", placement=placement, se=SEConfig(gate="relu")).eval()
    unit: Any = model.get_submodule("layer1.0")
    for block in (unit.se,):
        nn.init.zeros_(block.fc2.weight)
        nn.init.constant_(block.fc2.bias, -1)
    x = torch.randn(2, 64, 8, 8)
    shortcut = unit.downsample(x)

    def branch(u: torch.Tensor, closed_after_3x3: bool = False) -> torch.Tensor:
        u = unit.bn1(unit.conv1(u)).relu()
        u = unit.bn2(unit.conv2(u)).relu()
        out: torch.Tensor = unit.bn3(unit.conv3(u * 0 if closed_after_3x3 else u))
        return out

    wanted = {
        "standard": shortcut,
        "pre": branch(x * 0) + shortcut,
        "post": torch.zeros_like(shortcut),
        "identity": branch(x),
        "3x3": branch(x, closed_after_3x3=True) + shortcut,
    }[placement].relu()
    torch.testing.assert_close(unit(x), wanted)


def test_the_pad_shortcut() -> None:
    x = torch.randn(2, 3, 5, 6)
    out = PadShortcut(3, 8, 2)(x)
    assert out.shape == (2, 8, 3, 3)
    assert torch.equal(out[:, 2:5], x[:, :, ::2, ::2])
    assert not out[:, :2].any()
    assert not out[:, 5:].any()


def _stage(backend: str = "composite", placement: str = "standard") -> Any:
    """Three units: the first changes the channels, the others read their input twice."""
    torch.manual_seed(1)
    network = senet.build("se_resnet50", placement=placement, se=SEConfig(hidden=4)).double()
    stage = network.get_submodule("layer1")
    for module in stage.modules():
        if isinstance(module, senet.SqueezeExcitation):
            module.backend = backend
    return stage


def _step(stage: nn.Module) -> list[torch.Tensor]:
    x = torch.randn(2, 64, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    out = stage(x.requires_grad_())
    leaves = [x, *(each for each in stage.parameters())]
    return [out, *torch.autograd.grad(out.square().sum(), leaves), *stage.buffers()]


@pytest.mark.parametrize("placement", ["standard", "pre", "post", "identity", "3x3"])
def test_a_stage_computes_what_its_units_do_layer_by_layer(placement: str) -> None:
    found, wanted = _step(_stage(placement=placement)), _step(_stage("reference", placement))
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)


def _forks(stage: Any, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Which of the units of a step give their map twice."""
    forks: list[bool] = []
    tail = senet.SqueezeExcitation.tail

    def noted(self: Any, *args: Any, **options: Any) -> Any:
        forks.append(options.get("fork", False))
        return tail(self, *args, **options)

    with monkeypatch.context() as patched:
        patched.setattr(senet.SqueezeExcitation, "tail", noted)
        _step(stage)
    return forks


def test_a_map_is_given_twice_where_nobody_else_sees_it(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = _stage()
    assert isinstance(stage, Stage)
    assert _forks(stage, monkeypatch) == [True, True, False]
    seen: list[torch.Tensor] = []
    hooks = [
        stage[1].register_forward_hook(lambda module, args, out: out.register_hook(seen.append) and None),
        stage[2].register_forward_pre_hook(lambda module, args: args[0].register_hook(seen.append) and None),
    ]
    assert _forks(stage, monkeypatch) == [False, False, False]
    for hook in hooks:
        hook.remove()
    # Both hooks saw the whole gradient, that of the branch and that of the shortcut.
    torch.testing.assert_close(seen[0], seen[1])
    x = torch.randn(2, 64, 6, 6, dtype=torch.float64)
    outs = []
    for unit in stage:
        x = unit(x)
        outs.append(x)
    (whole,) = torch.autograd.grad(x.square().sum(), outs[1], retain_graph=True)
    v = outs[1].detach().requires_grad_()
    (wanted,) = torch.autograd.grad(stage[2](v).square().sum(), v)
    torch.testing.assert_close(whole, wanted)
    with torch.no_grad():
        assert stage(torch.randn(2, 64, 6, 6, dtype=torch.float64)).shape == (2, 256, 6, 6)


def test_a_compiled_stage_computes_the_same() -> None:
    stage = _stage("auto")
    wanted = _step(_stage("reference"))
    stage.compile(backend="aot_eager", fullgraph=True)
    for one, other in zip(_step(stage), wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)


def test_se_that_starts_as_the_identity_changes_no_bit_in_evaluation() -> None:
    model = senet.build("resnet20", num_classes=5)
    for _ in range(3):
        model(torch.randn(8, 3, 32, 32) + 1)  # Running statistics that are no round numbers.
    model.eval()
    x = torch.randn(4, 3, 32, 32)
    before = model(x)
    senet.insert(model)
    assert torch.equal(model(x), before)


def test_a_unit_that_is_compiled_by_itself_is_called() -> None:
    model: Any = senet.build("se_resnet20").eval()
    seen: list[Any] = []

    def compiler(graph: Any, _inputs: object) -> Any:
        seen.append(graph)
        return graph.forward

    model.layer1[1].compile(backend=compiler)
    with torch.no_grad():
        model(torch.randn(1, 3, 32, 32))
    assert seen


def test_a_units_own_forward_is_heeded() -> None:
    model: Any = senet.build("se_resnet20").eval()

    class Zero(type(model.layer1[1])):  # type: ignore[misc]
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 0 * x

    model.layer1[1].__class__ = Zero
    x = torch.randn(1, 16, 8, 8)
    assert torch.equal(model.layer1[:2](x), torch.zeros_like(x))
