"""VGG-16 with batch norm: its exact size, torchvision's keys and outputs, and SE after each ReLU."""

from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import senet
from senet import SEConfig, SqueezeExcitation
from senet.errors import OptionError
from senet.models import parameter_count

CONVOLUTIONS = {
    1: (0, 3),
    2: (7, 10),
    3: (14, 17, 20),
    4: (24, 27, 30),
    5: (34, 37, 40),
}


def on_meta(name: str, **options: Any) -> Any:
    with torch.device("meta"):
        return senet.build(name, **options)


def blocks(model: nn.Module) -> list[str]:
    return [name for name, m in model.named_modules() if isinstance(m, SqueezeExcitation)]


def test_sizes_of_the_facts() -> None:
    assert parameter_count("vgg16_bn") == 138_365_992
    assert parameter_count("se_vgg16_bn", se=SEConfig(bias=False)) == 138_365_992 + 226_304
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        on_meta("vgg16_bn").eval()(torch.empty(1, 3, 224, 224, device="meta"))
    assert round(counter.get_total_flops() / 2e9, 2) == 15.47


def test_torchvisions_weights_fit_and_give_its_outputs() -> None:
    theirs = torchvision.models.vgg16_bn(num_classes=5, init_weights=False).double().eval()
    for module in theirs.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
    # Nothing is copied: each network has a gigabyte.
    ours = on_meta("vgg16_bn", num_classes=5).eval()
    ours.load_state_dict(theirs.state_dict(), assign=True)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for size in (32, 45):
        x = torch.randn(2, 3, size, 32, dtype=torch.float64)
        with torch.no_grad():
            found, wanted = ours(x), theirs(x)
        assert found.std(0).min() > 1e-6
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)


def test_se_stands_after_the_relu_of_each_convolution() -> None:
    plan = senet.plan(on_meta("vgg16_bn"), example=torch.empty(2, 3, 64, 64, device="meta"))
    convolutions = [index for indices in CONVOLUTIONS.values() for index in indices]
    assert [site.attachment.module for site in plan] == [f"features.{index + 2}" for index in convolutions]
    assert [site.stage for site in plan] == [k for k, indices in CONVOLUTIONS.items() for _ in indices]
    assert blocks(on_meta("se_vgg16_bn")) == [site.block for site in plan]


@pytest.mark.parametrize("stages", [(5,), (1, 3)])
def test_stages_get_se_where_asked(stages: tuple[int, ...]) -> None:
    wanted = [f"features.{index}.se" for stage in stages for index in CONVOLUTIONS[stage]]
    assert blocks(on_meta("se_vgg16_bn", stages=stages)) == wanted


def test_what_does_not_exist_is_an_error() -> None:
    with pytest.raises(OptionError, match="1, 2, 3, 4, 5"):
        on_meta("se_vgg16_bn", stages=(6,))
    for placement in ("pre", "post", "identity", "3x3"):
        with pytest.raises(OptionError, match="no unit of VGG has that place"):
            on_meta("se_vgg16_bn", placement=placement)
    with pytest.raises(OptionError, match="hidden width"):
        on_meta("se_vgg16_bn", se=SEConfig(reduction=128))
    with pytest.raises(OptionError, match="dropout"):
        on_meta("vgg16_bn", dropout=1.0)


def test_dropout_and_channels_are_options() -> None:
    for options, p in (({}, 0.5), ({"dropout": 0.1}, 0.1)):
        model = on_meta("vgg16_bn", in_channels=1, num_classes=7, **options)
        assert [m.p for m in model.modules() if isinstance(m, nn.Dropout)] == [p, p]
        assert model(torch.empty(2, 1, 32, 32, device="meta")).shape == (2, 7)


def test_the_real_network() -> None:
    """Its initialisation, its pyramid, and the same by insertion: one test, as its weights are many."""
    built: Any = senet.build("se_vgg16_bn", num_classes=3).eval()
    for layer in (built.classifier[0], built.classifier[3]):
        assert layer.weight.std().item() == pytest.approx(0.01, rel=0.01)
        assert not layer.bias.any()
    assert built.features[40].weight.std().item() == pytest.approx((2 / (9 * 512)) ** 0.5, rel=0.01)

    inserted = on_meta("vgg16_bn", num_classes=3).eval()
    senet.insert(inserted, example=torch.empty(2, 3, 32, 32, device="meta"), init="random")
    inserted.load_state_dict(built.state_dict(), assign=True)
    assert list(inserted.state_dict()) == list(built.state_dict())

    x = torch.randn(2, 3, 65, 32)
    seen: list[Tensor] = []
    for level in built.pyramid_info:
        last = built.get_submodule(level.modules[-1])
        last.register_forward_hook(lambda module, args, out: seen.append(out.clone()))
    with torch.no_grad():
        assert torch.equal(inserted(x), built(x))
        seen.clear()
        maps = built.pyramid(x)
    assert [tuple(each.shape[1:]) for each in maps] == [
        (64, 65, 32),
        (128, 32, 16),
        (256, 16, 8),
        (512, 8, 4),
        (512, 4, 2),
    ]
    assert [level.stride for level in built.pyramid_info] == [1, 2, 4, 8, 16]
    assert all(torch.equal(map_, then) for map_, then in zip(maps, seen, strict=True))
