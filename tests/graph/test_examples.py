import pytest
import torch
from tests.networks import DataDependent, Net, Resnet1d, TwoInputs, Unit
from torch import Tensor, nn

from senet.errors import TraceError
from senet.graph.examples import trace_with


@pytest.mark.parametrize(("dimensions", "shape"), [(1, (2, 3, 1024)), (3, (2, 3, 16, 112, 112))])
def test_inputs_are_guessed_in_each_dimension(dimensions: int, shape: tuple[int, ...]) -> None:
    _, example = trace_with(Resnet1d(dimensions), None)
    assert isinstance(example, Tensor)
    assert example.shape == shape
    assert example.is_meta


def test_a_network_for_one_size_gets_it() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 26 * 26, 10))
    _, example = trace_with(model, None)
    assert isinstance(example, Tensor)
    assert example.shape == (2, 1, 28, 28)


def test_the_size_that_a_network_declares_is_tried_first() -> None:
    model = Net(Unit())
    model.pretrained_cfg = {"input_size": (3, 40, 48)}  # type: ignore[assignment]
    _, example = trace_with(model, None)
    assert isinstance(example, Tensor)
    assert example.shape == (2, 3, 40, 48)


def test_an_example_given_is_the_one_that_counts() -> None:
    graph, example = trace_with(Net(Unit()), torch.randn(1, 3, 10, 12))
    assert graph.shapes[0] == (1, 3, 10, 12)
    assert isinstance(example, Tensor)
    assert example.is_meta


@pytest.mark.parametrize("given", [None, torch.zeros(1, 3, 16, 16)])
def test_a_model_that_asks_for_numbers_gets_them(given: Tensor | None) -> None:
    graph, example = trace_with(Net(DataDependent()), given)
    assert graph.runs["units.0.often"] == 1
    assert isinstance(example, Tensor)
    assert not example.is_meta


def test_the_stem_need_not_be_made_first() -> None:
    class Late(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.later, self.stem = nn.Conv2d(16, 16, 3), nn.Conv2d(3, 16, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.later(self.stem(x))  # type: ignore[no-any-return]

    _, example = trace_with(Late(), None)
    assert isinstance(example, Tensor)
    assert example.shape[1] == 3


def test_a_hook_that_prepares_the_input_runs_where_it_must() -> None:
    model = Net(Unit())
    model.register_forward_pre_hook(lambda module, args: (args[0].permute(0, 3, 1, 2),))
    graph, _ = trace_with(model, torch.randn(1, 8, 8, 3))
    assert graph.runs["units.0"] == 1


@pytest.mark.parametrize(
    ("model", "message"),
    [(TwoInputs(), "does not run on an input of.*Give example="), (nn.Linear(3, 4), "it has no convolution")],
)
def test_what_cannot_be_guessed(model: nn.Module, message: str) -> None:
    with pytest.raises(TraceError, match=message):
        trace_with(model, None)
