import copy
import os
import pickle
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from tests.networks import Bottleneck, DataDependent, Mixture, Net, Resnet1d, TwoInputs, Unit
from torch import Tensor, nn

import senet
from senet.errors import InsertionError, OptionError
from senet.insertion.placement import PLACEMENTS


def _net() -> Net:
    return Net(Bottleneck(16, 32, 2), Bottleneck(32, 32), Bottleneck(32, 32), leaving=32).eval()


def _open(model: nn.Module) -> None:
    """Gives every inserted block gates of its own."""
    for module in model.modules():
        if isinstance(module, senet.SqueezeExcitation):
            nn.init.normal_(module.fc2.weight)


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_outputs_are_the_same_bits_and_keys_stay(placement: str) -> None:
    model, x = _net(), torch.randn(2, 3, 16, 16)
    before, state = model(x), copy.deepcopy(model.state_dict())
    report = senet.insert(model, placement=placement, reduction=4, example=x)
    assert torch.equal(model(x), before)
    assert report.largest_change == 0
    assert "largest change of the output: 0" in str(report)
    assert len(report) == 3
    added = [key for key in model.state_dict() if key not in state]
    assert [key for key in model.state_dict() if key in state] == list(state)
    assert len(added) == 3 * 5
    assert all(".se." in key for key in added)
    assert report.parameters == sum(each.numel() for name, each in model.named_parameters() if ".se." in name)
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert unexpected == []
    assert set(missing) == set(added)
    _open(model)
    assert not torch.equal(model(x), before)


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_remove_restores_the_model(placement: str) -> None:
    model, x = _net(), torch.randn(2, 3, 16, 16)
    before, keys = model(x), list(model.state_dict())
    attributes = {name: set(module.__dict__) for name, module in model.named_modules()}
    senet.insert(model, placement=placement, reduction=4)
    _open(model)
    clone = copy.deepcopy(model)
    assert len(senet.remove(model)) == 3
    assert torch.equal(model(x), before)
    assert list(model.state_dict()) == keys
    for name, module in model.named_modules():
        assert set(module.__dict__) == attributes[name]
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
    assert not torch.equal(clone(x), before), "the copy keeps its own"
    senet.remove(clone)
    assert torch.equal(clone(x), before)
    with pytest.raises(InsertionError, match=r"no block in it was put there by senet\.insert"):
        senet.remove(model)


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_inserting_is_building(placement: str) -> None:
    """The commuting square: a plain network with SE inserted is the SE network."""
    se = {"reduction": 8, "gate": "relu" if placement == "3x3" else "sigmoid", "init": "random"}
    config = senet.SEConfig.from_dict(se)
    options = {"num_classes": 3, "placement": placement, "stages": (3, 4)}
    built = senet.build("resnet50", se=config, **options).eval().double()  # type: ignore[arg-type]
    plain = senet.build("resnet50", num_classes=3).eval().double()
    senet.insert(plain, placement=placement, where=[3, 4], **se)  # type: ignore[arg-type]
    assert list(plain.state_dict()) == list(built.state_dict())
    plain.load_state_dict(built.state_dict())
    x = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        assert torch.equal(plain(x), built(x))
    with pytest.raises(InsertionError, match="takes none of the 6 places"):
        senet.insert(plain, placement=placement, where=lambda site: site.stage in (3, 4))


def test_a_hook_gates_what_a_unit_of_ours_gates_itself() -> None:
    """The same weights in torchvision's network, by hooks, and in ours, by its own code."""
    theirs, ours = torchvision.models.resnet18(num_classes=5), senet.build("resnet18", num_classes=5)
    ours.load_state_dict(theirs.state_dict())
    for placement in ("standard", "pre", "post", "identity"):
        for model in (theirs, ours):
            senet.insert(model.eval(), placement=placement)
        _open(ours)
        theirs.load_state_dict(ours.state_dict())
        x = torch.randn(2, 3, 64, 64)
        with torch.no_grad():
            torch.testing.assert_close(theirs(x), ours(x), rtol=1e-4, atol=1e-4)
        for model in (theirs, ours):
            senet.remove(model)


