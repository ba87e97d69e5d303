"""Finds the places for SE in any CNN: a plan that prints, filters and saves, and changes nothing."""

from __future__ import annotations

import copy
import dataclasses
import fnmatch
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any, TypedDict, Unpack

import torch
from torch import nn

from senet.block import SEConfig
from senet.errors import InsertionError, OptionError, TraceError, did_you_mean, first_line, require
from senet.graph.examples import trace_with
from senet.graph.trace import Example, Graph
from senet.insertion.placement import STACKS, placement_named
from senet.insertion.sites import LeftAlone, Site, find_sites
from senet.tables import Table

Where = int | str | Callable[[Site], bool] | Iterable[int | str]


class SEOptions(TypedDict, total=False):
    """SEConfig's fields as keywords."""

    reduction: int
    hidden: int | None
    squeeze: str
    gate: str
    bias: bool
    init: str
    width_rule: str


@dataclass(frozen=True)
class Plan:
    """Where SE goes in a network, and what is left alone.

    Args:
        network: the class of the network.
        placement: as asked.
        config: of the blocks.
        sites: where a block goes.
        left: what gets none, and why; what can be asked for by its full name carries a site.
        examples: what the network, or the parts of it that run alone, were followed on: the path of
            the part ("" for all) and the input, without numbers where it needed none.
    """

    network: str
    placement: str
    config: SEConfig
    sites: tuple[Site, ...]
    left: tuple[LeftAlone, ...]
    examples: tuple[tuple[str, Any], ...] = dataclasses.field(repr=False, default=())

    def __len__(self) -> int:
        return len(self.sites)

    def __iter__(self) -> Iterator[Site]:
        return iter(self.sites)

    def with_config(self, se: SEOptions) -> Plan:
        """The plan with some of its blocks' options changed."""
        return dataclasses.replace(self, config=SEConfig.from_dict({**dataclasses.asdict(self.config), **se}))

    def filter(self, where: Where) -> Plan:
        """The plan for only some of its sites; see ``plan``."""
        chosen = _selected(self, where)
        dropped = [LeftAlone(site.unit, "not asked for", site) for site in self.sites if site not in chosen]
        left = [each for each in self.left if each.site not in chosen]
        return dataclasses.replace(self, sites=chosen, left=(*left, *dropped))

    @property
    def parameters(self) -> int:
        """What the blocks add."""
        return sum(
            self.config.parameters(site.channels) for site in self.sites if site not in self.too_narrow
        )

    @property
    def too_narrow(self) -> list[Site]:
        """The sites with fewer channels than the reduction: their hidden width would be zero."""
        rounded_up = self.config.hidden or self.config.width_rule != "paper"
        return [] if rounded_up else [site for site in self.sites if site.channels < self.config.reduction]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """A row a site; hidden width and parameters are None where the reduction is too large."""
        narrow = self.too_narrow
        return [
            {
                "unit": site.unit or "(all)",
                "kind": site.kind,
                "stage": site.stage,
                "placement": site.placement,
                "gates": str(site.attachment),
                "channels": site.channels,
                "hidden": None if site in narrow else self.config.hidden_width(site.channels),
                "parameters": None if site in narrow else self.config.parameters(site.channels),
                "block": site.block,
            }
            for site in self.sites
        ]

    @property
    def headline(self) -> str:
        """What the plan is, in a sentence."""
        if not self.sites:
            return f"{self.network}: no place for SE"
        noun = "place" if len(self) == 1 else "places"
        return f"{self.network}: {len(self)} {noun} for SE, {self.parameters:,} parameters more"

    @property
    def table(self) -> Table:
        """The sites."""
        return Table(self.rows)

    def __str__(self) -> str:
        return "\n".join(part for part in (self.headline, str(self.table), self.left_text()) if part)

    def left_text(self) -> str:
        """What was left alone: a line a reason, with the first names."""
        reasons: dict[str, list[str]] = {}
        for each in self.left:
            reasons.setdefault(each.reason, []).append(each.name or "the network itself")
        lines = [
            f"  {len(names):3} x {reason}: {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"
            for reason, names in reasons.items()
        ]
        return "\n".join(["left alone", *lines]) if lines else ""

    @property
    def reasons(self) -> str:
        """Why what was left alone was, with how often, in one line."""
        counted = Counter(each.reason for each in self.left).most_common()
        return "; ".join(f"{count} x {reason}" for reason, count in counted)

    def save(self, path: str | Path) -> None:
        """Writes the rows as .csv, .json or .md."""
        self.table.save(path)


def plan(
    model: nn.Module,
    *,
    placement: str = "standard",
    where: Where | None = None,
    example: Example | None = None,
    **se: Unpack[SEOptions],
) -> Plan:
    """Where SE goes in ``model``; nothing is changed.

    The places come from how tensors flow when the network runs once, without memory where that is
    possible. A network that does not run alone is looked at in the largest parts that do.

    Args:
        model: any CNN, on any device, "meta" included.
        placement: in residual units: standard, pre, post, identity or 3x3 (Figure 5, Tables 14, 15).
            Other kinds of unit have one place each (``insertion/placement.py``), the standard.
        where: which places: stages (``3``, ``[3, 4]``; stage k is the paper's conv{k}_x: the k-th
            resolution, the stem's being the first), shell patterns for the names of units
            (``"layer3.*"``), or a function of a Site. A convolution in a stem, a head or a shortcut
            is only gated where its full name is asked for.
        example: what the network is called with: a tensor, a tuple of arguments or a mapping of
            keywords. None: the usual sizes are tried.
        **se: SEConfig's fields, with its defaults but for ``init``, which is "identity".

    Returns:
        The plan. It may be empty; ``left`` then has the reasons.

    Raises:
        InsertionError: the model is wrapped, compiled or scripted, or ``where`` selects nothing.
        OptionError: an option is unknown.
        TraceError: neither the network nor any part of it runs on ``example``, or on a usual size.
    """
    placement_named(placement)
    config = SEConfig.from_dict({"init": "identity", **se})
    check_unwrapped(model)
    sites: list[Site] = []
    left: list[LeftAlone] = []
    examples = []
    traced, failure = _traced(model, example)
    # Of parts that were looked at alone, small stacks are heads and necks of the largest.
    largest = max(traced, key=lambda part: len(part[1].ops))[0]
    for path, graph, used in traced:
        found, alone = find_sites(model, graph, path, placement)
        sites += [site for site in found if path == largest or site.kind not in STACKS]
        left += alone
        examples.append((path, used))
    if failure is not None and not sites:
        raise failure
    result = Plan(type(model).__name__, placement, config, tuple(sites), tuple(left), tuple(examples))
    return result if where is None else result.filter(where)


