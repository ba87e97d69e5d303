"""Puts SE into a network and takes it out again: collect, check, apply, report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils._pytree import tree_leaves

from senet.block import SEConfig, SqueezeExcitation
from senet.errors import InsertionError, OptionError, TraceError, require
from senet.graph.examples import trace_with
from senet.graph.trace import Example, buffers_kept
from senet.insertion.attachment import Attachment
from senet.insertion.hooks import Hook, InputGate, OutputGate, ShortcutGate, Ungate
from senet.insertion.placement import PLACEMENTS, Slot
from senet.insertion.plan import Plan, SEOptions, Where, check_unwrapped, plan
from senet.insertion.sites import Site, is_free
from senet.tables import Table


@dataclass(frozen=True)
class Report:
    """What ``insert`` or ``remove`` did.

    Args:
        done: "inserted" or "removed".
        network: the class of the network.
        rows: a row a block.
        parameters: how many came or went.
        left: what was left alone, as text.
        largest_change: of the outputs on the example, in evaluation mode; None without one.
    """

    done: str
    network: str
    rows: list[dict[str, Any]]
    parameters: int
    left: str = ""
    largest_change: float | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def __str__(self) -> str:
        noun = "block" if len(self) == 1 else "blocks"
        changed = "not compared: give example=" if self.largest_change is None else f"{self.largest_change:g}"
        outputs = f"largest change of the output: {changed}" if self.done == "inserted" else ""
        headline = f"{self.network}: {self.done} {len(self)} SE {noun}, {self.parameters:,} parameters"
        return "\n".join(part for part in (headline, str(Table(self.rows)), self.left, outputs) if part)

    def save(self, path: str | Path) -> None:
        """Writes the rows as .csv, .json or .md."""
        Table(self.rows).save(path)


def insert(
    model: nn.Module,
    plan: Plan | None = None,
    *,
    placement: str | None = None,
    where: Where | None = None,
    optimizer: Optimizer | None = None,
    example: Example | None = None,
    **se: Unpack[SEOptions],
) -> Report:
    """Puts SE into ``model``, in place; what it computes stays the same with ``init="identity"``.

    Keys of the state dict are added and none is renamed. Each block is a module of its unit, named
    ``se``, in the unit's dtype, device and mode, and called by hooks; copies, pickles, compilers and
    exporters know those. TorchScript's compiler does not.

    Args:
        model: any CNN: an instance, not wrapped and not compiled.
        plan: of ``senet.plan``, perhaps filtered; made here if None.
        placement: as for ``senet.plan``; "standard" if there is no plan.
        where: which places, as for ``senet.plan``.
        optimizer: gets the new parameters, each in the group of its unit's parameters of its kind
            (matrices, or biases and norms), in the first group where the unit is not trained.
        example: an input on which outputs are compared before and after.
        **se: SEConfig's fields: reduction=16, hidden=None, squeeze="avg", gate="sigmoid",
            bias=True, init="identity", width_rule="paper". What is given here overrides the plan's.

    Returns:
        A report that prints.

    Raises:
        InsertionError: there is no place, a place is taken or gone, or a hidden width would be zero.
            The model is then as it was.
        OptionError: an option is unknown, or a placement is given beside a plan.
        TraceError: the network does not run; see ``senet.plan``.
    """
    if optimizer is not None:
        require("optimizer", optimizer, isinstance(optimizer, Optimizer), "a torch.optim.Optimizer")
    plan = _planned(model, plan, placement, where, example, se)
    check(model, plan)
    blocks = {site.block: _built(model, site, plan.config) for site in plan.sites}
    leaves = [] if example is None else _tensors([example, list(model.parameters())])
    # Nothing can be compared where there are no numbers.
    before = outputs(model, example) if leaves and not any(each.is_meta for each in leaves) else None
    try:
        for site in plan.sites:
            _apply(model, site, blocks[site.block])
        _check_runs(model, plan)
        change = None if before is None else largest_change(before, outputs(model, example))
    except BaseException:
        _take_out(model, set(blocks.values()))
        raise
    if optimizer is not None:
        for site in plan.sites:
            _adopt(optimizer, model.get_submodule(site.unit), blocks[site.block])
    return Report("inserted", plan.network, plan.rows, plan.parameters, plan.left_text(), change)


def remove(model: nn.Module) -> Report:
    """Takes all SE that ``insert`` has put into ``model`` out again; it is then as it was before.

    Raises:
        InsertionError: there is none, or the network is accelerated.
    """
    require("model", model, isinstance(model, nn.Module), "a torch.nn.Module")
    blocks = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, SqueezeExcitation) and module.inserted
    }
    if not blocks:
        raise InsertionError(
            f"remove({type(model).__name__})",
            found="no block in it was put there by senet.insert",
            allowed="a network after senet.insert, or a copy of it",
        )
    if is_simplified(model):
        raise InsertionError(
            f"remove({type(model).__name__})",
            found="it was simplified: some of its blocks are in the convolutions beside them",
            allowed="the network that it was made from",
        )
    if any("forward" in block.__dict__ for block in blocks.values()):
        raise InsertionError(
            f"remove({type(model).__name__})",
            found="something stands in for the forward of its blocks, as senet.accelerate has it",
            do="Call senet.accelerate(model, backend='reference') first.",
        )
    rows = [{"block": name, "channels": block.channels} for name, block in blocks.items()]
    parameters = sum(each.numel() for block in blocks.values() for each in block.parameters())
    _take_out(model, set(blocks.values()))
    return Report("removed", type(model).__name__, rows, parameters)


# -- collect and check ------------------------------------------------------------------------


def _planned(
    model: nn.Module,
    given: Plan | None,
    placement: str | None,
    where: Where | None,
    example: Example | None,
    se: SEOptions,
) -> Plan:
    if given is None:
        return plan(model, placement=placement or "standard", where=where, example=example, **se)
    if placement is not None and placement != given.placement:
        raise OptionError(
            f"insert(plan, placement={placement!r})",
            found=f"the plan is for {given.placement!r}",
            do="Make the plan with that placement.",
        )
    given = given.with_config(se)
    return given if where is None else given.filter(where)


def check(model: nn.Module, plan: Plan) -> None:
    """Raises InsertionError unless every block of the plan can be put in its place."""
    check_unwrapped(model)
    asked = f"insert({type(model).__name__})"
    if not plan.sites:
        raise InsertionError(
            asked,
            found="there is no place for SE in it" + (f": {plan.reasons}" if plan.left else ""),
            allowed="a network with residual units, Inception modules or a stack of convolutions",
            do="Put senet.SqueezeExcitation into its code, if you know a place.",
        )
    narrow = plan.too_narrow
    if narrow:
        fewest = min(site.channels for site in narrow)
        raise InsertionError(
            f"insert(reduction={plan.config.reduction})",
            found=f"{len(narrow)} places have fewer channels, so that the hidden width would be 0: "
            + ", ".join(f"{site.unit} ({site.channels})" for site in narrow[:3]),
            allowed=f"a reduction of at most {fewest}",
            do="Use a smaller reduction=, set hidden=, or leave them out with where=.",
        )
    modules = dict(model.named_modules())
    for site in plan.sites:
        owner, _, name = site.block.rpartition(".")
        needed = [owner, site.attachment.module, *(module for module, _ in site.attachment.branch)]
        missing = [module for module in needed if module not in modules]
        if missing:
            raise InsertionError(
                asked,
                found=f"the plan is for a network with {missing[0]!r}, and this one has none",
                do="Make the plan of this network.",
            )
        if not is_free(modules[owner], name):
            raise InsertionError(
                asked,
                found=f"{site.block} exists already",
                do="Call senet.remove(model) first, or make a new plan: it leaves such units alone.",
            )


def _check_runs(model: nn.Module, plan: Plan) -> None:
    """Raises InsertionError unless each block runs exactly once when the network does."""
    for path, example in plan.examples:
        part = model.get_submodule(path)
        try:
            runs = trace_with(part, example)[0].runs
        except TraceError as error:
            raise InsertionError(
                f"insert({type(model).__name__})",
                found=f"with the blocks in place the network no longer runs ({error})",
                do="Nothing was changed. Leave the place out with where=.",
            ) from error
        for site in plan.sites:
            if path and not site.block.startswith(f"{path}."):
                continue
            count = runs[site.block.removeprefix(f"{path}.") if path else site.block]
            if count != 1:
                raise InsertionError(
                    f"insert({type(model).__name__})",
                    found=f"the block {site.block} would run {count} times, not once",
                    do=f"Nothing was changed. Leave {site.unit} out with where=.",
                )


# -- apply ------------------------------------------------------------------------------------


def _built(model: nn.Module, site: Site, config: SEConfig) -> SqueezeExcitation:
    """The block, where and as the parameters around it are."""
    unit = model.get_submodule(site.unit)
    like = next(
        (each for part in (unit, model) for each in part.parameters() if each.is_floating_point()), None
    )
    with torch.device("cpu" if like is None else like.device):
        block = config.build(site.channels)
    block.inserted = True
    if like is not None:
        block.to(dtype=like.dtype)
    return block.train(unit.training)


def _apply(model: nn.Module, site: Site, block: SqueezeExcitation) -> None:
    owner_path, _, name = site.block.rpartition(".")
    owner = model.get_submodule(owner_path)
    setattr(owner, name, block)
    if isinstance(owner, Slot):
        owner.placement = PLACEMENTS[site.placement]
        return
    attachment = site.attachment
    module = model.get_submodule(attachment.module)
    _hook(attachment, block).attach(module)
    for path, position in attachment.branch:
        Ungate(block, position).attach(model.get_submodule(path))


def _hook(attachment: Attachment, block: SqueezeExcitation) -> Hook:
    if attachment.how == "output":
        return OutputGate(block)
    return {"input": InputGate, "shortcut": ShortcutGate}[attachment.how](block, attachment.position)


def replace(model: nn.Module, block: nn.Module, other: nn.Module | None) -> None:
    """Puts another module in the place of a block, or nothing.

    Args:
        model: the network.
        block: any module in it that takes a map and returns it gated.
        other: takes such a map too; None takes the block out: where the network calls it itself,
            ``nn.Identity`` remains.
    """
    hooks = [hook for module in model.modules() for hook in _hooks_on(module) if hook.block is block]
    slots = [module for module in model.modules() if isinstance(module, Slot) and module.se is block]
    if other is None and isinstance(block, SqueezeExcitation) and (hooks or slots):
        _take_out(model, {block})
        return
    swap(model, block, nn.Identity().train(block.training) if other is None else other)
    for hook in hooks:
        hook.block = hook.block if other is None else other


def is_simplified(model: nn.Module) -> bool:
    """Whether ``senet.simplify`` made the network, or a part of it."""
    return any(getattr(module, "_simplified", False) for module in model.modules())


def swap(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Puts a module in the place of another, under each of its names."""
    for module in list(model.modules()):
        for name, child in list(module._modules.items()):
            if child is old:
                setattr(module, name, new)


