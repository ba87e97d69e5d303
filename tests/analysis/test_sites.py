from __future__ import annotations

import copy

import pytest
import torch
from tests.analysis.gated import NETWORKS, Attention, Functional, attached, network
from torch import Tensor, nn

import senet
from senet.analysis.sites import (
    AcceleratedSite,
    GateSite,
    OwnSite,
    ProductSite,
    ReturnedSite,
    find_gates,
)
from senet.errors import OptionError, TraceError


@pytest.mark.parametrize("kind", NETWORKS)
@torch.no_grad()
def test_gates_times_maps_are_what_goes_on_and_outputs_do_not_change(kind: str) -> None:
    model, x = network(kind)
    before = attached(model)
    wanted = model(x)
    for site in find_gates(model):
        gates: list[Tensor] = []
        pairs: list[tuple[Tensor, Tensor]] = []
        handle = site.watch(gates.append)
        assert torch.equal(model(x), wanted)
        handle.remove()
        maps = site.watch_maps(lambda s, u, pairs=pairs: pairs.append((s, u)))  # type: ignore[misc]
        torch.testing.assert_close(model(x), wanted)
        maps.remove()
        assert len(gates) == len(pairs) == 1
        for s, (again, u) in zip(gates, pairs, strict=True):
            assert s.shape == again.shape == (3, site.channels) == u.shape[:2]
            torch.testing.assert_close(s, again)
    assert attached(model) == before


@pytest.mark.parametrize("kind", NETWORKS)
@torch.no_grad()
def test_held_at_the_gates_of_the_images_nothing_changes_and_at_others_it_does(kind: str) -> None:
    model, x = network(kind)
    wanted = model(x)
    for site in find_gates(model):
        seen: list[Tensor] = []
        handle = site.watch(seen.append)
        model(x)
        handle.remove()
        held = site.hold(seen[0])
        torch.testing.assert_close(model(x), wanted)
        held.remove()
        held = site.hold(torch.tensor(3.0))
        assert not torch.allclose(model(x), wanted, rtol=1e-6, atol=0)
        held.remove()
    assert torch.equal(model(x), wanted)


@pytest.mark.parametrize("expand", [False, True])
@torch.no_grad()
def test_the_gates_of_a_spelled_out_attention_are_the_numbers_it_computes(expand: bool) -> None:
    model = Functional(expand).eval()
    (site,) = find_gates(model)
    assert isinstance(site, ProductSite)
    assert (site.channels, site.name) == (8, "")
    model.gates.clear()
    seen: list[Tensor] = []
    site.watch(seen.append)
    model(torch.randn(2, 3, 9, 9))
    # A map of one position has the shape of its gates.
    model(torch.randn(2, 3, 1, 1))
    assert all(torch.equal(s, wanted) for s, wanted in zip(seen, model.gates, strict=True))
    with torch.enable_grad():
        model.train()(torch.randn(2, 3, 5, 5)).sum().backward()
    assert torch.equal(seen[-1], model.gates[-1])
    assert model.fc1.weight.grad is not None


@pytest.mark.parametrize("kind", ["inserted", "timm", "torchvision"])
@torch.no_grad()
def test_the_operation_of_an_accelerated_network_returns_its_gates(kind: str) -> None:
    model, x = network(kind)
    plain = {site.name: site for site in find_gates(model)}
    fast = copy.deepcopy(model)
    senet.accelerate(fast, backend="aten")
    before, wanted = attached(fast), fast(x)
    sites = find_gates(fast)
    assert [site.name for site in sites] == list(plain)
    assert {type(site) for site in sites} == {OwnSite if kind == "inserted" else AcceleratedSite}
    for site in sites:
        seen: list[Tensor] = []
        expected: list[Tensor] = []
        handles = site.watch(seen.append), plain[site.name].watch(expected.append)
        assert torch.equal(fast(x), wanted)
        model(x)
        for handle in handles:
            handle.remove()
        torch.testing.assert_close(seen, expected, rtol=1e-3, atol=1e-5)
        held = site.hold(expected[0])
        torch.testing.assert_close(fast(x), wanted, rtol=1e-3, atol=1e-4)
        held.remove()
    assert attached(fast) == before


@torch.no_grad()
def test_an_accelerated_module_that_is_left_to_itself_still_shows_its_gates() -> None:
    model, x = network("torchvision", accelerated=True)
    site = find_gates(model)[0]
    fused: list[Tensor] = []
    site.watch(fused.append)
    model(x)
    site.module.register_forward_hook(lambda *_: None)
    model(x)
    torch.testing.assert_close(fused[0], fused[1])