def _traced(
    model: nn.Module, example: Example | None
) -> tuple[list[tuple[str, Graph, Example]], TraceError | None]:
    """The network's graph, or those of the largest parts that run alone and why the whole does not."""
    try:
        return [("", *trace_with(model, example))], None
    except TraceError as failure:
        parts = list(_parts(model, "")) if example is None else []
        if not parts:
            raise
        return parts, failure


def _parts(module: nn.Module, path: str) -> Iterator[tuple[str, Graph, Example]]:
    for name, child in module.named_children():
        below = f"{path}.{name}" if path else name
        if not any(isinstance(each, nn.Conv1d | nn.Conv2d | nn.Conv3d) for each in child.modules()):
            continue
        if any(True for _ in child.children()) and not isinstance(child, nn.ModuleList | nn.ModuleDict):
            try:
                yield (below, *trace_with(child, None))
                continue
            except TraceError:
                pass
        yield from _parts(child, below)


def copied(model: nn.Module) -> nn.Module:
    """A copy; InsertionError where PyTorch makes none."""
    try:
        found: nn.Module = copy.deepcopy(model)
        return found
    except RuntimeError as error:
        raise InsertionError(
            f"a copy of a {type(model).__name__}",
            found=f"PyTorch makes none ({first_line(error)})",
            do="Take out what computes its weights: torch.nn.utils.remove_weight_norm, prune.remove.",
        ) from error


def check_unwrapped(model: nn.Module) -> None:
    """Raises InsertionError where the model is wrapped, scripted, compiled or not yet whole."""
    asked = f"plan({type(model).__name__})"
    if not isinstance(model, nn.Module):
        raise OptionError(asked, found="it is no torch.nn.Module", allowed="an instance of any network")
    sharded = any("FSDP" in kind.__name__ or "FullySharded" in kind.__name__ for kind in type(model).__mro__)
    if sharded or isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        raise InsertionError(
            asked,
            found="the network is wrapped for parallel training, which has counted its parameters",
            allowed="the network inside",
            do="Insert SE into the network first, then wrap it.",
        )
    if any(isinstance(each, nn.UninitializedParameter) for each in model.parameters()):
        raise InsertionError(
            asked,
            found="the network has lazy layers, whose sizes are not known yet",
            do="Run it once on an input, then insert.",
        )
    for module in model.modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise InsertionError(
                asked,
                found="the network is TorchScript, which takes no more modules",
                allowed="the Python network that it was made from",
                do="Insert SE first.",
            )
        if hasattr(module, "_orig_mod") or module._compiled_call_impl is not None:
            raise InsertionError(
                asked,
                found="the network is compiled",
                allowed="the network as it was before",
                do="Insert SE first, then compile.",
            )


def _is_stage(word: object) -> bool:
    return isinstance(word, Integral) and not isinstance(word, bool)


def _selected(plan: Plan, where: Where) -> tuple[Site, ...]:
    """The sites that ``where`` means; an error if it, or one of its words, means none."""
    if callable(where):
        chosen = [site for site in plan.sites if where(site)]
        if not chosen:
            raise InsertionError("where=", found=f"the function takes none of the {len(plan)} places")
        return tuple(chosen)
    words: list[Any] = list(where) if isinstance(where, Iterable) and not isinstance(where, str) else [where]
    for word in words:
        possible = isinstance(word, str) or _is_stage(word)
        require("where", word, possible, "stages, names or patterns of units, a function of a site")
    askable = {each.site.unit: each.site for each in plan.left if each.site is not None}
    wanted: set[Site] = set()
    for word in words:
        if isinstance(word, str):
            matching = {site for site in plan.sites if fnmatch.fnmatchcase(site.unit, word)}
            if word in askable:
                matching.add(askable[word])
        else:
            matching = {site for site in plan.sites if site.stage == word}
        if not matching:
            none = "" if plan.sites else f", as there is none: {plan.reasons}"
            stages = sorted({site.stage for site in plan.sites})
            units = [site.unit for site in plan.sites]
            raise InsertionError(
                f"where={where!r}",
                found=f"{word!r} matches no place{none}",
                allowed=f"stages {', '.join(map(str, stages)) or '(none)'}; names and patterns of units "
                f"such as {', '.join(units[:3]) or '(none)'}",
                do=did_you_mean(word, [*units, *askable]),
            )
        wanted |= matching
    if not words:
        raise InsertionError("where=", found="it names nothing", allowed="at least one stage or name")
    return tuple(site for site in (*plan.sites, *askable.values()) if site in wanted)