def test_a_checkpoint_of_the_one_loads_into_another(tmp_path: Path) -> None:
    first, second, x = _net(), _net(), torch.randn(2, 3, 16, 16)
    for model in (first, second):
        senet.insert(model, reduction=4)
    _open(first)
    senet.weights.save(first, tmp_path / "w.safetensors")
    senet.weights.load(second, tmp_path / "w.safetensors")
    assert torch.equal(first(x), second(x))


def test_it_trains() -> None:
    model = _net().train()
    senet.insert(model, reduction=4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        model(torch.randn(4, 3, 16, 16)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    blocks = [module for module in model.modules() if isinstance(module, senet.SqueezeExcitation)]
    assert all(bool(block.fc2.weight.any()) for block in blocks), "they have left the identity"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_dtypes_and_memory_formats(dtype: torch.dtype, memory_format: torch.memory_format) -> None:
    model = _net().to(dtype=dtype).to(memory_format=memory_format)
    x = torch.randn(2, 3, 16, 16).to(dtype=dtype, memory_format=memory_format)
    before = model(x)
    report = senet.insert(model, reduction=4, example=x)
    assert torch.equal(model(x), before)
    assert report.largest_change == 0
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}


def test_autocast() -> None:
    model, x = _net(), torch.randn(2, 3, 16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        before = model(x)
        senet.insert(model, reduction=4)
        assert torch.equal(model(x), before)


def test_on_meta_and_then_with_memory() -> None:
    with torch.device("meta"):
        model = _net()
    senet.insert(model, reduction=4)
    assert all(parameter.is_meta for parameter in model.parameters())
    real = _net()
    senet.insert(real, reduction=4)
    model.load_state_dict(real.state_dict(), assign=True)
    x = torch.randn(2, 3, 16, 16)
    assert torch.equal(model.eval()(x), real(x))


def test_modes_and_frozen_parameters_stay() -> None:
    model = _net().train()
    model.units[0].eval()
    model.requires_grad_(False)
    senet.insert(model, reduction=4)
    assert [model.units[k].get_submodule("se").training for k in range(2)] == [False, True]
    assert {name for name, each in model.named_parameters() if each.requires_grad} == {
        name for name, _ in model.named_parameters() if ".se." in name
    }


def test_hooks_that_are_there_go_on() -> None:
    model, seen = _net(), []
    model.get_submodule("units.0.b3").register_forward_hook(lambda *args: seen.append(args))
    senet.insert(model, reduction=4)
    assert seen == [], "planning shows them nothing"
    _open(model)
    model(torch.randn(2, 3, 16, 16))
    assert len(seen) == 1
    senet.remove(model)
    model(torch.randn(2, 3, 16, 16))
    assert len(seen) == 2


def test_copies_pickles_and_exponential_averages_are_independent() -> None:
    model, x = _net(), torch.randn(2, 3, 16, 16)
    senet.insert(model, placement="identity", reduction=4)
    _open(model)
    wanted = model(x)
    average = torch.optim.swa_utils.get_ema_multi_avg_fn(0.5)
    averaged = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=average)
    pickled = pickle.loads(pickle.dumps(model))
    averaged.update_parameters(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    assert torch.equal(averaged(x), wanted)
    assert torch.equal(pickled(x), wanted)


# Raised, and hidden, inside the compiler.
@pytest.mark.filterwarnings("ignore:The .grad attribute")
@pytest.mark.parametrize("placement", ["standard", "identity", "3x3"])
def test_compile_and_export(placement: str) -> None:
    model, x = _net(), torch.randn(2, 3, 16, 16)
    senet.insert(model, placement=placement, reduction=4)
    _open(model)
    wanted = model(x)
    torch.testing.assert_close(torch.compile(model, fullgraph=True, backend="aot_eager")(x), wanted)
    exported = torch.export.export(model, (x,), strict=False)
    torch.testing.assert_close(exported.module()(x), wanted)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_onnx(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    model, x = _net(), torch.randn(2, 3, 16, 16)
    senet.insert(model, reduction=4)
    _open(model)
    torch.onnx.export(model, (x,), tmp_path / "m.onnx", dynamo=True)
    session = runtime.InferenceSession(tmp_path / "m.onnx")
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), model(x), rtol=1e-4, atol=1e-4)


def test_data_parallel_training_counts_the_new_parameters() -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="29531")
    torch.distributed.init_process_group("gloo", rank=0, world_size=1)
    try:
        model = _net().train()
        senet.insert(model, reduction=4)
        wrapped = nn.parallel.DistributedDataParallel(model)
        wrapped(torch.randn(4, 3, 16, 16)).square().sum().backward()
        assert all(parameter.grad is not None for parameter in model.parameters())
        with pytest.raises(InsertionError, match="wrapped for parallel training"):
            senet.insert(wrapped)
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_in_each_dimension(dimensions: int) -> None:
    model, x = Resnet1d(dimensions).eval(), torch.randn(2, 3, *(6,) * dimensions)
    before = model(x)
    report = senet.insert(model, reduction=4, example=x)
    assert (len(report), report.largest_change) == (1, 0)
    assert torch.equal(model(x), before)


