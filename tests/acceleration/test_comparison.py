from typing import Any

import pytest
import torch
from torch import Tensor, nn

import senet
from senet.acceleration.absorption import Fold
from senet.acceleration.comparison import change_of_folding, inputs_for
from senet.acceleration.folding import Folding
from senet.errors import InsertionError

HALF = torch.full((8,), 0.5, dtype=torch.float64)
RIGHT = [Folding("1", HALF, (Fold("0", "output", HALF),), False, 76)]
WRONG = [Folding("1", HALF, (), False, 76)]


def _model(*after: nn.Module) -> Any:
    return nn.Sequential(nn.Conv2d(3, 8, 1), senet.SqueezeExcitation(8, 4), *after).eval()


def test_what_is_right_differs_by_rounding_and_changes_nothing() -> None:
    model = _model()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    change = change_of_folding(model, RIGHT, [torch.randn(2, 3, 8, 8)])
    assert isinstance(change, float)
    assert change < 1e-14
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not model[1]._forward_hooks


def test_what_is_wrong_is_an_error() -> None:
    with pytest.raises(InsertionError, match=r"it differs by 1 from the network with constant gates"):
        change_of_folding(_model(), WRONG, [torch.randn(2, 3, 8, 8)])


class _Needs(nn.Module):
    """A network that looks into its block."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.se = nn.Conv2d(3, 8, 1), senet.SqueezeExcitation(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        gated: Tensor = self.se(self.conv(x)) + self.se.channels
        return gated


def test_a_network_that_needs_its_block_is_an_error() -> None:
    with pytest.raises(InsertionError, match="without the blocks it no longer runs"):
        senet.fold_gates(_Needs(), {"se": 1.0})


def test_what_cannot_be_run_is_said() -> None:
    assert change_of_folding(_model().to("meta"), RIGHT, []) == "the network is on meta"
    why = change_of_folding(_model(), RIGHT, [torch.randn(2, 5, 8, 8)])
    assert str(why).startswith("in float64 the network does not run (")


def test_the_smallest_input_that_the_network_runs_on_is_enough() -> None:
    sizes = []

    class _Sized(nn.Module):
        part_of_network = True

        def forward(self, x: Tensor) -> Tensor:
            sizes.append(tuple(x.shape))
            if x.shape[-1] < 100:
                raise RuntimeError("too small")
            return x

    found = inputs_for(torch.empty(2, 3, 224, 224, device="meta"))
    assert isinstance(change_of_folding(_model(_Sized()), RIGHT, found), float)
    assert sizes == [(1, 8, 64, 64), (2, 8, 224, 224), (2, 8, 224, 224)]
    assert inputs_for({"x": 1}) == [{"x": 1}]


def test_what_users_have_attached_sees_none_of_it() -> None:
    model = _model()
    seen = []
    model[0].register_forward_hook(lambda *_: seen.append(1))
    change_of_folding(model, [Folding("1", HALF, (), True, 76)], [torch.randn(2, 3, 8, 8)])
    assert not seen
