"""Levels, pyramid and head, on a network of three convolutions."""

import pytest
import torch
from torch import Tensor, nn

import senet
from senet.errors import OptionError
from senet.models import NetworkConfig
from senet.models.network import Level, Network, checked_stages


class _Chain(Network):
    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__(NetworkConfig("resnet20", num_classes=5), dropout)
        self.conv1 = nn.Conv2d(3, 4, 3, 2, padding=1)
        self.body = nn.Sequential(nn.Conv2d(4, 6, 1), nn.ReLU(), nn.Conv2d(6, 8, 3, 2, padding=1))
        self.finish([Level(1, ("conv1",), 4, 2), Level(2, ("body.0", "body.1", "body.2"), 8, 4)])


def test_the_scores_are_those_of_the_last_map() -> None:
    model = _Chain(dropout=0.5).eval()
    x = torch.randn(2, 3, 9, 12)
    first, last = model.pyramid(x)
    assert (first.shape, last.shape) == ((2, 4, 5, 6), (2, 8, 3, 3))
    torch.testing.assert_close(first, model.conv1(x))
    torch.testing.assert_close(last, model.body(first))
    torch.testing.assert_close(model(x), model.fc(last.mean((2, 3))))
    assert model.train().dropout.p == 0.5


def test_convolutions_start_as_he_et_al_say() -> None:
    torch.manual_seed(0)
    model = _Chain()
    weight, bias = model.body[2].weight, model.body[2].bias
    assert isinstance(weight, Tensor)
    assert isinstance(bias, Tensor)
    assert float(weight.detach().std()) == pytest.approx((2 / (8 * 9)) ** 0.5, rel=0.1)
    assert not bias.any()


@pytest.mark.parametrize(
    ("name", "conv"), [("mobilenet_v1", "layer5.1.depthwise.conv"), ("resnext50_32x4d", "layer1.0.conv2")]
)
def test_grouped_convolutions_too(name: str, conv: str) -> None:
    """What a channel adds up comes from its group alone."""
    torch.manual_seed(0)
    layer = senet.build(name).get_submodule(conv)
    assert isinstance(layer, nn.Conv2d)
    outgoing = layer.out_channels // layer.groups * 9
    assert float(layer.weight.detach().std()) == pytest.approx((2 / outgoing) ** 0.5, rel=0.1)


def test_modules_know_their_stage() -> None:
    model = _Chain()
    found = [model.stage_of(name) for name in ("conv1", "body.0", "body.2.se", "body", "fc", "conv", "")]
    assert found == [1, 2, 2, None, None, None, None]


@pytest.mark.parametrize("name", ["se_mobilenet_v1", "se_bn_inception", "se_resnet18", "se_shufflenet_v1_g3"])
def test_a_plan_has_the_stages_of_build(name: str) -> None:
    """What ``where=`` and ``stages=`` mean is one thing."""
    for stage in (3, 5):
        with torch.device("meta"):
            built, inserted = senet.build(name, stages=[stage]), senet.build(name, se=None)
        example = torch.empty(1, *senet.info(name).input_size, device="meta")
        senet.insert(inserted, where=stage, example=example, init="random")
        assert set(inserted.state_dict()) == set(built.state_dict())


@pytest.mark.parametrize(
    ("stages", "words"), [([1, 5], "there is no stage 5. Allowed: 1, 2"), ([], "no stage is named")]
)
def test_stages_that_are_not_there(stages: list[int], words: str) -> None:
    assert checked_stages(None, (1, 2)) == (1, 2)
    assert checked_stages([2, 1, 2], (1, 2)) == (1, 2)
    with pytest.raises(OptionError, match=words):
        checked_stages(stages, (1, 2))