def test_networks_that_need_numbers_or_several_inputs() -> None:
    model = Net(DataDependent())
    assert senet.insert(model, example=torch.randn(1, 3, 8, 8)).largest_change == 0
    parts = TwoInputs()
    assert [row["block"] for row in senet.insert(parts).rows] == ["backbone.units.0.se"]
    both = TwoInputs()
    assert senet.insert(both, example=(torch.randn(1, 3, 8, 8), torch.tensor([1]))).largest_change == 0


def test_comparing_outputs_leaves_buffers_and_random_numbers() -> None:
    class Counts(Net):
        def forward(self, x: Tensor) -> Tensor:
            self.get_buffer("runs").add_(1)
            return super().forward(x)

    model = Counts(DataDependent())
    model.register_buffer("runs", torch.zeros(()))
    x, state = torch.randn(1, 3, 8, 8), torch.random.get_rng_state()
    senet.plan(model)
    assert torch.equal(torch.random.get_rng_state(), state)
    senet.insert(model, example=x)
    assert model.get_buffer("runs") == 0


def test_a_new_tensor_at_the_start_of_a_branch_is_an_error_not_a_wrong_gate() -> None:
    class Drops(Unit):
        def forward(self, x: Tensor) -> Tensor:
            branch: Tensor = self.c2(self.c1(nn.functional.dropout(x, 0.5, self.training)).relu())
            return x + branch

    model = Net(Drops())
    senet.insert(model, placement="identity")
    model.eval()(torch.randn(1, 3, 8, 8))
    with pytest.raises(InsertionError, match=r"a new tensor was made, as by dropout.*senet\.remove"):
        model.train()(torch.randn(1, 3, 8, 8))


def test_an_example_without_numbers_is_not_compared() -> None:
    report = senet.insert(_net(), reduction=4, example=torch.empty(1, 3, 16, 16, device="meta"))
    assert report.largest_change is None
    assert "not compared" in str(report)


def test_two_branches_get_a_block_each() -> None:
    model, x = Net(Mixture(together=False)).eval(), torch.randn(1, 3, 8, 8)
    before = model(x)
    assert len(senet.insert(model)) == 2
    assert torch.equal(model(x), before)
    assert len(senet.remove(model)) == 2


