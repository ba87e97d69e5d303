"""The catalogue of published weights: each row is what its library says, and fits the network it names."""

import math
import re
from typing import Any

import pytest
import timm
import torch
from timm.models import get_pretrained_cfg, list_pretrained

import senet
from senet.errors import OptionError
from senet.paper import published
from senet.weights.layouts import LAYOUTS
from senet.weights.published import PublishedWeights, all_published, find, published_weights

ROWS = all_published()
TIMM = [weights for weights in ROWS if weights.name.startswith("timm:")]
KNOWN: frozenset[str] = frozenset(list_pretrained())


def cfg_of(tag: str) -> Any:
    return get_pretrained_cfg(tag)


# ------------------------------------------------------------------ every row


def test_names_are_unique_and_none_is_missing() -> None:
    assert len({weights.name for weights in ROWS}) == len(ROWS) == 89
    assert {weights.name.partition(":")[0] for weights in ROWS} == {"caffe", "timm", "hf"}
    assert [weights.name for weights in ROWS[:2]] == ["caffe:SE-BN-Inception", "caffe:SE-ResNet-50"]


def test_a_row_is_whole_and_of_a_layout_that_can_be_read() -> None:
    for weights in ROWS:
        assert senet.info(weights.network).classes == 1000
        fitting = [
            layout
            for layout in LAYOUTS
            if (layout.library, layout.networks.get(weights.network))
            == (weights.file_layout, weights.architecture)
        ]
        assert [layout.sits for layout in fitting] == [weights.layout]
        for accuracy in (weights.top1, weights.top5):
            assert re.fullmatch(r"\d\d\.\d{2,3}", accuracy)
        assert float(weights.top1) < float(weights.top5)
        assert all((weights.licence, weights.source))


def test_the_preprocessing_has_the_keys_of_a_header() -> None:
    for weights in ROWS:
        said = weights.preprocessing
        assert list(said) == ["channels", "size", "resize", "mean", "std", "interpolation"]
        assert said["channels"] == len(said["mean"]) == len(said["std"]) == 3
        assert 224 <= said["size"] <= said["resize"]
        assert said["interpolation"] in ("bilinear", "bicubic")
        scale = 1 / 255 if weights.file_layout == "caffe" else 1
        assert all(scale / 5 < std <= scale for std in said["std"])


def test_a_layout_that_has_one_preprocessing_has_that_of_its_rows() -> None:
    compared = 0
    for layout in LAYOUTS:
        for weights in ROWS:
            named = layout.networks.get(weights.network) == weights.architecture
            if named and layout.library == weights.file_layout and layout.preprocessing is not None:
                assert dict(weights.preprocessing) == dict(layout.preprocessing)
                compared += 1
    assert compared >= 19


def test_where_it_is_has_one_form() -> None:
    for weights in ROWS:
        if weights.url is not None:
            assert weights.hub is None
            # As torch.hub names files: the hash begins with these digits.
            assert re.fullmatch(r"https://github\.com/\S+/[a-z0-9_]+-[0-9a-f]{8}\.pth", weights.url)
        elif weights.hub is not None:
            assert re.fullmatch(r"(timm|smp-hub)/[a-z0-9_.]+", weights.hub)
            assert weights.hub.rpartition("/")[2] == re.split("[:/]", weights.name)[-1]
        else:
            assert "github.com/hujie-frank/SENet" in weights.note
        assert (weights.revision is not None) == weights.name.startswith("hf:")
        assert re.fullmatch("[0-9a-f]{40}", weights.revision or "0" * 40)


def test_what_must_not_be_used_commercially_says_so() -> None:
    for weights in ROWS:
        assert ("-nc-" in weights.licence) == ("not for commercial use" in weights.note)
    assert sum("-nc-" in weights.licence for weights in ROWS) == 8


# ------------------------------------------------------------------ against timm


@pytest.mark.skipif(timm.__version__ != "1.0.31", reason="the catalogue is of timm 1.0.31")
def test_every_set_that_timm_has_of_these_architectures_is_in_the_catalogue() -> None:
    architectures = {weights.architecture for weights in TIMM}
    mine = {weights.name.removeprefix("timm:") for weights in TIMM}
    theirs = {tag for tag in KNOWN if tag.partition(".")[0] in architectures}
    assert {tag for tag in theirs - mine if cfg_of(tag).num_classes == 1000} == set()