def _take_out(model: nn.Module, blocks: set[SqueezeExcitation]) -> None:
    for module in list(model.modules()):
        for hook in _hooks_on(module):
            if hook.block in blocks:
                hook.remove()
        slot = module if isinstance(module, Slot) else None
        for name, child in list(module.named_children()):
            if child in blocks:
                delattr(module, name)
                if slot is not None:
                    slot.se = slot.placement = None


def _hooks_on(module: nn.Module) -> list[Hook]:
    hooks: list[object] = [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
    return [hook for hook in hooks if isinstance(hook, Hook)]


def _adopt(optimizer: Optimizer, unit: nn.Module, block: SqueezeExcitation) -> None:
    """Gives the optimizer a block's parameters: matrices with the unit's matrices, biases with biases.

    In groups that exist: schedulers have counted those.
    """
    group_of = {id(each): group for group in optimizer.param_groups for each in group["params"]}
    around = [each for each in unit.parameters() if id(each) in group_of]
    for name, parameter in block.named_parameters():
        alike = [each for each in around if (each.ndim > 1) == (parameter.ndim > 1)] or around
        group = group_of[id(alike[-1])] if alike else optimizer.param_groups[0]
        group["params"].append(parameter)
        if "param_names" in group:
            group["param_names"].append(name)


# -- compare ----------------------------------------------------------------------------------


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in modes:
            module.training = False
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def outputs(model: nn.Module, example: Any) -> list[Tensor]:
    """The tensors that a network gives in evaluation mode; its modes and buffers stay as they are."""
    with _evaluating(model), buffers_kept(model):
        if isinstance(example, Mapping):
            result = model(**example)
        else:
            result = model(*example) if isinstance(example, tuple | list) else model(example)
    return _tensors(result)


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def largest_change(before: list[Tensor], after: list[Tensor]) -> float:
    """The largest difference of two outputs; NaN where both are is none."""
    largest = 0.0
    for old, new in zip(before, after, strict=True):
        if not torch.equal(old, new):
            difference = (old.double() - new.double()).abs()
            difference = difference[~((old == new) | (old.isnan() & new.isnan()))]
            largest = max(largest, float(difference.max())) if difference.numel() else largest
    return largest
