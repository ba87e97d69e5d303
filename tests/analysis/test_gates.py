import csv
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.analysis.gated import network

import senet
from senet.analysis.gates import BINS, BlockGates
from senet.errors import OptionError, RecordingError


@given(
    sizes=st.lists(st.integers(0, 7), min_size=1, max_size=6),
    channels=st.integers(1, 5),
    offset=st.sampled_from([0.0, 1e6]),
    seed=st.integers(0, 1000),
)
def test_streamed_statistics_are_those_of_all_at_once(
    sizes: list[int], channels: int, offset: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    chunks = [torch.rand(n, channels, generator=generator, dtype=torch.float64) + offset for n in sizes]
    found = BlockGates("b", channels)
    for chunk in chunks:
        found.update(chunk)
    s = torch.cat(chunks)
    assert found.count == len(s)
    if len(s):
        torch.testing.assert_close(found.mean, s.mean(0), rtol=1e-12, atol=0)
        torch.testing.assert_close(found.std, s.std(0, correction=0), rtol=1e-6, atol=1e-9)
        assert found.spread == pytest.approx(s.std(correction=0).item(), rel=1e-6, abs=1e-9)
        assert (found.low, found.high) == (s.min().item(), s.max().item())
    assert found.histogram.sum() == s.numel()


def test_the_histogram() -> None:
    found = BlockGates("b", 4)
    found.update(torch.tensor([[0.0, 0.049, 0.5, 1.0], [-3.0, 0.051, 2.0, 0.999]]))
    assert {index: count for index, count in enumerate(found.histogram.tolist()) if count} == {
        0: 3,
        1: 1,
        BINS // 2: 1,
        BINS - 1: 3,
    }


def test_recording_changes_nothing_and_leaves_nothing() -> None:
    model = senet.build("se_resnet20").eval()
    x = torch.randn(6, 3, 32, 32)
    wanted = model(x)
    with senet.record_gates(model) as gates:
        assert torch.equal(model(x[:4]), model(x)[:4])
        model(x[4:])
    assert torch.equal(model(x), wanted)
    blocks = [m for m in model.modules() if isinstance(m, senet.SqueezeExcitation)]
    assert not any(block._gate_hooks for block in blocks)
    assert len(gates) == len(blocks) == 9
    assert gates["layer1.0.se"].count == 12
    assert gates["layer3.2.se"].channels == 64


def test_the_recorded_gates_are_the_networks() -> None:
    model = senet.build("se_resnet20").eval()
    maps: list[torch.Tensor] = []
    block = model.get_submodule("layer2.1.se")
    assert isinstance(block, senet.SqueezeExcitation)
    handle = block.register_forward_pre_hook(lambda _, args: maps.append(args[0]))
    with torch.no_grad():
        with senet.record_gates(model) as gates:
            model(torch.randn(5, 3, 32, 32))
        handle.remove()
        s = block.gate(maps[0]).double()
    torch.testing.assert_close(gates["layer2.1.se"].mean, s.mean(0))
    torch.testing.assert_close(gates["layer2.1.se"].std, s.std(0, correction=0))


def test_gates_that_are_not_numbers_are_not_hidden() -> None:
    found = BlockGates("b", 2)
    found.update(torch.tensor([[0.5, float("nan")]]))
    found.update(torch.tensor([[0.5, 0.25]]))
    assert found.histogram.sum() == 3
    assert found.mean[1].isnan()
    assert found.low != found.low
    assert found.high != found.high


def test_hooks_end_when_the_model_raises() -> None:
    model = senet.build("se_resnet20")
    with pytest.raises(RuntimeError), senet.record_gates(model):
        model(torch.zeros(1, 5, 32, 32))
    assert not any(m._gate_hooks for m in model.modules() if isinstance(m, senet.SqueezeExcitation))


def test_nothing_recorded_is_an_error() -> None:
    with (
        pytest.raises(RecordingError, match="no SE block ran"),
        senet.record_gates(senet.build("se_resnet20")),
    ):
        pass
    with pytest.raises(OptionError, match="no SE block"), senet.record_gates(senet.build("resnet20")):
        pass


def test_rows_print_and_save(tmp_path: Path) -> None:
    model = senet.build("se_resnet20").eval()
    with senet.record_gates(model) as gates, torch.no_grad():
        model(torch.randn(2, 3, 32, 32))
    assert [row["block"] for row in gates.rows][:2] == ["layer1.0.se", "layer1.1.se"]
    assert "layer3.2.se" in str(gates)
    gates.save(tmp_path / "gates.csv")
    with (tmp_path / "gates.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 9


def test_threads_lose_no_gate() -> None:
    model, x = network("functional")
    with senet.record_gates(model) as gates, torch.no_grad(), ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: _without_gradient(model, x), range(40)))
    (block,) = gates
    assert block.count == 40 * len(x)
    with senet.record_gates(model) as one, torch.no_grad():
        model(x)
    torch.testing.assert_close(block.mean, next(iter(one)).mean)


def _without_gradient(model: torch.nn.Module, x: torch.Tensor) -> None:
    with torch.no_grad():
        model(x)


def test_within_inference_mode_blocks_of_others_are_found_too() -> None:
    model, x = network("torchvision")
    with torch.inference_mode(), senet.record_gates(model) as gates:
        model(x)
    assert {block.count for block in gates} == {len(x)}


def test_transforms_that_show_no_numbers_are_an_error() -> None:
    model = senet.build("se_resnet20").eval()
    with pytest.raises(RecordingError, match=r"torch\.func"), senet.record_gates(model):
        torch.func.vmap(model)(torch.randn(2, 1, 3, 32, 32))


@pytest.mark.gpu
@torch.no_grad()
def test_on_a_gpu_the_gates_are_those_of_the_cpu() -> None:
    for kind in ("ours", "inserted", "torchvision"):
        model, x = network(kind, accelerated=kind != "ours")
        with senet.record_gates(model) as wanted:
            model(x)
        model.cuda()
        with senet.record_gates(model) as gates:
            model(x.cuda())
        for block, expected in zip(gates, wanted, strict=True):
            torch.testing.assert_close(block.mean, expected.mean, rtol=1e-3, atol=1e-4)
