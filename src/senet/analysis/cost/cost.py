"""What a network costs, and SE in it: counted without running it, and measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from senet.acceleration.pending import computed
from senet.analysis.cost.latency import Spread, alternate
from senet.analysis.cost.recognised import recognised_gates
from senet.analysis.cost.replica import on_meta, replica, without
from senet.analysis.cost.report import CostReport, Part
from senet.analysis.cost.saved import saved_bytes
from senet.analysis.watching import unwrapped
from senet.block import SEConfig
from senet.errors import OptionError, TraceError, require, require_count
from senet.graph.arithmetic import counted
from senet.graph.attention import ChannelGate
from senet.graph.examples import trace_with
from senet.graph.flow import Flow
from senet.graph.trace import Graph, Op, device_of
from senet.insertion.plan import check_unwrapped
from senet.models import NetworkConfig, info
from senet.models.network import Network
from senet.paper import Published
from senet.passport import passport

# Seconds of each run, by what ran: one of these, or a block's name.
_WHOLE = ("network", "without SE")
_Seconds = dict[str, list[float]]
# Operations before and after a block on which it depends what its maps are saved for.
_NEAR = 12


def cost(
    model: nn.Module,
    input: Sequence[int] | None = None,
    *,
    vs: nn.Module | None = None,
    batch: int = 1,
    runs: int = 30,
    device: torch.device | None = None,
) -> CostReport:
    """What ``model`` costs, each of its SE blocks, and all of them.

    Parameters; multiply-adds of one image, as the paper counts; the bytes that a batch moves forward and
    keeps for the backward; and the latency of a batch. The first four are exact and need no memory.
    docs/cost.md says how each is counted. The model is left as it was.

    Args:
        model: any network, ours or not.
        input: (C, *spatial) of an image, such as (3, 224, 224); None: what the network is made for.
        vs: a second network, counted and measured beside the first on the same images.
        batch: images.
        runs: how often each candidate is measured, in turn; 0 measures nothing.
        device: where it is measured; None: where the parameters are.

    Raises:
        InsertionError: the network is TorchScript or has lazy layers.
        OptionError: it does not take such images, or a value is not possible.
        TraceError: no usual size is one that it takes.
    """
    require_count("batch", batch)
    require("runs", runs, isinstance(runs, int) and (runs == 0 or runs > 1), "0, or at least 2")
    require("input", input, input is None or _is_size(input), "(C, *spatial), such as (3, 224, 224)")
    first = _Subject(model, input, batch)
    subjects = [first] if vs is None else [first, _Subject(vs, first.input, batch)]
    device = device_of(model) if device is None else device
    # Networks in turn with networks, blocks with blocks: what ran before has an effect on the caches.
    networks: dict[str, Callable[[], object]] = {}
    blocks: dict[str, Callable[[], object]] = {}
    if runs and device.type != "meta":
        for number, subject in enumerate(subjects):
            for name, run in subject.candidates(device).items():
                (networks if name in _WHOLE else blocks)[f"{number} {name}"] = run
    measured = alternate(networks, runs) | alternate(blocks, runs)
    reports = []
    for number, subject in enumerate(subjects):
        own = {key.partition(" ")[2]: each for key, each in measured.items() if key.startswith(f"{number} ")}
        reports.append(subject.report(own, device))
    if vs is None:
        return reports[0]
    ratio = _ratio(measured.get("0 network", ()), measured.get("1 network", ()))
    return reports[0].beside(reports[1], ratio)


@dataclass(frozen=True)
class _Block:
    """One SE block.

    Args:
        name: of the block.
        path: of the module that it is in.
        gates: its products; several where it runs several times.
        ops: all of its operations.
        whole: whether the module takes the map and returns it gated.
    """

    name: str
    path: str
    gates: list[ChannelGate]
    ops: list[Op]
    whole: bool


class _Subject:
    """A network whose cost is asked."""

    def __init__(self, model: nn.Module, input: Sequence[int] | None, batch: int) -> None:
        self.model = unwrapped(model)
        check_unwrapped(self.model)
        self.batch = batch
        floats = (each.dtype for each in self.model.parameters() if each.is_floating_point())
        self.dtype = next(floats, torch.float32)
        self.name = str(getattr(getattr(self.model, "config", None), "name", type(self.model).__name__))
        self.flow = Flow(self._graph(input))
        self.input = self.flow.graph.shapes[0][1:]
        self.gates, self.lost = recognised_gates(self.flow, on_meta(self.model, fused=False))
        self.blocks = _blocks(self.flow.graph, self.gates)

    def _graph(self, input: Sequence[int] | None) -> Graph:
        bare = on_meta(self.model, fused=False)
        if input is None and isinstance(self.model, Network):
            input = (self.model.config.in_channels, *info(self.model.config.name).input_size[1:])
        if input is None:
            _, example = trace_with(bare, None)
            input = tuple(example.shape[1:]) if isinstance(example, Tensor) else ()
        images = self._images(input, torch.device("meta"))
        try:
            try:
                return trace_with(bare, images)[0]
            except TraceError:
                if device_of(self.model).type == "meta":
                    raise
                # What it does may depend on numbers: it gets them.
                return trace_with(self.model, self._images(input, device_of(self.model)))[0]
        except TraceError as error:
            raise OptionError(
                f"cost({self.name}, input={tuple(input)})",
                found=f"the network does not run on such images ({error.__cause__})",
                allowed="(C, *spatial) of images that it takes",
                do="Leave input= out for the size that it is made for, or give another.",
            ) from error

    def _images(self, size: Sequence[int], device: torch.device) -> Tensor:
        images = torch.empty(self.batch, *size, dtype=self.dtype, device=device)
        if device.type != "meta":
            images.normal_(generator=torch.Generator(device).manual_seed(0))
        return images.contiguous(memory_format=_layout(images))

    # -- measured ---------------------------------------------------------------------------

    @property
    def removable(self) -> bool:
        """Whether there is a network without its SE."""
        return bool(self.blocks) and all(block.whole for block in self.blocks)

    def candidates(self, device: torch.device) -> dict[str, Callable[[], object]]:
        """What is measured on a device, ready to be called."""
        there = replica(self.model, lambda each: each.to(device, copy=True, memory_format=_layout(each)))
        images = self._images(self.input, device)
        found = {"network": _runner(there, images)}
        if self.removable:
            plain = without(there, [block.path for block in self.blocks])
            found["without SE"] = _runner(plain, images)
        for block in self.blocks:
            if block.whole:
                u = self._images(self._map_of(block), device)
                found[block.name] = _runner(there.get_submodule(block.path), u)
        return found

    def _map_of(self, block: _Block) -> tuple[int, ...]:
        return self.flow.graph.shapes[block.gates[0].gated][1:]

    # -- counted ----------------------------------------------------------------------------

    def report(self, seconds: _Seconds, device: torch.device) -> CostReport:
        """All that is known of the network."""
        ms = {name: [1000 * each for each in values] for name, values in seconds.items()}
        plain = ms.get("without SE")
        extra = None if plain is None else [a - b for a, b in zip(ms["network"], plain, strict=True)]
        saved, unsaved = self._saved
        blocks = [
            self._part(block.name, [block], saved.get(block.name), ms.get(block.name))
            for block in self.blocks
        ]
        return CostReport(
            network=self.name,
            input=self.input,
            batch=self.batch,
            blocks=tuple(blocks),
            se=self._part("SE", self.blocks, saved.get("SE", None if self.blocks else 0), extra),
            total=self._part("network", None, saved.get("network"), ms.get("network")),
            inside=tuple(block.name for block in self.blocks if not block.whole),
            unsaved=unsaved,
            ratio=_ratio(ms.get("network", ()), plain or ()),
            printed=_printed(self.model),
            conditions={"device": str(device), "dtype": str(self.dtype).removeprefix("torch.")},
            passport=passport(),
            lost=self.lost,
        )

    def _part(
        self, name: str, blocks: Sequence[_Block] | None, saved: int | None, ms: Sequence[float] | None
    ) -> Part:
        """What some blocks cost, or the whole network."""
        parameters = dict(self.model.named_parameters())
        if blocks is None:
            ops, gates = self.flow.graph.ops, self.gates
            read: Iterable[str] = parameters
        else:
            ops = list({op.index: op for block in blocks for op in block.ops}.values())
            gates = [gate for block in blocks for gate in block.gates]
            read = {name for op in ops for name in op.parameters}
        u = self._map_of(blocks[0]) if blocks and len(blocks) == 1 and name == blocks[0].name else ()
        return Part(
            name,
            channels=u[0] if u else 0,
            size=u[1:],
            parameters=sum(parameters[each].numel() for each in read),
            multiply_adds=counted(self.flow, ops, gates).total,
            moved=sum(op.moved for op in ops),
            saved=saved,
            latency=None if ms is None else Spread.of(ms),
        )

    @property
    def _saved(self) -> tuple[dict[str, int], str]:
        """What the network saves, and how much less without a block, or all; and why that is not known."""
        bare = on_meta(self.model, fused=True).train()
        images = self._images(self.input, torch.device("meta"))
        try:
            total = saved_bytes(bare, images)
        except Exception as error:
            # In training a network may do what tensors without memory cannot.
            return {}, f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"

        found = {"network": total}
        known: dict[object, int] = {}
        for block in tqdm(
            [each for each in self.blocks if each.whole], "counting", leave=False, disable=None
        ):
            around = self._around(block)
            if around not in known:
                known[around] = total - saved_bytes(without(bare, [block.path]), images)
            found[block.name] = known[around]
        if self.removable:
            found["SE"] = total - saved_bytes(without(bare, [block.path for block in self.blocks]), images)
        return found, ""

    def _around(self, block: _Block) -> object:
        """What runs before, in and after a block; where that is the same, it saves the same."""
        first, last = block.ops[0].index, block.ops[-1].index
        near = self.flow.graph.ops[max(first - _NEAR, 0) : last + 1 + _NEAR]
        return tuple((op.name, op.moved, op.products, bool(op.overwritten)) for op in near)


def _blocks(graph: Graph, gates: Sequence[ChannelGate]) -> list[_Block]:
    found: dict[str, list[list[ChannelGate]]] = {}
    for gate in gates:
        groups = found.setdefault(gate.module, [])
        if groups and graph.runs[gate.module] > 1:
            groups[0].append(gate)
        else:
            groups.append([gate])
    return [
        _Block(
            name=path if len(groups) == 1 else f"{path}[{number}]",
            path=path,
            gates=mine,
            ops=[graph.ops[index] for index in sorted(frozenset().union(*(gate.ops for gate in mine)))],
            whole=bool(path) and len(groups) == 1 and all(_is_whole(graph, gate) for gate in mine),
        )
        for path, groups in found.items()
        for number, mine in enumerate(groups)
    ]


def _is_whole(graph: Graph, gate: ChannelGate) -> bool:
    return any(
        call.module == gate.module and call.arguments == (gate.gated,) and call.output == gate.op.outputs[0]
        for call in graph.calls
    )


def _runner(module: nn.Module, x: Tensor) -> Callable[[], object]:
    module = module.eval()

    def run() -> object:
        with torch.inference_mode():
            return computed(module(x))

    return run


def _layout(tensor: Tensor) -> torch.memory_format:
    return torch.channels_last if tensor.ndim == 4 else torch.contiguous_format


def _ratio(values: Sequence[float], others: Sequence[float]) -> Spread | None:
    """Of two candidates, round by round."""
    ratios = [value / other for value, other in zip(values, others, strict=False)]
    return Spread.of(ratios) if ratios else None


def _printed(model: nn.Module) -> tuple[Published, ...]:
    """What the paper prints of the cost of this very network, but for its layout."""
    if not isinstance(model, Network):
        return ()
    config, known = model.config, info(model.config.name)
    default = NetworkConfig(
        known.name, known.classes, se=SEConfig() if known.se else None, layout=config.layout
    )
    if config != default:
        return ()
    found: dict[str, Published] = {}
    for each in known.published:
        if each.by == "paper" and each.column in ("gmacs", "mmacs", "parameters"):
            found.setdefault(each.column, each)
    return tuple(found.values())


def _is_size(value: Any) -> bool:
    whole = isinstance(value, Sequence) and all(isinstance(each, int) and each > 0 for each in value)
    return whole and 2 <= len(value) <= 4
