import copy
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.acceleration.held import blocks_of, drawn, held, same_step, stirred
from tests.acceleration.networks import NETWORKS, SLOW, Spelled, basic, bottlenecks, images, inserted
from tests.networks import Net, SqueezeByHand, Unit
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import senet
from senet.acceleration.fold import fold
from senet.block import ConstantScale, SqueezeExcitation
from senet.errors import InsertionError, OptionError
from senet.graph.arithmetic import multiply_adds

# Of some an identity shortcut is gated, or read beside what is: no layer takes the scale in.
REMAINING = {
    "bottlenecks identity": 1, "inserted identity": 2,
    "pre-activation pre": 3, "pre-activation post": 3,
}  # fmt: skip


class _Block(nn.Module):
    """Something like SE, whose forward is given."""

    def __init__(self, how: Any) -> None:
        super().__init__()
        self.fc = nn.Sequential(nn.Linear(8, 8), nn.Sigmoid())
        self.how = how

    def forward(self, *given: Any, **named: Any) -> Any:
        return self.how(self, *given, **named)

    def gate(self, x: Tensor) -> Tensor:
        gates: Tensor = self.fc(x.mean((2, 3)))[:, :, None, None]
        return gates


class _Odd(nn.Module):
    """A convolution and a block that is called, and computes, in some way."""

    def __init__(self, call: Any, how: Any) -> None:
        super().__init__()
        self.conv, self.se, self.call = nn.Conv2d(3, 8, 3, padding=1), _Block(how), call

    def forward(self, x: Tensor) -> Any:
        return self.call(self.se, self.conv(x))


def _given_before(se: Any, u: Tensor) -> Tensor:
    se.kept = u * se.gate(u)
    result: Tensor = se(u)
    return result


ODD: dict[str, tuple[Any, Any]] = {
    "a sum": (lambda se, u: se(u), lambda m, x: x + m.gate(x)),
    "one number": (lambda se, u: se(u), lambda m, x: x * 0.5),
    "gates of each position": (lambda se, u: se(u), lambda m, x: x * x.sigmoid()),
    "several results": (lambda se, u: se(u)[0], lambda m, x: (x * m.gate(x), x)),
    "two arguments": (lambda se, u: se(u, u.tanh()), lambda m, x, y: x * m.gate(y)),
    "by keyword": (lambda se, u: se(x=u), lambda m, x: x * m.gate(x)),
    "in a list": (lambda se, u: se([u]), lambda m, x: x[0] * m.gate(x[0])),
    "as it was given": (lambda se, u: se(u), lambda m, x: x),
    "made elsewhere": (_given_before, lambda m, x: m.kept),
}


@pytest.mark.parametrize("name", ODD)
def test_what_is_no_map_times_its_gates_is_left_alone(name: str) -> None:
    with pytest.raises(InsertionError, match="no module of its own that takes a map"):
        senet.fold_gates(_Odd(*ODD[name]), {"se": 0.5})


def test_a_module_that_gives_the_network_back_its_input_is_left_alone() -> None:
    model = nn.Sequential(nn.Identity(), nn.Conv2d(3, 8, 1))
    with pytest.raises(InsertionError, match="no module of its own that takes a map"):
        senet.fold_gates(model, {"0": 0.5}, example=torch.randn(1, 3, 8, 8))


