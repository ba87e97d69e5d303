import functools

import pytest
import torch
from tests.networks import DataDependent, Net, Unit
from torch import Tensor, nn
from torch.nn import functional as F

from senet.errors import TraceError
from senet.graph.trace import Graph, trace


def _names(graph: Graph) -> list[str]:
    return [op.name for op in graph.ops]


def test_operations_values_and_runs_of_a_unit() -> None:
    graph = trace(Unit(8), torch.empty(2, 8, 6, 6))
    assert _names(graph) == [
        "convolution",
        "native_batch_norm",
        "relu",
        "convolution",
        "native_batch_norm",
        "add",
        "relu",
    ]
    assert [op.module for op in graph.ops] == ["c1", "b1", "", "c2", "b2", "", ""]
    total = graph.ops[5]
    assert total.inputs == (graph.ops[4].outputs[0], 0)
    assert graph.outputs == graph.ops[6].outputs
    assert graph.consumers(0) == [graph.ops[0], total]
    assert graph.op_of(0) is None
    assert graph.op_of(graph.outputs[0]) == graph.ops[6]
    (whole, first, *_) = graph.calls
    assert (whole.module, whole.arguments, whole.output, whole.first, whole.end) == (
        "",
        (0,),
        graph.outputs[0],
        0,
        7,
    )
    assert first.module == "c1"
    assert first.contains(0)
    assert not first.contains(1)


@pytest.mark.parametrize("how", ["plus", "in place", "add_", "torch.add"])
def test_spellings_of_a_sum_are_one(how: str) -> None:
    graphs = [trace(Unit(8, spelling), torch.empty(1, 8, 6, 6)) for spelling in ("plus", how)]
    assert _names(graphs[0]) == _names(graphs[1])
    assert graphs[0].ops[5].inputs == graphs[1].ops[5].inputs


def test_what_is_written_in_place_is_another_value_for_all_who_share_it() -> None:
    class Writes(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            y = x * 2
            view = y[:, :2]
            y.relu_()
            return view + 1, y + 1

    graph = trace(Writes(), torch.empty(1, 4, 3))
    written = graph.ops[[op.name for op in graph.ops].index("relu")]
    through_view, directly = graph.ops[-2:]
    assert len(written.outputs) == 2
    assert written.overwritten == written.inputs == graph.ops[0].outputs
    assert {through_view.inputs[0], directly.inputs[0]} == set(written.outputs)


def test_facts_of_convolutions_and_permutations() -> None:
    model = nn.Sequential(nn.Conv2d(4, 8, (3, 5), groups=2), nn.Flatten(2))
    graph = trace(model, torch.empty(1, 4, 9, 9))
    assert (graph.ops[0].weight, graph.ops[0].groups) == ((8, 2, 3, 5), 2)

    class Moves(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.permute(0, 2, 3, 1).transpose(1, 2)

    assert [op.dims for op in trace(Moves(), torch.empty(1, 2, 3, 4)).ops] == [(0, 2, 3, 1), (0, 2, 1, 3)]


def test_what_does_not_depend_on_the_input_is_no_value() -> None:
    class Constants(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(4))

        def forward(self, x: Tensor) -> Tensor:
            return x * (self.weight * 2).exp().view(1, 4, 1)

    (op,) = trace(Constants(), torch.empty(1, 4, 3)).ops
    assert (op.name, op.inputs) == ("mul", (0,))


class _Caches(nn.Module):
    """Keeps tensors on the way, as position codes are kept, and counts its runs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.drop = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout()
        self.cache: dict[str, Tensor] = {}
        self.register_buffer("runs", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.get_buffer("runs").add_(1)
        self.last = x
        self.cache["grid"] = torch.arange(x.shape[-1])
        return self.drop(self.norm(self.conv(x))) * torch.rand(())  # type: ignore[no-any-return]


@pytest.mark.parametrize("without_memory", [True, False])
def test_the_model_is_left_as_it_was(without_memory: bool) -> None:
    model = _Caches()
    model.norm.eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    attributes = set(model.__dict__)
    x = torch.randn(2, 3, 4, 4)
    state = torch.random.get_rng_state()
    trace(model, x, without_memory=without_memory)
    assert (model.training, model.norm.training, model.drop.training) == (True, False, True)
    assert set(model.__dict__) == attributes
    assert model.cache == {}
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(type(buffer) is Tensor for buffer in model.buffers())
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key
    assert model(torch.randn(2, 3, 4, 4)).shape == (2, 4, 4, 4)


class _KeepsElsewhere(nn.Module):
    """Keeps what it computes of no input outside of its own attributes, or deep inside them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.deep: dict[str, list[dict[int, Tensor]]] = {"sizes": [{}]}

    @staticmethod
    @functools.lru_cache
    def grid(width: int) -> Tensor:
        return torch.linspace(0, 1, width)

    def forward(self, x: Tensor) -> Tensor:
        self.deep["sizes"][0][x.shape[-1]] = x.new_ones(())
        return self.conv(x) + self.grid(x.shape[-1])  # type: ignore[no-any-return]


def test_what_is_kept_outside_of_the_model_has_its_numbers() -> None:
    model = _KeepsElsewhere()
    trace(model, torch.empty(1, 3, 4, 5))
    assert model.deep == {"sizes": [{}]}
    assert type(model.grid(5)) is Tensor
    assert model.grid(5).tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert type(model(torch.randn(1, 3, 4, 5))) is Tensor


def test_a_failure_leaves_no_trace_either() -> None:
    model = Net(Unit())
    with pytest.raises(TraceError, match=r"does not run on an input of \(1, 5, 8, 8\).*Give example="):
        trace(model, torch.empty(1, 5, 8, 8))
    assert model.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_hooks_of_users_do_not_see_the_run_and_stay() -> None:
    model, seen = Unit(8), []
    model.c1.register_forward_hook(lambda *args: seen.append(args))
    trace(model, torch.empty(1, 8, 4, 4))
    assert seen == []
    model(torch.randn(1, 8, 4, 4))
    assert len(seen) == 1
    trace(model, torch.empty(1, 8, 4, 4), with_hooks=True)
    assert len(seen) == 2


def test_numbers_where_the_model_asks_for_them() -> None:
    model, x = Net(DataDependent()), torch.randn(1, 3, 8, 8)
    with pytest.raises(TraceError, match="DataDependent"):
        trace(model, x)
    graph = trace(model, x, without_memory=False)
    assert graph.runs["units.0.often"] == 1
    assert graph.runs["units.0.never"] == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtypes(dtype: torch.dtype) -> None:
    assert len(trace(Unit(8).to(dtype), torch.empty(1, 8, 4, 4, dtype=dtype)).ops) == 7


def test_a_model_on_meta() -> None:
    with torch.device("meta"):
        model = Unit(8)
    assert len(trace(model, torch.empty(1, 8, 4, 4)).ops) == 7


def test_several_arguments_and_keywords() -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
            return {"sum": F.relu(x) + y}

    x, y = torch.empty(1, 2, 3), torch.empty(1, 2, 3)
    for example in ((x, y), [x, y], {"x": x, "y": y}):
        graph = trace(Two(), example)
        assert graph.ops[1].inputs == (graph.ops[0].outputs[0], 1)
        assert graph.outputs == graph.ops[1].outputs
