import copy
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from tests.acceleration.held import stirred
from tests.acceleration.networks import NETWORKS as SMALL
from tests.acceleration.networks import images
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn
from torch.utils.checkpoint import checkpoint

import senet
from senet.errors import AccelerationError, InsertionError, OptionError, TraceError


def _quiet(model: Any) -> Any:
    """Without what is drawn at random in training, and with norms that pass something on."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
        for name, kind in (("p", nn.Dropout), ("drop_prob", nn.Module), ("drop_rate", nn.Module)):
            if isinstance(module, kind) and hasattr(module, name):
                setattr(module, name, 0.0)
        if isinstance(module, torchvision.ops.StochasticDepth):
            module.p = 0.0
    return model


def _inserted(name: str) -> nn.Module:
    model = timm.create_model(name, num_classes=3)
    senet.insert(model, init="random")
    return model


def _stage() -> Any:
    """A small network of timm's units."""
    stage: Any = timm.create_model("seresnet18").get_submodule("layer1")
    return _quiet(nn.Sequential(nn.Conv2d(3, 64, 1), stage, nn.AdaptiveAvgPool2d(1), nn.Flatten()))


def _step(model: nn.Module, x: Tensor) -> list[Tensor]:
    """Scores, gradients and buffers of a step."""
    model.zero_grad()
    scores = model(x)
    scores.square().sum().backward()
    grads = [each.grad for each in model.parameters() if each.grad is not None]
    return [scores.detach(), *grads, *(each.clone() for each in model.buffers())]


def _close(found: list[Tensor], wanted: list[Tensor], bound: float = 1e-9) -> bool:
    largest = max(each.abs().max().item() for each in wanted)
    return all(
        (one - other).abs().max().item() <= bound * largest for one, other in zip(found, wanted, strict=True)
    )


NETWORKS = {
    "seresnet": lambda: timm.create_model("seresnet18", num_classes=3),
    "legacy": lambda: timm.create_model("legacy_seresnet18", num_classes=3, drop_rate=0.0),
    "efficientnet": lambda: timm.create_model("efficientnet_b0", num_classes=3),
    "mobilenetv3": lambda: timm.create_model("mobilenetv3_small_075", num_classes=3),
    "regnety": lambda: timm.create_model("regnety_002", num_classes=3),
    "torchvision mobilenet": lambda: torchvision.models.mobilenet_v3_small(num_classes=3),
    "torchvision regnet": lambda: torchvision.models.regnet_y_400mf(num_classes=3),
    "inserted": lambda: _inserted("resnet18"),
    "ours": lambda: senet.build("se_resnet20", num_classes=3),
}


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_keys_and_numbers_stay(name: str) -> None:
    model = _quiet(NETWORKS[name]()).double().to(memory_format=torch.channels_last)
    fast = copy.deepcopy(model)
    report = senet.accelerate(fast, backend="composite")
    assert len(report) == len(report.rows) > 0
    assert list(fast.state_dict()) == list(model.state_dict())
    # Maps of a single position would leave norms three numbers to take their statistics from.
    size = 64 if "regnet" in name else 32
    x = torch.randn(3, 3, size, size, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    # PyTorch's own derivative of the hard sigmoid takes its 1/6 in single precision.
    bound = 1e-6 if "mobilenet" in name else 1e-9
    assert _close(_step(fast, x), _step(model, x), bound)
    model.eval()
    fast.eval()
    torch.testing.assert_close(fast(x), model(x))
    # And a second step, of the same modules.
    assert _close(_step(fast.train(), x), _step(model.train(), x), bound)
    senet.accelerate(fast, backend="reference")
    assert not any("forward" in module.__dict__ for module in fast.modules())
    assert _close(_step(fast, x), _step(model, x))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "timm:seresnet50", "timm:seresnext50_32x4d", "timm:legacy_seresnet50",
        "timm:legacy_seresnext50_32x4d", "timm:legacy_senet154", "timm:senet154",
        "timm:efficientnet_b1", "timm:tf_efficientnet_b0",
        "timm:efficientnetv2_rw_t", "timm:mobilenetv3_large_100", "timm:regnety_032",
        "torchvision:efficientnet_b1", "torchvision:mobilenet_v3_large", "torchvision:regnet_y_800mf",
    ],
)  # fmt: skip
def test_the_families_as_they_are(name: str) -> None:
    model = _quiet(senet.load(name)).double()
    fast = copy.deepcopy(model)
    report = senet.accelerate(fast, backend="composite")
    assert len(report) == len(report.rows) > 0
    assert all("batch norm" in row["what"] for row in report.rows)
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    assert _close(_step(fast, x), _step(model, x), 1e-6)