class _Told(nn.Module):
    """Gates that somebody else gives."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.se = nn.Conv2d(3, 8, 1), _Block(lambda m, x: x * m.gates)

    def forward(self, x: Tensor, gates: Tensor) -> Tensor:
        self.se.gates = gates
        result: Tensor = self.se(self.conv(x))
        return result


def test_gates_that_a_network_is_given_may_be_held_too() -> None:
    example = torch.randn(2, 3, 4, 4), torch.rand(2, 8, 1, 1)
    model = _Told()
    folded = senet.fold_gates(model, {"se": 0.5}, example=example)
    torch.testing.assert_close(folded(*example), 0.5 * model.conv(example[0]))


@pytest.mark.parametrize("name", [*NETWORKS, *(pytest.param(each, marks=pytest.mark.slow) for each in SLOW)])
def test_it_computes_what_the_network_does_with_its_gates_held(name: str) -> None:
    model = stirred((NETWORKS | SLOW)[name]()).eval()
    values = drawn(model)
    before, x = {key: value.clone() for key, value in model.state_dict().items()}, images(name)
    folded, report = fold(model, values)
    reference = held(model, values)
    torch.testing.assert_close(folded(x), reference(x), rtol=1e-10, atol=1e-10)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert isinstance(report.change, float)
    assert report.change < 1e-12
    remaining = [module for module in folded.modules() if isinstance(module, ConstantScale)]
    assert len(remaining) == REMAINING.get(name, 0)
    assert _parameters(model) - _parameters(folded) == report.parameters > 0
    now, was = multiply_adds(folded), multiply_adds(model)
    assert now.scales == 0 < was.scales
    assert now.products < was.products
    assert not any(module.training for module in folded.modules())
    same_step(folded, reference, x)


def _parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_values_may_be_numbers_and_ones_just_drop_the_block() -> None:
    model = stirred(bottlenecks("identity")).eval()
    x = images("bottlenecks")
    folded, report = fold(model, {"layer1.1.se": 1.0, "layer2.0.se": 0.5, "layer1.0.se": [0.0] * 32})
    assert [row["into"] for row in report.rows] == [
        "nothing: all gates are 1",
        "output of layer2.0.downsample.1",
        "output of layer1.0.downsample.1",
    ]
    reference = held(model, {"layer1.1.se": 1.0, "layer2.0.se": 0.5, "layer1.0.se": 0.0})
    torch.testing.assert_close(folded(x), reference(x), rtol=1e-10, atol=1e-10)


def test_numbers_are_taken_as_they_are_given() -> None:
    for given in (0.3, [0.3], torch.tensor(0.3, dtype=torch.float64)):
        model: Any = nn.Sequential(nn.Conv2d(3, 1, 1), Spelled(1)).double()
        folded: Any = senet.fold_gates(model, {"1": given})
        assert torch.equal(folded[0].weight, model[0].weight * 0.3)


def test_gates_below_zero_do_not_pass_a_relu() -> None:
    model = stirred(bottlenecks("3x3")).eval()
    values: dict[str, Any] = {name: -value for name, value in drawn(model).items()}
    folded, report = fold(model, values)
    assert report.rows[0]["into"] == "input of layer1.0.conv3"
    x = images("bottlenecks")
    torch.testing.assert_close(folded(x), held(model, values)(x), rtol=1e-10, atol=1e-10)


def test_names_alone_are_enough_where_the_weights_say_it() -> None:
    model = inserted()
    senet.remove(model)
    x = torch.randn(2, 3, 16, 16)
    plain = copy.deepcopy(model).eval()
    senet.insert(model, reduction=4)
    folded = senet.fold_gates(model.eval(), list(blocks_of(model)))
    assert list(folded.state_dict()) == list(plain.state_dict())
    assert torch.equal(folded(x), plain(x))
    assert list(senet.fold_gates(model, "units.0.se").state_dict()) != list(plain.state_dict())
    with pytest.raises(OptionError, match=r"not constant: 16 of its 16 .*record_gates"):
        senet.fold_gates(inserted(), "units.0.se")


def test_gates_of_each_position_are_constant_too_where_the_weights_say_it() -> None:
    model, x = senet.build("se_resnet20", se=senet.SEConfig(squeeze="none")).eval(), torch.randn(2, 3, 16, 16)
    block: Any = model.get_submodule("layer2.1.se")
    nn.init.zeros_(block.fc2.weight)
    nn.init.normal_(block.fc2.bias)
    folded, report = fold(model, ["layer2.1.se"])
    assert report.rows[0]["into"] == "output of layer2.1.bn2"
    torch.testing.assert_close(folded(x), model(x))
    with pytest.raises(OptionError, match="not constant"):
        fold(model, ["layer2.0.se"])


def test_the_function_stays_where_recorded_means_are_the_gates() -> None:
    model = basic().eval()
    with senet.record_gates(model) as gates:
        model(torch.randn(4, 3, 16, 16))
        count = gates["layer2.0.se"].count
        folded = senet.fold_gates(model, {"layer2.0.se": gates["layer2.0.se"].mean})
        folded(torch.randn(4, 3, 16, 16))
        assert gates["layer2.0.se"].count == gates["layer1.0.se"].count == count
    with senet.record_gates(folded) as rest:
        folded(torch.randn(4, 3, 16, 16))
    assert [block.name for block in rest] == ["layer1.0.se", "layer1.1.se"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_mode_dtype_and_what_is_frozen_stay(dtype: torch.dtype) -> None:
    model = inserted("identity").to(dtype)
    model.get_parameter("units.0.b2.weight").requires_grad = False
    model.get_submodule("units.1").eval()
    folded = senet.fold_gates(model, drawn(model))
    assert {tensor.dtype for tensor in folded.state_dict().values()} == {dtype, torch.int64}
    assert [each.training for each in folded.modules() if isinstance(each, ConstantScale)] == [True, True]
    assert folded.training
    assert not folded.get_submodule("units.1.b1").training
    assert not folded.get_parameter("units.0.b2.weight").requires_grad
    assert folded(torch.randn(2, 3, 16, 16, dtype=dtype)).dtype == dtype


def test_a_network_without_memory_is_folded_but_not_compared() -> None:
    with torch.device("meta"):
        model = senet.build("se_resnet20")
    folded, report = fold(model, {"layer1.0.se": 0.5})
    assert "not compared, as the network is on meta" in str(report)
    assert len(folded.state_dict()) < len(model.state_dict())


@pytest.mark.parametrize("backend", ["auto", "composite"])
def test_accelerated_networks_are_accelerated_again(backend: str) -> None:
    model = stirred(inserted()).eval()
    values = drawn(model)
    one = {"units.1.se": values["units.1.se"]}
    x = images("inserted")
    wanted, all_wanted = held(model, one)(x), held(model, values)(x)
    senet.accelerate(model, backend=backend)
    folded = senet.fold_gates(model, one)
    assert [module.forward.backend for module in folded.modules() if hasattr(module.forward, "backend")] == [
        backend
    ] * 2
    torch.testing.assert_close(folded(x), wanted, rtol=1e-10, atol=1e-10)
    none = senet.fold_gates(model, values)
    assert not any("forward" in module.__dict__ for module in none.modules())
    torch.testing.assert_close(none(x), all_wanted, rtol=1e-10, atol=1e-10)
    assert any("forward" in module.__dict__ for module in model.modules())


def test_what_cannot_take_a_scale_in_is_left_alone() -> None:
    model: Any = stirred(inserted()).eval()
    model.units[0].b2.register_forward_hook(lambda *_: None)
    parametrizations.weight_norm(model.units[1].b3)
    model.units[2].b3.weight = model.units[2].b1.bias = nn.Parameter(torch.ones(32).double())
    model.units[2].b1 = nn.BatchNorm2d(8).double()
    model.also = model.units[2].b3
    values = drawn(model)
    folded, report = fold(model, values)
    assert [row["into"].split(",")[0] for row in report.rows[:2]] == 2 * ["a constant scale"]
    assert "2 remain as constant scales" in str(report)
    assert "ConstantScale(16, 0." in repr(folded)
    x = images("inserted")
    torch.testing.assert_close(folded(x), held(model, values)(x), rtol=1e-10, atol=1e-10)


class _Twice(nn.Module):
    """A block that runs at two places."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)
        self.se = Spelled(8)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.se(self.second(self.se(self.first(x))))
        return result