@pytest.mark.parametrize("weights", TIMM, ids=lambda weights: str(weights.name))
def test_a_row_of_timm_says_what_timm_says(weights: PublishedWeights) -> None:
    tag = weights.name.removeprefix("timm:")
    if tag not in KNOWN:
        pytest.skip(f"this timm has no {tag}")
    cfg = cfg_of(tag)
    assert cfg.num_classes == 1000
    assert cfg.crop_mode == "center"
    assert cfg.hf_hub_id == weights.hub if cfg.hf_hub_id else cfg.url == weights.url
    if cfg.license is not None:
        assert cfg.license == weights.licence
    size = (cfg.test_input_size or cfg.input_size)[-1]
    crop = cfg.crop_pct
    if cfg.test_input_size is not None:
        crop = cfg.test_crop_pct or crop
    assert dict(weights.preprocessing) == {
        "channels": 3,
        "size": size,
        "resize": math.floor(size / crop),
        "mean": list(cfg.mean),
        "std": list(cfg.std),
        "interpolation": cfg.interpolation,
    }


@pytest.mark.parametrize("name", sorted({f"{row.network} {row.architecture}" for row in TIMM}))
def test_the_network_has_timms_parameters(name: str) -> None:
    network, architecture = name.split()
    with torch.device("meta"):
        theirs = timm.create_model(architecture)
    assert senet.info(network).parameters == sum(parameter.numel() for parameter in theirs.parameters())


def test_the_release_has_the_errors_that_the_paper_room_has_of_it() -> None:
    for weights in ROWS:
        if weights.file_layout == "caffe":
            errors = {
                number.column: number.value
                for number in published(weights.network)
                if number.key == "released" and number.column in ("top1", "top5")
            }
            assert float(weights.top1) == pytest.approx(100 - errors["top1"])
            assert float(weights.top5) == pytest.approx(100 - errors["top5"])


# ------------------------------------------------------------------ asking


def test_the_weights_of_a_network_come_in_the_files_order() -> None:
    names = [weights.name for weights in published_weights("se_resnet50")]
    assert names[:2] == ["caffe:SE-ResNet-50", "timm:legacy_seresnet50.in1k"]
    assert names[-1] == "hf:smp-hub/se_resnet50.imagenet"
    assert len(names) == 7
    assert published_weights("se_resnet18") == ()
    assert published_weights("no_such_network") == ()


def test_a_name_finds_its_weights() -> None:
    for weights in ROWS:
        assert find(weights.name) is weights
    for unknown in ("timm:seresnet50.no_such_tag", "timm:efficientnet_b0", "hf:some/where", "timm:", ""):
        assert find(unknown) is None


def test_accuracies_keep_their_digits() -> None:
    found = find("timm:resnet50.a1_in1k")
    assert found is not None
    assert (found.top1, found.top5) == ("81.240", "95.112")


def test_a_tag_can_be_left_out_where_there_is_one() -> None:
    assert find("timm:legacy_seresnet50") is find("timm:legacy_seresnet50.in1k") is not None
    with pytest.raises(
        OptionError, match=r"are 2 of that name.*gluon_in1k, timm:seresnext50_32x4d\.racm_in1k"
    ):
        find("timm:seresnext50_32x4d")


@pytest.mark.parametrize("name", ["timm:legacy_seresnet18", "timm:legacy_seresnet34.in1k"])
def test_weights_that_would_compute_something_else_are_refused(name: str) -> None:
    with pytest.raises(OptionError, match=r"fit no network of senet.*ReLU between"):
        find(name)


@pytest.mark.parametrize(("depth", "relu"), [("18", True), ("50", False)])
def test_the_reason_for_the_refusal_holds(depth: str, relu: bool) -> None:
    torch.manual_seed(0)
    model: Any = timm.create_model(f"legacy_seresnet{depth}").eval()
    entering: list[float] = []
    model.layer1[0].se_module.register_forward_pre_hook(
        lambda module, inputs: entering.append(float(inputs[0].min()))
    )
    with torch.no_grad():
        model(torch.randn(1, 3, 32, 32))
    assert (entering[0] >= 0) == relu