def test_the_report_says_what_was_taken_and_why_not(tmp_path: Path) -> None:
    model: Any = timm.create_model("seresnet18")
    model.layer1[0].se.register_forward_hook(lambda *_: None)
    report = senet.accelerate(model)
    assert str(report).splitlines() == [
        "ResNet: 7 of 8 SE modules accelerated (auto)",
        "    7 x batch norm + SE + sum + relu",
        "    1 x left alone: hooks are attached to it",
    ]
    report.save(tmp_path / "report.csv")
    assert (tmp_path / "report.csv").read_text().startswith("block,taken,what\nlayer1.0.se,False,hooks")
    undone = senet.accelerate(model, backend="reference")
    assert str(undone).splitlines()[0] == "ResNet: 7 of 7 SE modules back to layer by layer"


def test_drop_path_is_the_same_in_distribution_and_in_numbers() -> None:
    model = timm.create_model("seresnet18", num_classes=3, drop_path_rate=0.5).double()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
    fast = copy.deepcopy(model)
    senet.accelerate(fast, backend="composite")
    x = torch.randn(4, 3, 32, 32, dtype=torch.float64)
    steps = []
    for each in (model, fast):
        torch.manual_seed(5)
        steps.append(_step(each, x))
    assert _close(steps[1], steps[0])


@pytest.mark.parametrize("strict", [pytest.param(True, marks=pytest.mark.slow), False])
def test_compilers_and_exporters_see_plain_operations(strict: bool) -> None:
    model = _stage().double()
    fast = copy.deepcopy(model)
    senet.accelerate(fast)
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    if strict:
        compiled = torch.compile(copy.deepcopy(fast), backend="aot_eager", fullgraph=True)
        assert _close(_step(compiled, x), _step(copy.deepcopy(model), x))  # type: ignore[arg-type]
    exported = torch.export.export(fast.eval(), (x,), strict=strict)
    torch.testing.assert_close(exported.module()(x), model.eval()(x))
    assert not any("senet" in str(node.target) for node in exported.graph.nodes)


def test_checkpointing_functional_calls_and_autocast() -> None:
    model = _stage()
    fast = copy.deepcopy(model)
    senet.accelerate(fast, backend="composite")
    x = torch.randn(2, 3, 32, 32)
    wanted = model.eval()(x)
    torch.testing.assert_close(checkpoint(fast.eval(), x, use_reentrant=False), wanted)
    doubled = {name: each * 2 for name, each in fast.named_parameters()}
    torch.testing.assert_close(
        torch.func.functional_call(fast, doubled, (x,)),
        torch.func.functional_call(model, doubled, (x,)),
        rtol=1e-4,
        atol=1e-4,
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        halved = fast(x)
    assert halved.dtype == torch.bfloat16
    torch.testing.assert_close(halved.float(), wanted, rtol=0.05, atol=0.05)
    senet.accelerate(fast)
    grads = torch.func.grad(lambda given: torch.func.functional_call(fast, given, (x,)).square().sum())(
        dict(fast.named_parameters())
    )
    model(x).square().sum().backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(grads[name], parameter.grad, rtol=1e-3, atol=1e-4)


def test_a_unit_used_twice() -> None:
    unit = timm.create_model("seresnet18").get_submodule("layer1.0")
    model = nn.Sequential(nn.Conv2d(3, 64, 1), unit, unit).double()
    fast = copy.deepcopy(model)
    assert len(senet.accelerate(fast, backend="composite")) == 1
    x = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    assert _close(_step(fast, x), _step(model, x))


def test_a_plan_of_an_accelerated_network_is_that_of_the_network() -> None:
    model: Any = timm.create_model("seresnet18")
    before = str(senet.plan(model))
    senet.accelerate(model)
    assert str(senet.plan(model)) == before
    assert len(senet.accelerate(model)) == 8


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("basic", {"all that its unit computes with it": 3}),
        ("bottlenecks", {"all that its unit computes with it": 3}),
        ("bottlenecks post", {"all that its unit computes with it": 3}),
        ("inserted", {"all that its unit computes with it": 2, "SE + sum + relu": 1}),
        ("timm byobnet", {"SE + sum + relu": 2, "SE": 1}),
    ],
)
def test_simplified_networks_are_accelerated(name: str, wanted: dict[str, int]) -> None:
    """SE that no convolution could take in, and what follows one that did."""
    model = stirred(SMALL[name]()).eval()
    simple, x = senet.simplify(model), images(name)
    report = senet.accelerate(simple, backend="composite")
    assert Counter(row["what"] for row in report.rows) == wanted
    assert len(report) == len(report.rows)
    with torch.no_grad():
        torch.testing.assert_close(simple(x), model(x), rtol=1e-10, atol=1e-10)
        assert len(senet.accelerate(simple, backend="reference")) == len(report)
        torch.testing.assert_close(simple(x), model(x), rtol=1e-10, atol=1e-10)