def test_a_block_that_runs_twice_becomes_a_scale() -> None:
    model = _Twice().double()
    folded, report = fold(model, {"se": 0.5})
    assert report.rows[0]["into"].startswith("a constant scale")
    x = images("twice")
    torch.testing.assert_close(folded(x), held(model, {"se": 0.5})(x))


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ({"layer2.0.es": 1.0}, r"there is no such module.*layer1.0.se.*Did you mean 'layer2.0.se'"),
        (
            {"layer2.0.se": torch.ones(8)},
            r"its gates are a tensor of \(8,\).*one number, or a tensor of \(16,\)",
        ),
        ({"layer2.0.se": float("nan")}, "1 of its gates are NaN or infinite.*finite"),
        ({"layer2.0.se": "half"}, "'half' is no real number or tensor"),
        ({"layer2.0.se": torch.tensor(1j)}, "is no real number or tensor"),
        ({}, "blocks={}.*names of SE blocks"),
        ([], "names of SE blocks"),
        ([3], "names of SE blocks"),
    ],
)
def test_what_is_wrong_is_said(blocks: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        senet.fold_gates(basic(), blocks)


def test_what_cannot_go_is_said() -> None:
    with pytest.raises(InsertionError, match=r"no module of its own .*"):
        senet.fold_gates(basic(), {"layer2.0.bn2": 1.0})
    with pytest.raises(InsertionError, match="no module of its own"):
        senet.fold_gates(Net(SqueezeByHand()), {"units.0": 0.5})
    model: Any = basic()
    model.layer2[0].se.register_forward_hook(lambda *_: None)
    with pytest.raises(InsertionError, match="hooks are attached to it, which would be lost"):
        senet.fold_gates(model, {"layer2.0.se": 1.0})
    model = Net(Unit())
    model.never = Spelled(16)
    with pytest.raises(InsertionError, match="does not run in evaluation mode"):
        senet.fold_gates(model, {"never": 1.0})
    with pytest.raises(InsertionError, match="compiled"):
        senet.fold_gates(torch.compile(basic()), {"layer2.0.se": 1.0})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "options", "scaled"),
    [
        ("se_resnet20", {"stages": (3,)}, 0),
        ("se_resnet20", {"stages": (3,), "placement": "identity", "shortcut": "project"}, 1),
        ("se_mobilenet_v1", {"stages": (2, 5), "width": 0.25}, 0),
    ],
)
def test_a_folded_network_is_saved_and_loaded(
    name: str, options: dict[str, Any], scaled: int, tmp_path: Path
) -> None:
    model: Any = senet.build(name, num_classes=4, **options).eval()
    (first, one), (second, other), *rest = drawn(model).items()
    folded: Any = senet.fold_gates(model, {first: one})
    folded = senet.fold_gates(folded, {second: other})
    path = tmp_path / "folded.safetensors"
    senet.weights.save(folded, path)
    again: Any = senet.load(path)
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(again(x), folded(x))
    assert again.config == folded.config
    assert sorted([*again.config.folded, *again.config.scaled]) == [first, second]
    assert len(again.config.scaled) == scaled
    assert [name for name, each in again.named_modules() if isinstance(each, SqueezeExcitation)] == [
        name for name, _ in rest
    ]
    assert "folded" not in model.config.to_dict()
    with pytest.raises(senet.SenetError, match="missing in the file"):
        senet.weights.load(model, path)


