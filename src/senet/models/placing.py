"""SE for networks whose units do not place it themselves, by the rules of insertion; and out of all again."""

from __future__ import annotations

import dataclasses

import torch

from senet.block import ConstantScale, SqueezeExcitation
from senet.errors import UndefinedError, check_choice
from senet.insertion.plan import plan
from senet.insertion.surgery import insert, replace
from senet.models.network import Network, checked_stages


def place(network: Network, size: int) -> None:
    """Puts SE where ``senet.insert`` puts it, freshly initialised, as the network's config says.

    Args:
        network: as yet plain.
        size: H and W of images that it runs on.

    Raises:
        OptionError: a stage does not exist.
        UndefinedError: the units do not have the place, or a hidden width would be zero.
    """
    config = network.config
    if config.se is None:
        return
    example = torch.empty(2, config.in_channels, size, size, device="meta")
    found = plan(network, placement=config.placement, example=example)
    if not found.sites:
        raise UndefinedError(
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


def take_out(network: Network) -> None:
    """Takes the SE blocks out whose gates have become constant, as the network's config says.

    Raises:
        OptionError: there is no block of such a name.
    """
    config = network.config
    blocks = {
        name: module for name, module in network.named_modules() if isinstance(module, SqueezeExcitation)
    }
    for name in (*config.folded, *config.scaled):
        check_choice(f"build({config.name!r}) without the block {name!r}", name, blocks)
        ones = torch.ones(blocks[name].channels)
        replace(network, blocks[name], ConstantScale(ones) if name in config.scaled else None)
