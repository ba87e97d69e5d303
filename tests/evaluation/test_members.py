import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import senet
from senet.data import open_data
from senet.data.preprocessing import Preprocessing, preprocessing_for
from senet.errors import OptionError, WeightsError
from senet.evaluation.members import changed, check_scores, check_size, member_named

DIGITS = open_data("digits")
PREPROCESSING = preprocessing_for(DIGITS.train, 1, image_size=16, network_size=32)
HEADER: dict[str, Any] = {
    "preprocessing": PREPROCESSING.to_dict(),
    "classes": list(DIGITS.classes),
    "data": "digits",
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "w.safetensors"


def _save(path: Path, num_classes: int = 10, **changes: Any) -> None:
    model = senet.build("se_resnet20", num_classes=num_classes, in_channels=1)
    header = {key: value for key, value in (HEADER | changes).items() if value is not None}
    senet.weights.save(model, path, header=header)


def test_weights_say_what_they_are_of(path: Path) -> None:
    _save(path)
    member = member_named(str(path), None)
    assert member.config is not None
    assert (member.config.name, member.header["data"]) == ("se_resnet20", "digits")
    assert member.preprocessing(DIGITS, None) == PREPROCESSING
    member.check_classes(DIGITS)
    saved = senet.load(path).state_dict()
    for network in (member.network(DIGITS), member_named("se_resnet20", str(path)).network(DIGITS)):
        assert all(torch.equal(value, saved[key]) for key, value in network.state_dict().items())


def test_a_state_dict_needs_the_networks_name(path: Path) -> None:
    model = senet.build("resnet20", num_classes=10, in_channels=1)
    torch.save(model.state_dict(), path.with_suffix(".pth"))
    member = member_named("resnet20", str(path.with_suffix(".pth")))
    assert member.config is None
    network = member.network(DIGITS)
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in network.state_dict().items())
    assert not network.training
    with pytest.raises(WeightsError, match="Give --preprocessing: data"):
        member.preprocessing(DIGITS, None)
    assert member.preprocessing(DIGITS, "data").size == 8


ANOTHER = "tests.evaluation.networks:of_another_library"


def test_a_network_of_another_library_takes_its_weights(path: Path) -> None:
    model = senet.load(ANOTHER)
    torch.save(model.state_dict(), path.with_suffix(".pth"))
    member = member_named(ANOTHER, str(path.with_suffix(".pth")))
    found = member.network(DIGITS)
    assert not found.training
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in found.state_dict().items())
    # Nothing says what it is made for: what is usual, but not more than the images have.
    assert member.preprocessing(DIGITS, "data").size == 8
    with pytest.raises(OptionError, match=f"^'{ANOTHER}': a network fresh from its name knows nothing"):
        member_named(ANOTHER, None)
    _save(path)
    with pytest.raises(WeightsError, match="do not fit"):
        member_named(ANOTHER, str(path)).network()


