"""What each SE block of a trained network is worth, and which it can do without.

The gates of a block are replaced by constants, and the same images are classified again. Gates of 1 are no
block at all; the mean gate of each channel keeps what is the same for all images, and what is lost is what
the block does for the image at hand; one number for all channels lies in between.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from senet.analysis.cost.recognised import recognised_gates
from senet.analysis.sites import GateSite, find_gates
from senet.analysis.stages import stages_of
from senet.analysis.watching import unwrapped
from senet.analysis.worth.outcomes import Comparison, Held, Images, compare, first_images, mean_gates
from senet.analysis.worth.proposal import Candidate, propose
from senet.analysis.worth.result import NUMBER, ONE, REPLACEMENTS, Cost, Sensitivity, Variant
from senet.errors import OptionError, ShapeError, did_you_mean, require
from senet.graph.arithmetic import counted
from senet.graph.attention import ChannelGate
from senet.graph.examples import trace_with
from senet.graph.flow import Flow
from senet.runtime.processes import ALONE, Processes


def sensitivity(
    model: nn.Module,
    loader: Images,
    *,
    blocks: Sequence[str] = (),
    recorded: Images | None = None,
    means: Mapping[str, Tensor] | None = None,
    tolerance: float = 0.1,
    random: bool = False,
    processes: Processes = ALONE,
) -> Sensitivity:
    """What each SE block of a trained network is worth, and which it can do without.

    For each block, each stage and all blocks together the gates become 1, or one number (their mean over
    images and channels), or the mean of each channel, and the same images are classified. The loader is
    iterated two times, and once more to record. The network stays as it was.

    Args:
        model: scores (N, K) from images; on any device, with SE of any library. It runs in evaluation mode.
        loader: gives pairs of images (N, C, H, W), floating point, as the network takes them, and labels
            (N,), int64, in the same order each time that it is iterated, such as a DataLoader or a list.
        blocks: only those; see ``find_gates``.
        recorded: the same of images to take the mean gates from, best of training images prepared as for
            evaluation. Without these and ``means``, they come from the images of ``loader`` itself, which the
            constants have then seen: harmless for many images, flattering for few.
        means: the mean gates (C,) of each block, in place of ``recorded``.
        tolerance: how many points of top-1 accuracy the proposal may lose.
        random: whether the weights are fresh; the result says so.
        processes: all that measure, each with its share of the batches in turn; all get the same result.

    Raises:
        OptionError: there is no SE block, or none of this name; the loader can be iterated only once; means
            are missing; a value is not allowed.
        ShapeError: there is not one mean per channel.
        DataError: there are fewer than two images, or labels do not fit the scores.
        DtypeError: the images are not floating point.
        RecordingError: a block did not run, or gates or scores are NaN or infinite.

    Example:
        >>> found = senet.sensitivity(model, validation, recorded=training)
        >>> print(found)
        >>> smaller = senet.fold_gates(model, found.proposal.gates)
    """
    require("tolerance", tolerance, tolerance > 0, "points of accuracy, above 0")
    if recorded is not None and means is not None:
        raise OptionError("recorded=..., means=...", "both are given", "one of them")
    device = next(model.parameters()).device
    example = first_images(loader).to(device)
    sites = find_gates(unwrapped(model), blocks=blocks, example=example)
    if means is None:
        source = loader if recorded is None else recorded
        first_images(source)
        profiles = mean_gates(model, source, sites, processes=processes)
    else:
        profiles = _checked(means, sites)
    # On the device once, and not each time that they are held.
    profiles = {name: mean.to(device, torch.float32) for name, mean in profiles.items()}
    stages = stages_of(sites)
    sets = _sets(stages)
    planned = [(what, names, gates) for what, names in sets.items() for gates in REPLACEMENTS]
    held = [_held(names, gates, profiles) for _, names, gates in planned]
    compared = compare(model, loader, held, sites, processes=processes, what="comparing")
    costs, se, network = _costs(unwrapped(model), sites, example)
    proposal = propose(
        model,
        loader,
        sites,
        _candidates(planned, held, compared, costs),
        tolerance=tolerance,
        processes=processes,
    )
    variants = [Variant(*plan, compared.outcome(number)) for number, plan in enumerate(planned)]
    return Sensitivity(
        compared.untouched,
        compared.classes,
        tuple(variants),
        proposal,
        () if blocks else tuple(tuple(stage) for stage in stages),
        costs,
        se,
        network,
        random,
    )


def _sets(stages: Sequence[Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """Each block, each stage of several, and all, where that is not one of these already."""
    every = tuple(name for stage in stages for name in stage)
    named: dict[str, tuple[str, ...]] = {name: (name,) for name in every}
    named |= {
        f"stage {number} of {len(stages)}": tuple(stage)
        for number, stage in enumerate(stages, 1)
        if 1 < len(stage) < len(every)
    }
    return named | ({"all blocks": every} if len(every) > 1 else {})


def _held(names: Sequence[str], gates: str, profiles: Mapping[str, Tensor]) -> Held:
    if gates == ONE:
        return dict.fromkeys(names, 1.0)
    return {name: profiles[name].mean() if gates == NUMBER else profiles[name] for name in names}


def _candidates(
    planned: Sequence[tuple[str, tuple[str, ...], str]],
    held: Sequence[Held],
    compared: Comparison,
    costs: Mapping[str, Cost],
) -> list[list[Candidate]]:
    """Of each block the constants that it may be held at, as measured on the first half of the images."""
    found: dict[str, list[Candidate]] = {name: [] for name in costs}
    for number, (what, _, gates) in enumerate(planned):
        # One number for all channels saves no more than one for each.
        if what in costs and gates != NUMBER:
            value = held[number][what]
            half = compared.half(number, 0)
            found[what].append(Candidate(what, value, half, costs[what].parameters))
    return list(found.values())


def _checked(means: Mapping[str, Tensor], sites: Sequence[GateSite]) -> dict[str, Tensor]:
    for site in sites:
        if site.name not in means:
            raise OptionError(
                "means=...",
                found=f"those of the block {site.name!r} are missing",
                do=did_you_mean(site.name, means),
            )
        if tuple(means[site.name].shape) != (site.channels,):
            raise ShapeError(
                f"means={{{site.name!r}: ...}}",
                found=f"their shape is {tuple(means[site.name].shape)}",
                allowed=f"({site.channels},), one for each channel",
            )
    return {site.name: means[site.name] for site in sites}


def _costs(
    model: nn.Module, sites: Sequence[GateSite], example: Tensor
) -> tuple[dict[str, Cost], Cost, Cost]:
    """What the gates of each block cost, all gates of the network, and the network itself."""
    graph, _ = trace_with(model, example)
    flow = Flow(graph)
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    every, _ = recognised_gates(flow, model)
    gates: dict[str, list[ChannelGate]] = {}
    for gate in every:
        gates.setdefault(gate.module, []).append(gate)

    def cost(indexes: Iterable[int], gates: Sequence[ChannelGate]) -> Cost:
        ops = [graph.ops[index] for index in sorted(indexes)]
        names = {name for op in ops for name in op.parameters}
        return Cost(sum(sizes[name] for name in names), counted(flow, ops, gates).total)

    def operations(gates: Sequence[ChannelGate]) -> set[int]:
        return set().union(*(gate.ops for gate in gates))

    costs = {}
    together = operations(every)
    for site in sites:
        # Of several in one module each has its number.
        path, _, number = site.name.partition("[")
        mine = gates.get(path, [])
        mine = mine[int(number[:-1]) :][:1] if number else mine
        # What was named and is not recognised is all of its module.
        calls = [] if mine else [call for call in graph.calls if call.module == path]
        ops = operations(mine).union(*(range(call.first, call.end) for call in calls))
        costs[site.name] = cost(ops, mine)
        together |= ops
    network = Cost(sum(sizes.values()), counted(flow, graph.ops, every).total)
    return costs, cost(together, every), network
