"""Where others put channel attention, found without senet's graph: what the inserter is checked against.

A network that has attention is stripped: each attention module becomes an identity, which still marks
its place. SE is then inserted, both networks' maps are recorded in one run, and a block of ours agrees
with a place of theirs if it sees the very same map, bit by bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from senet import insert, plan

# Modules of timm and torchvision that gate channels.
ATTENTION = frozenset(
    "SEModule SqueezeExcite EffectiveSEModule EcaModule CecaModule SqueezeExcitation SELayer SEWithNorm "
    "GlobalContext".split()
)


@dataclass(frozen=True)
class Agreement:
    """How our places compare with theirs.

    Args:
        theirs: attention modules there were.
        shared: of those, how many see the map that a block of ours sees.
        missed: the others, by name.
        beyond: units in which only we have a block.
    """

    theirs: int
    shared: int
    missed: tuple[str, ...]
    beyond: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.shared}/{self.theirs}" + (f" +{len(self.beyond)}" if self.beyond else "")


def strip(model: nn.Module) -> dict[str, nn.Identity]:
    """Replaces the attention modules by identities, in place; returns those by name."""
    marks: dict[str, nn.Identity] = {}
    for path, parent in list(model.named_modules()):
        for name, child in list(parent.named_children()):
            if type(child).__name__ in ATTENTION:
                marks[f"{path}.{name}" if path else name] = nn.Identity()
                setattr(parent, name, marks[f"{path}.{name}" if path else name])
    return marks


def agreement(model: nn.Module, x: Tensor, placement: str = "standard") -> Agreement | None:
    """Compares the places of ``model``'s own attention with ours; None if it has none."""
    marks = strip(model)
    if not marks:
        return None
    found = plan(model, placement=placement, hidden=4)
    insert(model, found)
    blocks = {site.block: model.get_submodule(site.block) for site in found}
    _normalise(model, x)
    theirs, ours = _outputs(model, x, marks), _outputs(model, x, blocks)
    shared = {
        mark: [block for block, u in ours.items() if u.shape == t.shape and torch.equal(u, t)]
        for mark, t in theirs.items()
    }
    used = {block for blocks in shared.values() for block in blocks}
    return Agreement(
        len(theirs),
        sum(map(bool, shared.values())),
        tuple(mark for mark, blocks in shared.items() if not blocks),
        tuple(site.unit for site in found if site.block not in used),
    )


def _normalise(model: nn.Module, x: Tensor) -> None:
    """Random norms, and statistics that fit: maps that overflow or are zero would prove nothing."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            if module.affine:
                nn.init.uniform_(module.weight, 0.5, 1.5)
            module.momentum, module.training = 1.0, True
    with torch.no_grad():
        model(x)
    model.eval()


def _outputs(model: nn.Module, x: Tensor, modules: dict[str, Any]) -> dict[str, Tensor]:
    """What each module returns in one run."""
    seen: dict[str, Tensor] = {}

    def recorder(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Tensor) -> None:
            seen[name] = output.clone()

        return hook

    handles = [module.register_forward_hook(recorder(name)) for name, module in modules.items()]
    with torch.no_grad():
        model(x)
    for handle in handles:
        handle.remove()
    return {name: u for name, u in seen.items() if bool(u.isfinite().all()) and float(u.std()) > 0}