def test_blocks_are_removed_after_acceleration_is_undone() -> None:
    model = timm.create_model("resnet18")
    keys = list(model.state_dict())
    senet.insert(model)
    senet.accelerate(model)
    with pytest.raises(InsertionError, match="backend='reference'"):
        senet.remove(model)
    senet.accelerate(model, backend="reference")
    assert len(senet.remove(model)) == 8
    assert list(model.state_dict()) == keys


def test_nothing_to_do_is_an_error_and_changes_nothing() -> None:
    plain = timm.create_model("resnet18")
    with pytest.raises(AccelerationError, match="no channel attention"):
        senet.accelerate(plain)
    model: Any = timm.create_model("seresnet18")
    senet.accelerate(model, backend="composite")
    with pytest.raises(OptionError, match="Did you mean 'triton'"):
        senet.accelerate(model, backend="trito")
    with pytest.raises(TraceError):
        senet.accelerate(model, example=torch.randn(2, 7, 32, 32))
    assert model.layer1[0].se.forward.backend == "composite"
    with pytest.raises(InsertionError, match="compiled"):
        senet.accelerate(torch.compile(model))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("precision", "bound"), [(torch.float64, 1e-9), (torch.float32, 1e-5), (torch.bfloat16, 1e-2)]
)
def test_training_goes_the_same_way(precision: torch.dtype, bound: float) -> None:
    # Under autocast parameters and images are float32.
    wide = torch.float64 if precision is torch.float64 else torch.float32
    model = senet.build("se_resnet20", num_classes=4).to(wide).to(memory_format=torch.channels_last)
    fast = copy.deepcopy(model)
    senet.accelerate(model, backend="reference")
    x = torch.randn(32, 3, 16, 16, dtype=wide).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(4, (32,))
    losses = []
    for each in (model, fast):
        optimizer = torch.optim.SGD(each.parameters(), lr=2e-4, momentum=0.9)
        for _ in range(32):
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision is torch.bfloat16):
                scores = each(x)
            loss = nn.functional.cross_entropy(scores.to(wide), labels)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    torch.testing.assert_close(losses[32:], losses[:32], rtol=bound, atol=0)
    for one, other in zip(fast.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=bound, atol=5e-3)
    assert losses[31] < losses[0]


def _with_fixed_norms() -> Any:
    """A stage whose norms outside the tails are fixed: PyTorch's synchronised ones refuse the CPU."""
    torch.manual_seed(0)
    stage = _stage().double()
    for name, module in stage.named_modules():
        module.train(not name.endswith("bn1"))
    return stage


X = torch.randn(4, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def _distributed(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    part = X[2 * rank : 2 * rank + 2]
    shared = _with_fixed_norms()
    for unit in shared[1]:
        unit.bn2 = nn.SyncBatchNorm.convert_sync_batchnorm(unit.bn2)
    taken = len(senet.accelerate(shared, backend="composite"))
    shared(part).square().mean().backward()
    for each in shared.parameters():
        # By hand: DistributedDataParallel takes no synchronised norm on the CPU.
        torch.distributed.all_reduce(each.grad)
        each.grad /= 2
    fixed = _with_fixed_norms().eval()
    senet.accelerate(fixed, backend="composite")
    parallel = nn.parallel.DistributedDataParallel(fixed)
    parallel(part).square().mean().backward()
    if rank == 0:
        found = [[each.grad for each in model.parameters()] for model in (shared, fixed)]
        torch.save([taken, *found, list(shared.buffers())], Path(folder) / "found.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_are_one(tmp_path: Path) -> None:
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    spawn(_distributed, (str(tmp_path),), nprocs=2)
    taken, shared, fixed, buffers = torch.load(tmp_path / "found.pt", weights_only=True)
    assert taken == 2
    model = _with_fixed_norms()
    model(X).square().mean().backward()
    torch.testing.assert_close(shared, [each.grad for each in model.parameters()])
    torch.testing.assert_close(buffers, list(model.buffers()))
    model = _with_fixed_norms().eval()
    model(X).square().mean().backward()
    torch.testing.assert_close(fixed, [each.grad for each in model.parameters()])
