"""Looking at the gates of a network while it runs, and holding them; nothing stays on it afterwards."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from senet.analysis.sites import GateSite, check_squeezed, find_gates, own_sites
from senet.errors import OptionError, ShapeError, did_you_mean
from senet.graph.trace import Example
from senet.models.network import Network


@contextlib.contextmanager
def watching(
    model: nn.Module,
    seen: Callable[[str, Tensor], None],
    *,
    blocks: Sequence[str] = (),
    example: Example | None = None,
    sites: Sequence[GateSite] | None = None,
) -> Iterator[list[GateSite]]:
    """Shows ``seen`` the name and the gates (N, C) of each block that runs inside the ``with``.

    Args:
        model: any network with SE; also wrapped for parallel training, accelerated or compiled: it then
            runs uncompiled, as hooks do not reach into compiled code.
        seen: is called in the order in which the blocks run.
        blocks: see ``find_gates``, as for ``example``.
        example: what the network is called with.
        sites: the places, if they are known already.

    Yields:
        The places, in their order.

    Raises:
        OptionError: there is no SE block, or none of this name.
        TraceError: the network does not run on ``example``, or on a usual size.
    """
    found = sites_of(model, blocks=blocks, example=example) if sites is None else list(sites)
    with contextlib.ExitStack() as stack:
        stack.enter_context(uncompiled())
        for site in found:
            stack.callback(site.watch(_Named(site.name, seen)).remove)
        yield found


@contextlib.contextmanager
def holding(
    model: nn.Module,
    values: Mapping[str, Tensor | float],
    *,
    blocks: Sequence[str] = (),
    example: Example | None = None,
    sites: Sequence[GateSite] | None = None,
) -> Iterator[None]:
    """Inside the ``with``, the gates of the named blocks are constant.

    Args:
        model: as for ``watching``, as for all that follow but ``values``.
        values: by the name of the block: (C,), or a number for all channels.
        blocks: see ``find_gates``.
        example: what the network is called with.
        sites: the places, if they are known already.

    Raises:
        OptionError: no block has such a name.
        ShapeError: there is not one value per channel.
    """
    found = sites_of(model, blocks=blocks, example=example) if sites is None else sites
    by_name = {site.name: site for site in found}
    with contextlib.ExitStack() as stack:
        stack.enter_context(uncompiled())
        for name, value in values.items():
            if name not in by_name:
                raise OptionError(
                    f"holding the gates of {name!r}",
                    found="no SE block has this name",
                    allowed=", ".join(list(by_name)[:8]),
                    do=did_you_mean(name, by_name),
                )
            stack.callback(by_name[name].hold(_checked(by_name[name], value)).remove)
        yield


def sites_of(
    model: nn.Module, *, blocks: Sequence[str] = (), example: Example | None = None
) -> list[GateSite]:
    """The places of a network that may be wrapped; one of ours is known without following it."""
    inner = unwrapped(model)
    if isinstance(inner, Network) and not blocks:
        own = own_sites(inner)
        check_squeezed(own)
        if own:
            return own
    return find_gates(inner, blocks=blocks, example=example)


def unwrapped(model: nn.Module) -> nn.Module:
    """The network inside wrappers for parallel training and compilation."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if isinstance(model, nn.DataParallel) and len(model.device_ids) > 1:
            raise OptionError(
                "the gates of a DataParallel",
                found="it runs copies of the network that are made anew for each batch",
                allowed="DistributedDataParallel, or the network inside",
            )
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


@contextlib.contextmanager
def uncompiled() -> Iterator[None]:
    """What is compiled runs as it was written: compiled code does not call hooks that were added later."""
    # Nothing is compiled in a process that has no compiler in it; loading one takes a second.
    if "torch._dynamo" not in sys.modules:
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


class _Named:
    def __init__(self, name: str, seen: Callable[[str, Tensor], None]) -> None:
        self.name = name
        self.seen = seen

    def __call__(self, s: Tensor) -> None:
        self.seen(self.name, s)


def _checked(site: GateSite, value: Tensor | float) -> Tensor:
    held = torch.as_tensor(value)
    if held.ndim and held.shape[-1] != site.channels:
        raise ShapeError(
            f"holding the gates of {site.name!r}",
            found=f"the values have the shape {tuple(held.shape)}",
            allowed=f"({site.channels},), or one number",
        )
    return held
