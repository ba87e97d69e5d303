import copy
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.networks import Unit
from torch import nn

from senet.block import SEConfig, SqueezeExcitation
from senet.insertion.hooks import Hook, InputGate, OutputGate, ShortcutGate, Ungate


def _gated(kind: str) -> Unit:
    """A unit with a block of random weights, called in one of three ways."""
    unit = Unit(8).eval()
    block = SEConfig(hidden=32).build(8)
    unit.se = block
    if kind == "output":
        OutputGate(block).attach(unit.b2)
    elif kind == "input":
        InputGate(block, 0).attach(unit.c1)
    else:
        ShortcutGate(block, 0).attach(unit)
        Ungate(block, 0).attach(unit.c1)
    return unit


KINDS = ("output", "input", "shortcut")


def _hooks(model: nn.Module) -> list[Hook]:
    found: list[object] = []
    for module in model.modules():
        found += [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
    return [hook for hook in found if isinstance(hook, Hook)]


def _by_hand(unit: Unit, kind: str, x: torch.Tensor) -> torch.Tensor:
    block = unit.get_submodule("se")
    assert isinstance(block, SqueezeExcitation)

    def branch(u: torch.Tensor) -> torch.Tensor:
        conv1, conv2 = unit.c1.weight, unit.c2.weight
        u = torch.conv2d(u, conv1, padding=1)
        u = torch.relu(torch.nn.functional.batch_norm(u, unit.b1.running_mean, unit.b1.running_var))
        u = torch.conv2d(u, conv2, padding=1)
        return torch.nn.functional.batch_norm(u, unit.b2.running_mean, unit.b2.running_var)

    if kind == "output":
        return torch.relu(block(branch(x)) + x)
    if kind == "input":
        return torch.relu(branch(block(x)) + x)
    return torch.relu(branch(x) + block(x))


@pytest.mark.parametrize("kind", KINDS)
def test_each_gates_its_tensor_and_no_other(kind: str) -> None:
    unit, x = _gated(kind).double(), torch.randn(2, 8, 5, 5, dtype=torch.float64)
    torch.testing.assert_close(unit(x), _by_hand(unit, kind, x))


@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_is_independent(kind: str) -> None:
    unit, x = _gated(kind), torch.randn(2, 8, 5, 5)
    before = unit(x)
    other = copy.deepcopy(unit)
    assert torch.equal(other(x), before)
    with torch.no_grad():
        other.get_parameter("se.fc2.weight").add_(1)
    assert torch.equal(unit(x), before)
    assert not torch.equal(other(x), before)
    assert {hook.block for hook in _hooks(other)} == {other.get_submodule("se")}


@pytest.mark.parametrize("kind", KINDS)
def test_another_process_unpickles_it_and_adds_hooks_beside_it(kind: str, tmp_path: Path) -> None:
    unit, x = _gated(kind), torch.randn(2, 8, 5, 5)
    (tmp_path / "unit.pickle").write_bytes(pickle.dumps((unit, x, unit(x))))
    code = """if True:
        import pickle, sys, torch
        unit, x, y = pickle.load(open(sys.argv[1], "rb"))
        for module in unit.modules():
            for _ in range(3):
                module.register_forward_hook(lambda *args: None)
                module.register_forward_pre_hook(lambda *args: None)
        assert torch.equal(unit(x), y)
    """
    command = [sys.executable, "-c", code, str(tmp_path / "unit.pickle")]
    root = Path(__file__).parent.parent.parent
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# Raised, and hidden, inside the compiler.
@pytest.mark.filterwarnings("ignore:The .grad attribute")
@pytest.mark.parametrize("kind", KINDS)
def test_compilers_and_exporters_see_through_it(kind: str) -> None:
    unit, x = _gated(kind), torch.randn(2, 8, 5, 5)
    wanted = unit(x)
    compiled = torch.compile(unit, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), wanted)
    with torch.compiler.set_stance("fail_on_recompile"):
        compiled(torch.randn(2, 8, 5, 5))
    exported = torch.export.export(unit, (x,), strict=False)
    torch.testing.assert_close(exported.module()(x), wanted)
    assert set(exported.state_dict) == set(unit.state_dict())


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_flow(kind: str) -> None:
    unit, x = _gated(kind), torch.randn(2, 8, 5, 5, requires_grad=True)
    unit(x).sum().backward()
    assert x.grad is not None
    assert all(bool(parameter.grad.any()) for parameter in unit.get_submodule("se").parameters())  # type: ignore[union-attr]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_torchscripts_compiler_is_refused_clearly() -> None:
    with pytest.raises(NotImplementedError, match=r"Use torch\.export"):
        torch.jit.script(_gated("output"))


def test_it_comes_off() -> None:
    unit = _gated("shortcut")
    assert len(_hooks(unit)) == 2
    for hook in _hooks(unit):
        hook.remove()
    assert _hooks(unit) == []
