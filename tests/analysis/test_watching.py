from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.analysis.gated import attached, network
from torch import Tensor, distributed, nn

import senet
from senet.analysis.sites import find_gates
from senet.analysis.watching import holding, sites_of, unwrapped, watching
from senet.errors import OptionError, RecordingError, ShapeError


@torch.no_grad()
def test_the_order_is_that_of_the_run_and_nothing_stays() -> None:
    for kind in ("ours", "torchvision"):
        model, x = network(kind)
        before = attached(model)
        names: list[str] = []
        with watching(model, lambda name, s, names=names: names.append(name)) as sites:  # type: ignore[misc]
            model(x)
        assert names == [site.name for site in sites] == [site.name for site in find_gates(model)]
        with pytest.raises(ValueError, match="stop"), watching(model, lambda name, s: None):
            raise ValueError("stop")
        assert attached(model) == before


@torch.no_grad()
def test_gates_held_at_one_are_a_network_without_se() -> None:
    model, x = network("inserted")
    names = [site.name for site in find_gates(model)]
    with holding(model, dict.fromkeys(names, 1.0)):
        held = model(x)
    senet.remove(model)
    torch.testing.assert_close(held, model(x))


def test_what_cannot_be_held_is_told_and_nothing_stays() -> None:
    model, _ = network("ours")
    with pytest.raises(OptionError, match=r"layer1\.0\.se"), holding(model, {"layer1.0.ze": 1.0}):
        pass
    with pytest.raises(ShapeError, match=r"\(16,\)"), holding(model, {"layer1.0.se": torch.ones(4)}):
        pass
    assert attached(model) == 0


@torch.no_grad()
def test_a_compiled_network_runs_as_it_was_written() -> None:
    model, x = network("ours")
    compiled: Any = torch.compile(model, backend="eager")
    wanted = compiled(x)
    with senet.record_gates(model) as plain:
        model(x)
    # Through the wrapper, and through the module that it was made from.
    for given in (compiled, model):
        with senet.record_gates(given) as gates:
            torch.testing.assert_close(compiled(x), wanted)
        assert torch.equal(gates["layer3.2.se"].mean, plain["layer3.2.se"].mean)
    in_place, _ = network("torchvision")
    small = torch.randn(2, 3, 64, 64)
    in_place.compile(backend="eager")
    in_place(small)
    with senet.record_gates(in_place) as gates:
        in_place(small)
    assert {block.count for block in gates} == {2}
    assert unwrapped(compiled) is model


def test_a_wrapped_network_has_the_names_of_the_one_inside(tmp_path: Path) -> None:
    model, x = network("ours")
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        wrapped = nn.parallel.DistributedDataParallel(model)
        with senet.record_gates(wrapped) as gates:
            wrapped(x).sum().backward()
    finally:
        distributed.destroy_process_group()
    assert gates["layer1.0.se"].count == 3
    assert list(gates.blocks) == [site.name for site in sites_of(model)]


@torch.no_grad()
def test_a_compiled_function_around_the_network_hides_nothing() -> None:
    model, x = network("ours")
    function = torch.compile(lambda images: model(images), backend="eager")
    function(x)
    with senet.record_gates(model) as gates:
        function(x)
    assert {block.count for block in gates} == {3}
    with pytest.raises(RecordingError, match="no SE block ran"), senet.record_gates(model):
        senet.build("se_resnet20")(x)


@torch.no_grad()
def test_gates_of_others_are_recorded_by_the_same_words() -> None:
    for kind in ("timm", "torchvision", "functional"):
        model, x = network(kind)
        seen: dict[str, Tensor] = {}
        with watching(model, seen.__setitem__):
            model(x)
        with senet.record_gates(model) as gates:
            for image in x:
                model(image[None])
        for name, s in seen.items():
            torch.testing.assert_close(gates[name].mean.float(), s.mean(0), rtol=1e-3, atol=1e-5)
            assert gates[name].count == 3
