"""Where a network computes gates: blocks of ours, of other libraries, accelerated or a user's own.

Blocks are recognised by their arithmetic; what is not recognised can be named.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor, nn

from senet import functional
from senet.acceleration.forwards import GateForward
from senet.analysis.products import (
    Attached,
    Look,
    Product,
    ProductWatch,
    map_size,
    product_of,
    product_within,
)
from senet.block import SqueezeExcitation
from senet.errors import OptionError, TraceError, did_you_mean, require
from senet.graph.attention import channel_gates
from senet.graph.examples import trace_with
from senet.graph.flow import Flow
from senet.graph.trace import Example, Graph

Seen = Callable[[Tensor], None]
SeenMaps = Callable[[Tensor, Tensor], None]


class Handle:
    """Ends what was attached.

    Args:
        parts: the handles of PyTorch's hooks.
    """

    def __init__(self, *parts: Any) -> None:
        self._parts = parts

    def remove(self) -> None:
        """Takes all off; more than once does no harm."""
        for part in self._parts:
            part.remove()


class GateSite(ABC):
    """One place where a network computes gates.

    Args:
        name: of the block in the network.
        module: it.
        channels: C.
        size: of the gated map in the traced run, () if it is not known.
    """

    def __init__(self, name: str, module: nn.Module, channels: int, size: tuple[int, ...] = ()) -> None:
        self.name = name
        self.module = module
        self.channels = channels
        self.size = size

    @abstractmethod
    def watch(self, seen: Seen) -> Handle:
        """Shows ``seen`` the gates s (N, C) each time they are computed."""

    @abstractmethod
    def watch_maps(self, seen: SeenMaps) -> Handle:
        """Shows ``seen`` the gates s (N, C) and the map that they gate, u (N, C, *spatial)."""

    @abstractmethod
    def hold(self, value: Tensor) -> Handle:
        """From now on the gates are ``value``, (C,) for all samples or (N, C)."""

    def __repr__(self) -> str:
        size = "".join(f"{each}×" for each in self.size)
        return f"{type(self).__name__}({self.name!r}, {size}{self.channels})"


class OwnSite(GateSite):
    """A ``senet.SqueezeExcitation``."""

    module: SqueezeExcitation

    def watch(self, seen: Seen) -> Handle:
        """See GateSite. Nothing else changes: the fused operation returns its gates."""
        return Handle(self.module.register_gate_hook(Attached(lambda _, s: seen(s.detach()))))

    def watch_maps(self, seen: SeenMaps) -> Handle:
        """See GateSite. The block is then called by itself, on the map that it gates."""
        maps: list[Tensor] = []
        return Handle(
            self.module.register_forward_pre_hook(Attached(lambda _, args: maps.append(args[0].detach()))),
            self.module.register_gate_hook(Attached(lambda _, s: seen(s.detach(), maps[-1]))),
            self.module.register_forward_hook(Attached(lambda *_: maps.clear()), always_call=True),
        )

    def hold(self, value: Tensor) -> Handle:
        """See GateSite."""

        def held(_: nn.Module, args: tuple[Any, ...], __: Any) -> Tensor:
            u: Tensor = args[0]
            return functional.scale(u, value.to(u).expand(len(u), self.channels))

        return Handle(self.module.register_forward_hook(Attached(held)))


class ProductSite(GateSite):
    """Attention of any other spelling, by the product in which it ends.

    Args:
        name: of the block.
        module: in whose calls it runs.
        product: which one.
    """

    def __init__(self, name: str, module: nn.Module, product: Product) -> None:
        super().__init__(name, module, product.channels, product.size)
        self.product = product

    def watch(self, seen: Seen) -> Handle:
        """See GateSite."""

        def look(s: Tensor, u: Tensor) -> None:
            seen(s.detach())

        return self._look(look)

    def watch_maps(self, seen: SeenMaps) -> Handle:
        """See GateSite."""

        def look(s: Tensor, u: Tensor) -> None:
            seen(s.detach(), u.detach())

        return self._look(look)

    def hold(self, value: Tensor) -> Handle:
        """See GateSite."""
        return self._look(lambda s, u: value)

    def _look(self, look: Look) -> Handle:
        return Handle(ProductWatch(self.module, self.product, look))


class AcceleratedSite(ProductSite):
    """The same where ``senet.accelerate`` computes it: its operation returns its gates."""

    def watch(self, seen: Seen) -> Handle:
        """See GateSite."""
        forward: GateForward = self.module.__dict__["forward"]
        return Handle(forward.watch(Attached(seen)))


class ReturnedSite(GateSite):
    """A module that was named and returns the gates themselves, (N, C) or (N, C, 1, 1)."""

    def watch(self, seen: Seen) -> Handle:
        """See GateSite."""
        return Handle(
            self.module.register_forward_hook(Attached(lambda _, args, s: seen(s.detach().flatten(1))))
        )

    def watch_maps(self, seen: SeenMaps) -> Handle:
        """Raises OptionError: what such gates gate is not known."""
        raise OptionError(
            f"the maps of {self.name!r}",
            found="the module returns gates, and what they gate is not seen",
            do="Name the module around it that returns the gated map.",
        )

    def hold(self, value: Tensor) -> Handle:
        """See GateSite."""
        return Handle(
            self.module.register_forward_hook(
                Attached(lambda _, args, s: value.to(s).expand(s.shape[:2]).reshape(s.shape))
            )
        )


def find_gates(
    model: nn.Module, *, blocks: Sequence[str] = (), example: Example | None = None
) -> list[GateSite]:
    """All places where ``model`` computes gates, in the order in which they run.

    Channel attention of any spelling counts: a map is pooled, layers mix the channels, the result
    multiplies the map.

    Args:
        model: any network.
        blocks: names of blocks, or shell patterns; only those. A module that is not recognised can be
            named too: one that returns gates, (N, C) or (N, C, 1, 1), or one that returns a gated map.
        example: what the network is called with; None: the usual sizes are tried.

    Raises:
        OptionError: there is none, or none of this name, or its gates are a map (``squeeze="none"``).
        TraceError: the network does not run on ``example``, or on a usual size.
    """
    sites: dict[str, GateSite] = {}
    graph = sizes = None
    try:
        graph, sizes = _followed(model, example)
        sites = _recognised(model, graph)
    except TraceError:
        # Blocks of ours are known without following the network.
        if blocks or not own_sites(model):
            raise
    sites |= {site.name: site for site in own_sites(model)}
    # Who runs first; what is not in there was not followed.
    first: dict[str, int] = {}
    for call in [] if graph is None else graph.calls:
        first.setdefault(call.module, call.first)
    found = sorted(sites.values(), key=lambda site: first.get(site.name, len(first)))
    if blocks and graph is not None:
        found = _named(model, graph, found, blocks)
    if not found:
        raise OptionError(
            f"the gates of {type(model).__name__}",
            found="the network has no SE block: nothing pools a map, mixes its channels and multiplies it",
            allowed="a network with SE, such as senet.build('se_resnet50')",
            do="If it has one of another form, name the module: blocks=['NAME'].",
        )
    check_squeezed(found)
    for site in found:
        site.size = _size(sizes, site)
    return found


def check_squeezed(sites: Sequence[GateSite]) -> None:
    """Raises OptionError where the gates of a block of ours are a map, and not one number a channel."""
    maps = [
        site.name
        for site in sites
        if isinstance(site.module, SqueezeExcitation) and site.module.config.squeeze == "none"
    ]
    if maps:
        raise OptionError(
            f"the gates of {maps[0]!r}",
            found=f"{len(maps)} of {len(sites)} blocks have squeeze='none': their gates are maps",
            allowed="blocks with one gate a sample and channel: squeeze='avg' or 'max'",
            do="Leave such blocks out with blocks=, or look at the map: block.register_gate_hook(hook).",
        )


def own_sites(model: nn.Module) -> list[GateSite]:
    """The blocks of ours, without following the network."""
    return [
        OwnSite(name, module, module.channels)
        for name, module in model.named_modules()
        if isinstance(module, SqueezeExcitation)
    ]


def _recognised(model: nn.Module, graph: Graph) -> dict[str, GateSite]:
    flow = Flow(graph)
    products: dict[str, list[Product]] = {}
    for gate in channel_gates(flow):
        if gate.op.name == "mul" and gate.squeezed:
            product = product_of(flow, gate)
            found = products.setdefault(gate.module, [])
            # A module that runs several times has the same product each time.
            if product.ordinal not in {each.ordinal for each in found}:
                found.append(product)
    sites: dict[str, GateSite] = {}
    for path, found in products.items():
        module = model.get_submodule(path)
        fused = isinstance(module.__dict__.get("forward"), GateForward)
        for number, product in enumerate(found):
            name = path if len(found) == 1 else f"{path}[{number}]"
            sites[name] = (AcceleratedSite if fused else ProductSite)(name, module, product)
    return sites


def _named(model: nn.Module, graph: Graph, sites: list[GateSite], blocks: Sequence[str]) -> list[GateSite]:
    """The sites of these names; a module that is none becomes one."""
    chosen: dict[str, GateSite] = {}
    for pattern in blocks:
        require("blocks", blocks, pattern != "", "names of modules or patterns, none of them empty")
        matching = [site for site in sites if site.name == pattern or fnmatchcase(site.name, pattern)]
        if not matching:
            modules = [call.module for call in graph.calls if fnmatchcase(call.module, pattern)]
            matching = [_site_named(model, graph, path) for path in dict.fromkeys(modules)]
        if not matching:
            known = [*(site.name for site in sites), *graph.runs]
            raise OptionError(
                f"blocks={pattern!r}",
                found="no SE block has such a name, and no module that runs",
                allowed=", ".join([site.name for site in sites][:8]) or "a module's path",
                do=did_you_mean(pattern, known),
            )
        chosen |= {site.name: site for site in matching}
    return list(chosen.values())


def _site_named(model: nn.Module, graph: Graph, path: str) -> GateSite:
    call = next(call for call in graph.calls if call.module == path)
    shape = () if call.output is None else graph.shapes[call.output]
    module = model.get_submodule(path)
    if len(shape) >= 2 and all(each == 1 for each in shape[2:]):
        return ReturnedSite(path, module, shape[1])
    product = product_within(graph, path)
    if product is None:
        raise OptionError(
            f"blocks={path!r}",
            found=f"it returns {_described(shape)}, and scales no map by one number per sample and channel",
            allowed="a module that returns gates, (N, C) or (N, C, 1, 1), or a gated map",
        )
    return ProductSite(path, module, product)


def _described(shape: tuple[int, ...]) -> str:
    return f"a tensor of {shape}" if shape else "no tensor"


def _size(graph: Graph | None, site: GateSite) -> tuple[int, ...]:
    """The size of the map that a site gates."""
    if graph is None:
        return ()
    if isinstance(site, ProductSite):
        return map_size(graph, site.product)
    outputs = [call.output for call in graph.calls if call.module == site.name and call.output is not None]
    return graph.shapes[outputs[0]][2:] if outputs and isinstance(site, OwnSite) else ()


def _followed(model: nn.Module, example: Example | None) -> tuple[Graph, Graph]:
    """The network followed on an input that shows its gates, and on the example, which gives the sizes.

    On small images the last maps have one position, and look like gates.
    """
    with _layer_by_layer(model):
        if example is None:
            graph, _ = trace_with(model, None)
            return graph, graph
        own, _ = trace_with(model, example)
        try:
            return trace_with(model, None)[0], own
        except TraceError:
            return own, own


@contextlib.contextmanager
def _layer_by_layer(model: nn.Module) -> Iterator[None]:
    """Accelerated modules compute layer by layer while they are followed, also with a chosen backend."""
    forwards = [module.__dict__.get("forward") for module in model.modules()]
    chosen = [(each, each.backend) for each in forwards if isinstance(each, GateForward)]
    try:
        for forward, _ in chosen:
            forward.backend = "auto"
        yield
    finally:
        for forward, backend in chosen:
            forward.backend = backend
