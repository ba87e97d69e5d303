"""SE for networks whose units do not place it themselves: by the rules of insertion."""

from __future__ import annotations

import dataclasses

import torch

from senet.errors import OptionError
from senet.insertion.plan import plan
from senet.insertion.surgery import insert
from senet.models.network import Network, checked_stages


def place(network: Network, size: int) -> None:
    """Puts SE where ``senet.insert`` puts it, freshly initialised, as the network's config says.

    Args:
        network: as yet plain.
        size: H and W of images that it runs on.

    Raises:
        OptionError: a stage does not exist, the units do not have the place, or a hidden width would
            be zero.
    """
    config = network.config
    if config.se is None:
        return
    example = torch.empty(2, config.in_channels, size, size, device="meta")
    found = plan(network, placement=config.placement, example=example)
    if not found.sites:
        raise OptionError(
            f"placement={config.placement!r}",
            found=f"no unit of {type(network).__name__} has that place",
            allowed="standard, and in the residual units of Inception-ResNet-v2 post and identity",
        )
    wanted = checked_stages(config.stages, sorted({site.stage for site in found.sites}))
    chosen = found.filter(wanted)
    for site in chosen.sites:
        config.se.hidden_width(site.channels)
    insert(network, chosen, **dataclasses.asdict(config.se))
    for site in chosen.sites:
        # The network's own, as its config says: nothing that senet.remove would take out.
        del network.get_submodule(site.block).inserted
