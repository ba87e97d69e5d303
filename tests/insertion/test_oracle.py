"""The places are where timm has its own attention: an oracle that knows nothing of graphs."""

from typing import Any

import pytest
import timm
import torch
from surveys.oracle import ATTENTION, agreement
from torch import Tensor, nn

import senet

# Networks that timm has plain and with SE, and the placement of the latter.
PAIRS = {
    ("resnet50", "seresnet50"): "standard",
    ("resnext50_32x4d", "seresnext50_32x4d"): "standard",
    ("resnet33ts", "seresnet33ts"): "3x3",
    ("resnext26ts", "seresnext26ts"): "3x3",
}


@pytest.mark.parametrize(("plain", "se"), PAIRS)
def test_the_plain_twins_places_are_where_the_other_has_se(plain: str, se: str) -> None:
    """Unit by unit: the map at our place in the SE network is the one that its own SE is given."""
    sites = senet.plan(timm.create_model(plain), placement=PAIRS[plain, se]).sites
    model = timm.create_model(se, zero_init_last=False).eval()
    theirs = {name: each for name, each in model.named_modules() if type(each).__name__ in ATTENTION}
    given: dict[str, Tensor] = {}
    ours: dict[str, Tensor] = {}
    for name, module in theirs.items():

        def note(module: nn.Module, args: Any, name: str = name) -> None:
            given[name.rpartition(".")[0]] = args[0]

        module.register_forward_pre_hook(note)
    for site in sites:

        def keep(module: nn.Module, args: Any, output: Tensor | None = None, unit: str = site.unit) -> None:
            # Before the SE of the unit itself, which stands between a module and the next.
            ours.setdefault(unit, args[0] if output is None else output)

        at = model.get_submodule(site.attachment.module)
        if site.attachment.how == "output":
            at.register_forward_hook(keep)
        else:
            at.register_forward_pre_hook(keep)
    with torch.no_grad():
        model(torch.randn(1, 3, 64, 64))
    assert list(given) == [site.unit for site in sites]
    assert [given[site.unit].shape[1] for site in sites] == [site.channels for site in sites]
    for site in sites:
        if site.attachment.how == "output":
            assert given[site.unit] is ours[site.unit], site.unit


# Every place of theirs is one of ours, and ours alone are units in which they have none.
STRIPPED = {
    "seresnet50": ("standard", True),
    "legacy_seresnext26_32x4d": ("standard", True),
    "ecaresnet26t": ("standard", True),
    "efficientnet_b0": ("standard", True),
    "mobilenetv3_small_100": ("standard", False),
    "semnasnet_075": ("standard", False),
    "ghostnet_100": ("standard", False),
    "ese_vovnet19b_slim": ("standard", True),
    "regnety_002": ("3x3", True),
    "gcresnext26ts": ("3x3", True),
    "regnetz_b16": ("3x3", True),
}


@pytest.mark.parametrize("name", STRIPPED)
def test_where_attention_was_taken_out_there_is_a_place(name: str) -> None:
    placement, all_units = STRIPPED[name]
    found = agreement(timm.create_model(name), torch.randn(2, 3, 64, 64), placement)
    assert found is not None
    assert found.missed == ()
    assert found.shared == found.theirs > 0
    assert (found.beyond == ()) is all_units


def test_the_oracle_sees_a_wrong_place() -> None:
    found = agreement(timm.create_model("regnety_002"), torch.randn(2, 3, 64, 64), "standard")
    assert found is not None
    assert found.shared == 0
    assert agreement(timm.create_model("resnet18"), torch.randn(2, 3, 64, 64)) is None
