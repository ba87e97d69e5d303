from pathlib import Path
from typing import Any

import pytest

from senet.errors import OptionError, WeightsError
from senet.weights import sources
from senet.weights.hub import Located
from senet.weights.published import all_published
from senet.weights.sources import config_beside, is_remote, locate


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is asked of the hub and of URLs, in place of asking."""
    names: list[str] = []

    def fetched(name: str) -> Located:
        names.append(name)
        return Located(name, Path("w.safetensors"), {})

    monkeypatch.setattr(sources, "download", fetched)
    monkeypatch.setattr(sources, "download_url", fetched)
    return names


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("hf:ORG/NAME@v1", "hf:ORG/NAME@v1"),
        ("timm:seresnet50.ra2_in1k", "hf:timm/seresnet50.ra2_in1k"),
        ("timm:senet154", "hf:timm/senet154.gluon_in1k"),  # it has one tag
        ("timm:resnet50.not_in_the_catalogue", "hf:timm/resnet50.not_in_the_catalogue"),
        (
            "timm:legacy_seresnet50.in1k",
            "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-cadene/se_resnet50-ce0d4300.pth",
        ),
    ],
)
def test_where_names_lead(asked: list[str], name: str, where: str) -> None:
    assert is_remote(name)
    locate(name)
    assert asked == [where]


def test_everything_that_can_be_fetched_is_known_by_its_place(asked: list[str]) -> None:
    remote = [weights for weights in all_published() if weights.where is not None]
    for weights in remote:
        locate(weights.name)
    assert len(asked) == len(remote) > 70
    # A pinned revision is what is asked for.
    pinned = [weights.revision for weights in remote if weights.revision]
    assert pinned == [name.partition("@")[2] for name in asked if "@" in name]


def test_a_path_is_a_path_whatever_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("hf:a").write_text("")
    assert not is_remote("hf:a")
    assert locate("hf:a").path == Path("hf:a")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("tim:seresnet50", "no such form"),
        ("timm:resnet50", "told apart by a tag"),
        ("timm:legacy_seresnet18", "ReLU"),
    ],
)
def test_what_names_nothing(name: str, words: str) -> None:
    with pytest.raises(OptionError, match=words):
        locate(name)


@pytest.mark.parametrize(
    ("text", "found"), [(None, {}), ('{"architecture": "a"}', {"architecture": "a"}), ("[1]", {})]
)
def test_the_config_beside_a_file(tmp_path: Path, text: str | None, found: dict[str, Any]) -> None:
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    assert config_beside(tmp_path / "w.pth") == found


def test_a_broken_config_is_no_config_that_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(WeightsError, match=r"config\.json beside it cannot be read"):
        config_beside(tmp_path / "w.pth")