def test_a_file_that_names_no_block_is_refused(tmp_path: Path) -> None:
    model: Any = senet.build("se_resnet20")
    model.config = dataclasses.replace(model.config, folded=("layer9.0.se",))
    senet.weights.save(model, tmp_path / "odd.safetensors")
    with pytest.raises(senet.SenetError, match=r"without the block 'layer9.0.se'"):
        senet.load(tmp_path / "odd.safetensors")


def test_other_libraries_have_no_such_network(tmp_path: Path) -> None:
    with torch.device("meta"):
        folded = senet.fold_gates(senet.build("se_resnet18"), {"layer4.1.se": 1.0})
    with pytest.raises(senet.SenetError, match="it has SE in every unit"):
        senet.weights.save(folded, tmp_path / "timm.safetensors", layout="timm")


def test_a_network_of_ours_inside_another_knows_it_too() -> None:
    model: Any = nn.Sequential(basic(), nn.Softmax(1))
    folded: Any = senet.fold_gates(model, {"0.layer2.0.se": 0.5})
    assert folded[0].config.folded == ("layer2.0.se",)
    assert model[0].config.folded == ()


def test_insertion_and_acceleration_go_on_from_there(tmp_path: Path) -> None:
    model = senet.build("se_resnet20", num_classes=4, stages=(3,), placement="identity").eval()
    folded: Any = senet.fold_gates(model, {"layer2.0.se": 1.0, "layer2.1.se": 0.5})
    assert len(senet.accelerate(folded)) == 1
    assert len(senet.accelerate(folded, backend="reference")) == 1
    found = senet.plan(folded, where=3)
    assert [site.block for site in found] == ["layer2.0.se"]
    assert "1 x a constant scale is in the block's place" in found.reasons
    x = torch.randn(2, 3, 16, 16)
    before = folded(x)
    senet.insert(folded, found)
    assert torch.equal(folded(x), before)
    senet.remove(folded)
    senet.weights.save(folded, tmp_path / "folded.safetensors")
    torch.testing.assert_close(senet.load(tmp_path / "folded.safetensors")(x), before)