@torch.no_grad()
def test_watching_ends_when_the_module_raises() -> None:
    class Raising(Functional):
        def forward(self, x: Tensor) -> Tensor:
            out = super().forward(x)
            if len(x) == 1:
                raise ValueError("no")
            return out

    model = Raising().eval()
    (site,) = find_gates(model, example=torch.randn(2, 3, 8, 8))
    seen: list[Tensor] = []
    site.watch(seen.append)
    with pytest.raises(ValueError, match="no"):
        model(torch.randn(1, 3, 8, 8))
    assert torch._C._len_torch_dispatch_stack() == 0
    model(torch.randn(2, 3, 8, 8))
    assert [len(s) for s in seen] == [1, 2]


@torch.no_grad()
def test_what_is_not_recognised_can_be_named() -> None:
    model, x = Attention().eval(), torch.randn(2, 3, 8, 8)
    with pytest.raises(OptionError, match="no SE block"):
        find_gates(model)
    wanted = model(x)
    for name, kind in (("gate", ReturnedSite), ("gate.1", ReturnedSite)):
        (site,) = find_gates(model, blocks=[name])
        assert isinstance(site, kind)
        seen: list[Tensor] = []
        site.watch(seen.append).remove()
        handle = site.watch(seen.append)
        assert torch.equal(model(x), wanted)
        handle.remove()
        torch.testing.assert_close(seen[0], torch.sigmoid(model.conv(x).mean((2, 3))))
        held = site.hold(torch.ones(8))
        torch.testing.assert_close(model(x), model.conv(x))
        held.remove()
        with pytest.raises(OptionError, match="what they gate is not seen"):
            site.watch_maps(lambda s, u: None)
    outer = nn.Sequential(model)
    (named,) = find_gates(outer, blocks=["0"])
    assert isinstance(named, ProductSite)
    pairs: list[tuple[Tensor, Tensor]] = []
    named.watch_maps(lambda s, u: pairs.append((s, u)))
    assert torch.equal(outer(x), wanted)
    torch.testing.assert_close(pairs[0][1], model.conv(x))


def test_names_choose_and_wrong_ones_are_told() -> None:
    model, _ = network("ours")
    sites: list[GateSite] = find_gates(model, blocks=["layer3.*.se", "layer1.0.se"])
    assert [site.name for site in sites] == ["layer3.0.se", "layer3.1.se", "layer3.2.se", "layer1.0.se"]
    with pytest.raises(OptionError, match=r"layer3\.2\.se"):
        find_gates(model, blocks=["layer3.2.ze"])
    with pytest.raises(OptionError, match="none of them empty"):
        find_gates(model, blocks=[""])
    with pytest.raises(OptionError, match="scales no map"):
        find_gates(model, blocks=["layer3.2.conv1"])
    with pytest.raises(OptionError, match="no SE block"):
        find_gates(senet.build("resnet20"))
    with pytest.raises(TraceError):
        find_gates(Functional(), example=torch.randn(2, 5, 8, 8))


def test_gates_that_are_maps_are_refused_by_name() -> None:
    blocks = [senet.SqueezeExcitation(8, 2, squeeze=squeeze) for squeeze in ("avg", "none")]
    model = nn.Sequential(nn.Conv2d(3, 8, 1), *blocks)
    with pytest.raises(OptionError, match=r"of '2': 1 of 2 blocks have squeeze='none'.*blocks="):
        find_gates(model)
    with pytest.raises(OptionError, match="1 of 1 blocks"):
        find_gates(model, blocks=["2"])
    assert [site.name for site in find_gates(model, blocks=["1"])] == ["1"]
    # As everything that looks at gates.
    with pytest.raises(OptionError, match="their gates are maps"), senet.record_gates(model):
        pass
    ours = senet.build("se_resnet20", se=senet.SEConfig(squeeze="none"))
    with pytest.raises(OptionError, match="9 of 9 blocks"), senet.record_gates(ours):
        pass
    with pytest.raises(OptionError, match="their gates are maps"):
        senet.sensitivity(model, [(torch.randn(2, 3, 8, 8), torch.tensor([0, 1]))])


def test_sizes_and_order_are_those_of_the_run() -> None:
    model, _ = network("ours")
    sites = find_gates(model, example=torch.empty(2, 3, 64, 64, device="meta"))
    assert [(site.size, site.channels) for site in sites][::4] == [
        ((64, 64), 16),
        ((32, 32), 32),
        ((16, 16), 64),
    ]
    assert [site.name for site in sites] == [
        name for name, m in model.named_modules() if name.endswith(".se")
    ]
    assert repr(sites[0]) == "OwnSite('layer1.0.se', 64×64×16)"


def test_on_images_so_small_that_maps_look_like_gates_all_are_found() -> None:
    model, _ = network("torchvision")
    sites = find_gates(model, example=torch.zeros(2, 3, 32, 32))
    assert len(sites) == 9
    assert (sites[0].size, sites[-1].size) == ((8, 8), (1, 1))
    seen: list[Tensor] = []
    sites[-1].watch(seen.append)
    with torch.no_grad():
        model(torch.randn(2, 3, 32, 32))
    assert seen[0].shape == (2, 576)
