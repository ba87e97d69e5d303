from typing import Any

import pytest
import yaml

import senet
from senet.errors import OptionError
from senet.weights.card import config, text

NETWORK = senet.build("se_resnet20", num_classes=3).config.to_dict()
HEADER = {
    "network": NETWORK,
    "preprocessing": {"channels": 3, "size": 32, "resize": 32, "mean": [0.5] * 3, "std": [0.25] * 3},
    "classes": ["a", "b", "c"],
    "data": "folder:/home/me/cats",
}
EVALUATION = {
    "model": "runs/a",
    "data": "folder:/home/me/cats",
    "images": 1600,
    "correct1": 1217,
    "correct5": 1600,
    "top1": 76.0625,
    "top5": 100.0,
    "loss": 0.5,
}


def _front(card: str) -> Any:
    return yaml.safe_load(card.split("---\n")[1])


def test_the_config_rebuilds_the_network_and_tells_nothing_else() -> None:
    assert config(HEADER) == {
        "library_name": "senet",
        "senet_version": senet.__version__,
        **{key: HEADER[key] for key in ("network", "preprocessing", "classes")},
    }
    assert config({}) == {"library_name": "senet", "senet_version": senet.__version__}


def test_what_was_measured() -> None:
    card = text("ME/mine", HEADER, 12345, licence="apache-2.0", evaluations=[EVALUATION])
    front = _front(card)
    assert {key: front[key] for key in ("license", "library_name", "pipeline_tag")} == {
        "license": "apache-2.0",
        "library_name": "senet",
        "pipeline_tag": "image-classification",
    }
    (index,) = front["model-index"]
    assert index["name"] == "se_resnet20"
    assert [metric["value"] for metric in index["results"][0]["metrics"]] == [76.0625, 100.0]
    assert "| folder:cats | 1,600 | 1,217 | 76.06 | 100 | 0.5 |" in card
    assert "/home/me" not in card
    for fact in (
        "**parameters**: 12,345",
        "name se_resnet20, num_classes 3",
        "reduction 16, squeeze avg, gate sigmoid",
        "size 32, resize 32",
        "3, in config.json",
        'senet.load("hf:ME/mine")',
        "10.1109/TPAMI.2019.2913372",
    ):
        assert fact in card


def test_nothing_is_claimed_that_is_not_known() -> None:
    card = text("ME/mine", {"network": senet.build("resnet20").config.to_dict()}, 1)
    assert not {"license", "model-index"} & _front(card).keys()
    assert "Nothing was measured" in card
    for fact in ("SE blocks**: none", "preprocessing**: not recorded", "licence**: not stated"):
        assert fact in card


def test_a_network_that_no_name_builds() -> None:
    card = text("ME/mine", {}, 1, evaluations=[EVALUATION])
    assert _front(card)["model-index"][0]["name"] == "mine"
    assert 'senet.weights.load(model, "hf:ME/mine")' in card
    assert "senet.load(" not in card


def test_an_evaluation_that_lacks_its_numbers() -> None:
    with pytest.raises(OptionError, match=r"one has no images, correct1\. Allowed: what `senet eval --json`"):
        text("ME/mine", HEADER, 1, evaluations=[{"data": "digits", "top1": 1.0, "top5": 2.0}])