def test_a_constant_scale_of_an_inserted_block_is_part_of_no_network_of_ours(tmp_path: Path) -> None:
    model: Any = senet.build("resnet20", num_classes=4).eval()
    senet.insert(model, init="random", placement="identity", where="layer2.*")
    folded: Any = senet.fold_gates(model, drawn(model))
    assert folded.config == model.config
    path = tmp_path / "folded.safetensors"
    senet.weights.save(folded, path)
    assert "network" not in senet.weights.read(path)[0]
    other = senet.fold_gates(model, dict.fromkeys(blocks_of(model), 0.5))
    senet.weights.load(other, path)
    x = torch.randn(2, 3, 16, 16)
    assert torch.equal(other(x), folded(x))
    with pytest.raises(InsertionError, match="no block in it was put there"):
        senet.remove(folded)


def test_copies_and_pickles_of_it_are_their_own(tmp_path: Path) -> None:
    folded = senet.fold_gates(inserted("identity"), {"units.0.se": 0.5, "units.2.se": 0.5}).eval()
    torch.save(folded, tmp_path / "folded.pt")
    again = torch.load(tmp_path / "folded.pt", weights_only=False)
    x = torch.randn(2, 3, 16, 16)
    before = folded(x)
    assert torch.equal(again(x), before)
    assert torch.equal(copy.deepcopy(folded)(x), before)
    for module in again.modules():
        if isinstance(module, ConstantScale):
            module.s.zero_()
    assert torch.equal(folded(x), before)
    assert not torch.equal(again(x), before)


def test_the_report_saves(tmp_path: Path) -> None:
    _, report = fold(basic(), {"layer1.0.se": 0.5})
    report.save(tmp_path / "folded.md")
    assert "output of layer1.0.bn2" in (tmp_path / "folded.md").read_text()
    assert str(report).startswith("ResNet: folded 1 SE block, ")


def test_a_block_of_ours_in_somebodys_code_becomes_an_identity() -> None:
    model: Any = nn.Sequential(nn.Conv2d(3, 8, 3), SqueezeExcitation(8, 4), nn.ReLU()).double().eval()
    folded: Any = senet.fold_gates(model, {"1": 0.5})
    assert isinstance(folded[1], nn.Identity)
    assert not folded[1].training
    x = images("sequence")
    torch.testing.assert_close(folded(x), held(model, {"1": 0.5})(x))