class TestOptimizer:
    def test_parameters_join_the_groups_of_their_unit(self) -> None:
        model = _net()
        groups = [
            {"params": [p for p in unit.parameters() if (p.ndim > 1) is matrix], "name": f"{k}{matrix}"}
            for k, unit in enumerate(model.units)
            for matrix in (True, False)
        ]
        optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
        senet.insert(model, reduction=4, optimizer=optimizer)
        assert len(optimizer.param_groups) == 6
        for group in optimizer.param_groups:
            block = model.units[int(group["name"][0])].get_submodule("se")
            own = {id(p) for p in block.parameters() if (p.ndim > 1) is (group["name"][1:] == "True")}
            assert own
            assert own <= {id(p) for p in group["params"]}
        model.train()(torch.randn(4, 3, 16, 16)).square().sum().backward()
        optimizer.step()
        scheduler.step()

    def test_a_frozen_units_block_joins_the_first_group(self) -> None:
        model = _net().requires_grad_(False)
        optimizer = torch.optim.AdamW(model.fc.requires_grad_(True).named_parameters(), lr=0.3)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.5)
        senet.insert(model, reduction=4, optimizer=optimizer)
        (group,) = optimizer.param_groups
        assert {id(p) for p in model.parameters() if p.requires_grad} == {id(p) for p in group["params"]}
        assert len(group["param_names"]) == len(group["params"])
        optimizer.step()
        scheduler.step()

    def test_what_is_no_optimizer_changes_nothing(self) -> None:
        model = _net()
        keys = list(model.state_dict())
        with pytest.raises(OptionError, match=r"Allowed: a torch\.optim\.Optimizer"):
            senet.insert(model, reduction=4, optimizer=model.parameters())  # type: ignore[arg-type]
        assert list(model.state_dict()) == keys


class TestRefusals:
    def test_twice(self) -> None:
        model = _net()
        found = senet.plan(model, reduction=4)
        senet.insert(model, found)
        keys = list(model.state_dict())
        with pytest.raises(InsertionError, match="channel attention is there already"):
            senet.insert(model, reduction=4)
        with pytest.raises(InsertionError, match=r"units\.0\.se exists already"):
            senet.insert(model, found)
        assert list(model.state_dict()) == keys

    @pytest.mark.parametrize("name", ["vit_b_16", "swin_t"])
    def test_transformers(self, name: str) -> None:
        with torch.device("meta"):
            model = torchvision.models.get_model(name, weights=None)
        with pytest.raises(InsertionError, match=r"no place for SE in it.*linear layers or tokens"):
            senet.insert(model)

    def test_all_have_it(self) -> None:
        with pytest.raises(InsertionError, match="16 x channel attention is there already"):
            senet.insert(timm.create_model("efficientnet_b0"))

    def test_a_width_of_zero(self) -> None:
        model = Net(Unit(8), channels=8, leaving=8)
        with pytest.raises(InsertionError, match=r"1 places have fewer channels.*units\.0 \(8\).*at most 8"):
            senet.insert(model)
        assert senet.insert(model, hidden=2).parameters == 2 * 8 * 2 + 10

    def test_a_plan_of_another_network(self) -> None:
        with pytest.raises(InsertionError, match="this one has none"):
            senet.insert(_net(), senet.plan(torchvision.models.resnet18()))

    def test_a_placement_beside_a_plan(self) -> None:
        model = _net()
        with pytest.raises(OptionError, match="the plan is for 'standard'"):
            senet.insert(model, senet.plan(model), placement="pre")

    def test_a_failure_half_way_leaves_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        model, x = _net(), torch.randn(2, 3, 16, 16)
        keys, before = list(model.state_dict()), model(x)
        monkeypatch.setattr("senet.insertion.surgery._check_runs", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            senet.insert(model, reduction=4)
        assert list(model.state_dict()) == keys
        assert torch.equal(model(x), before)
        assert not any(module._forward_hooks for module in model.modules())

    def test_a_unit_that_runs_whatever_it_holds(self) -> None:
        class RunsAll(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.a = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(16))

            def forward(self, x: Tensor) -> Tensor:
                y = x
                for child in self.children():
                    y = child(y)
                return x + y

        model = Net(RunsAll())
        keys = list(model.state_dict())
        with pytest.raises(InsertionError, match="would run 2 times, not once"):
            senet.insert(model)
        assert list(model.state_dict()) == keys


def test_a_plan_is_filtered_and_its_options_overridden() -> None:
    model = _net()
    found = senet.plan(model, reduction=4).filter("units.[01]")
    report = senet.insert(model, found, reduction=2, where=lambda site: site.unit == "units.1")
    assert [(row["block"], row["hidden"]) for row in report.rows] == [("units.1.se", 16)]