def test_a_path_is_no_network_of_another_library(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    _save(path)
    path.rename("exp:1")
    assert member_named("exp:1", None).config is not None
    with pytest.raises(OptionError, match=r"Say NAME --weights timm:resnet18\.a1_in1k\."):
        member_named("timm:resnet18.a1_in1k", None)


def test_scores_have_to_be_of_the_datas_classes() -> None:
    check_scores(torch.zeros(1, 10), "x", DIGITS)
    for scores in (torch.zeros(1, 1000), torch.zeros(1, 10, 4, 4)):
        with pytest.raises(WeightsError, match=r"^'x' on 'digits': it gives scores of .* has 10 classes"):
            check_scores(scores, "x", DIGITS)


def test_old_headers_have_no_squash(path: Path) -> None:
    old = {key: value for key, value in PREPROCESSING.to_dict().items() if key != "squash"}
    _save(path, preprocessing=old)
    assert member_named(str(path), None).preprocessing(DIGITS, None) == PREPROCESSING


@pytest.mark.parametrize(
    ("words", "changes"),
    [
        (r"the weights know 3 classes \(a, b, c", {"classes": ["a", "b", "c"]}),
        ("class 8 is '9' for the weights and '8' in the data", {"classes": [*"01234567", "9", "8"]}),
        ("Allowed: the same classes in the same order", {"classes": [*"9876543210"]}),
        ("the weights know 11 classes, the data has 10", {"classes": None, "num_classes": 11}),
        ("in the order of the devkit", {"class_order": "devkit"}),
    ],
)
def test_other_classes_are_refused(words: str, changes: dict[str, Any], path: Path) -> None:
    _save(path, **changes)
    with pytest.raises(WeightsError, match=words) as caught:
        member_named(str(path), None).check_classes(DIGITS)
    assert str(caught.value).startswith(f"'{path}' on 'digits': ")


def test_other_images_are_refused(path: Path) -> None:
    colour = PREPROCESSING.to_dict() | {"channels": 3, "mean": (0.5,) * 3, "std": (0.5,) * 3}
    _save(path, preprocessing=colour)
    member = member_named(str(path), None)
    with pytest.raises(WeightsError, match="images of 3 channels, the data has 1"):
        member.preprocessing(DIGITS, None)
    with pytest.raises(WeightsError, match="images of 3 channels, the data has 1"):
        member.preprocessing(DIGITS, "imagenet")
    _save(path, preprocessing={"size": 8})
    with pytest.raises(WeightsError, match="preprocessing is unreadable"):
        member_named(str(path), None).preprocessing(DIGITS, None)


def test_names_and_weights_have_to_fit(path: Path) -> None:
    with pytest.raises(OptionError, match="Give --weights"):
        member_named("se_resnet20", None)
    with pytest.raises(OptionError, match="neither a network's name nor a path"):
        member_named("nowhere", None)
    _save(path)
    with pytest.raises(WeightsError, match="the weights are of se_resnet20"):
        member_named("resnet20", str(path))


def test_the_caller_overrides_sizes() -> None:
    carried = Preprocessing(3, 224, 256, (0.5,) * 3, (0.5,) * 3, "bicubic")

    def sizes(**changes: Any) -> tuple[int, int, bool]:
        wanted: dict[str, Any] = {"size": None, "scales": (), "squash": False} | changes
        found = changed(carried, "a", **wanted)
        assert found.interpolation == "bicubic"
        return found.size, found.resize, found.squash

    assert sizes() == (224, 256, False)
    assert sizes(size=320, scales=(320,)) == (320, 320, False)
    assert sizes(size=299, scales=(352, 384), squash=True) == (299, 352, True)
    squashed = Preprocessing(3, 224, 256, (0.5,) * 3, (0.5,) * 3, squash=True)
    assert changed(squashed, "a", size=200, scales=(), squash=False).squash, "as the weights say"
    with pytest.raises(OptionError, match=r"^'a': a crop of 320 pixels .* resized to 256\..*--scales"):
        sizes(size=320)
    with pytest.raises(OptionError, match="a crop of 224 pixels does not fit into images resized to 200"):
        sizes(scales=(256, 200))


def test_a_size_that_a_network_cannot_take() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 9), nn.ReLU()).eval()
    check_size(model, Preprocessing(1, 9, 9, (0.5,), (0.5,)), "a")
    with pytest.raises(OptionError, match=r"^'a' on images of 8x8: .*Set another --size"):
        check_size(model, Preprocessing(1, 8, 8, (0.5,), (0.5,)), "a")


def test_looking_at_the_size_changes_nothing() -> None:
    model = senet.build("se_resnet20", in_channels=1).train()
    before = copy.deepcopy(model.state_dict())
    check_size(model, PREPROCESSING, "x")
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_what_gives_no_scores() -> None:
    class Two(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x, x

    with pytest.raises(WeightsError, match="'x': it gives a tuple"):
        check_size(Two(), PREPROCESSING, "x")
