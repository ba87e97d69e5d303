import contextlib
import hashlib
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tests.programs import program
from tests.weights.hub_server import Hub, serving

import senet
from senet.errors import MissingExtraError, OptionError, WeightsError
from senet.weights.hub import download, download_url, push
from senet.weights.store import LAST, header_of, read_safetensors, state_of, write

huggingface_hub = pytest.importorskip("huggingface_hub")

FILES = {"model.safetensors": b"tensors", "config.json": b'{"architecture": "seresnet50"}'}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that has ORG/NAME, and the real client, which knows no other hub and no waiting."""
    with serving() as hub:
        hub.add("ORG/NAME", FILES)
        template = f"{hub.endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        for name, value in {
            "constants.ENDPOINT": hub.endpoint,
            "constants.HUGGINGFACE_CO_URL_TEMPLATE": template,
            "file_download.HUGGINGFACE_CO_URL_TEMPLATE": template,  # where versions before 1.0 have it
            "constants.HF_HUB_CACHE": str(tmp_path / "cache"),
            "constants.HF_TOKEN_PATH": str(tmp_path / "token"),
        }.items():
            monkeypatch.setattr(f"huggingface_hub.{name}", value, raising=False)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "torch"))
        monkeypatch.setattr(time, "sleep", lambda _: None)
        yield hub


def test_weights_with_the_repositorys_config(hub: Hub) -> None:
    found = download("hf:ORG/NAME")
    assert found.name == "hf:ORG/NAME"
    assert found.path.read_bytes() == b"tensors"
    assert found.config == {"architecture": "seresnet50"}


def test_a_repository_without_config_and_safetensors(hub: Hub) -> None:
    hub.add("ORG/OLD", {"pytorch_model.bin": b"pickled"})
    found = download("hf:ORG/OLD")
    assert (found.path.name, found.config) == ("pytorch_model.bin", {})


def test_a_file_of_a_folder(hub: Hub) -> None:
    hub.repositories["ORG/NAME"].commit({**FILES, "a/b/c.pth": b"other"})
    found = download("hf:ORG/NAME/a/b/c.pth")
    assert found.path.read_bytes() == b"other"
    assert found.config == {"architecture": "seresnet50"}


def test_branch_tag_and_commit(hub: Hub) -> None:
    repository = hub.repositories["ORG/NAME"]
    first = repository.refs["main"]
    second = repository.commit({"model.safetensors": b"new"}, "main", "v2", "refs/pr/1")
    for revision, content in (
        (first, b"tensors"),
        (second, b"new"),
        ("v2", b"new"),
        ("main", b"new"),
        ("refs/pr/1", b"new"),
    ):
        assert download(f"hf:ORG/NAME@{revision}").path.read_bytes() == content
    assert download(f"hf:ORG/NAME@{first}").config
    assert not download("hf:ORG/NAME").config  # of the same commit as the weights


def test_a_pinned_commit_is_fetched_once(hub: Hub) -> None:
    name = f"hf:ORG/NAME@{hub.repositories['ORG/NAME'].refs['main']}"
    first = download(name)
    hub.requests.clear()
    assert download(name) == first
    assert not hub.requests


@pytest.mark.parametrize("files", [FILES, {"pytorch_model.bin": b"pickled"}])
def test_without_network_the_cache_serves(hub: Hub, files: dict[str, bytes]) -> None:
    hub.add("ORG/NAME", files)
    first = download("hf:ORG/NAME")
    hub.stop()
    assert download("hf:ORG/NAME") == first
    with pytest.raises(WeightsError, match=r"ORG/OTHER: it is not in the cache, .*Connect.*try again"):
        download("hf:ORG/OTHER")


def test_a_config_that_cannot_be_asked_for_is_no_empty_one(hub: Hub) -> None:
    huggingface_hub.HfApi().hf_hub_download("ORG/NAME", "model.safetensors")
    hub.stop()
    with pytest.raises(WeightsError, match="not in the cache"):
        download("hf:ORG/NAME")


def test_offline_mode(hub: Hub, tmp_path: Path) -> None:
    download("hf:ORG/NAME")
    hub.requests.clear()
    script = (
        "from senet.errors import WeightsError\nfrom senet.weights.hub import download\n"
        "print(download('hf:ORG/NAME').path.read_bytes())\n"
        "try: download('hf:ORG/OTHER')\nexcept WeightsError as error: print(error)"
    )
    variables = {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tmp_path / "cache"), "HF_ENDPOINT": hub.endpoint}
    said = program("-c", script, env=os.environ | variables)
    assert said.startswith("b'tensors'\n")
    assert "ORG/OTHER: it is not in the cache" in said
    assert "unset HF_HUB_OFFLINE" in said
    assert not hub.requests


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("hf:ORG/NONE", r"ORG/NONE: there is no such repository, or it is private\. .*HF_TOKEN"),
        ("hf:ORG/NAME@v9", "no such branch, tag or commit"),
        ("hf:ORG/NAME/other.pth", r"has no other\.pth\. Allowed: config\.json, model\.safetensors"),
        ("hf:ORG/EMPTY", r"has no model\.safetensors and no pytorch_model\.bin\. Allowed: notes\.txt"),
    ],
)
def test_what_there_is_not(hub: Hub, name: str, words: str) -> None:
    hub.add("ORG/EMPTY", {"notes.txt": b""})
    with pytest.raises(WeightsError, match=words) as raised:
        download(name)
    assert name in str(raised.value)


@pytest.mark.parametrize(
    "name",
    [
        *"hf: hf:NAME hf:ORG/NAME@ hf:ORG/NAME/ hf:ORG/NAME/../x hf:ORG/.. hf:ORG/a--b ORG/NAME".split(),
        "hf:O RG/N",
        "hf:ORG/" + 100 * "a",
    ],
)
def test_a_malformed_name(hub: Hub, name: str) -> None:
    with pytest.raises(OptionError, match=r"no name on the hub|not allowed"):
        download(name)
    assert not hub.requests


def test_gated_and_private(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.repositories["ORG/NAME"].gated = True
    with pytest.raises(WeightsError, match=r"it is gated\. Ask for access on its page\. .*HF_TOKEN"):
        download("hf:ORG/NAME")
    hub.add("ORG/OWN", FILES).private = True
    with pytest.raises(WeightsError, match="no such repository, or it is private"):
        download("hf:ORG/OWN")
    monkeypatch.setenv("HF_TOKEN", hub.token)
    assert download("hf:ORG/NAME").path.read_bytes() == download("hf:ORG/OWN").path.read_bytes()


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 503])
def test_a_hub_that_refuses(hub: Hub, status: int) -> None:
    hub.status = status
    with pytest.raises(WeightsError, match=r"'hf:ORG/NAME': ORG/NAME: "):
        download("hf:ORG/NAME")
    with pytest.raises(WeightsError, match=r"'ORG/NEW'\): ORG/NEW: "):
        push(senet.build("resnet20"), "ORG/NEW")


def test_bodies_that_break_off(hub: Hub, tmp_path: Path) -> None:
    hub.short = True
    with pytest.raises(WeightsError, match="ORG/NAME"):
        download("hf:ORG/NAME")
    assert not [path for path in (tmp_path / "cache").rglob("snapshots/*/*") if path.is_file()]
    hub.short, hub.cuts = False, 1
    with contextlib.suppress(WeightsError):  # clients before 2.0 do not go on where the body broke off
        download("hf:ORG/NAME")
    assert download("hf:ORG/NAME").path.read_bytes() == b"tensors"


@pytest.mark.parametrize("config", [b"{", b"[]", b"\xff", b"[" * 100_000])
def test_a_damaged_config(hub: Hub, config: bytes) -> None:
    hub.add("ORG/NAME", {**FILES, "config.json": config})
    with pytest.raises(WeightsError, match=r"config\.json of ORG/NAME is damaged .*Allowed: a JSON object"):
        download("hf:ORG/NAME")


def test_a_cache_that_cannot_be_written(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("in the way")
    with pytest.raises(WeightsError, match=r"ORG/NAME: .*Check the network, the space on the disk"):
        download("hf:ORG/NAME")


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtraError, match=r"'hf:ORG/NAME'.*senet\[hub\]"):
        download("hf:ORG/NAME")
    with pytest.raises(MissingExtraError, match=r"weights\.push.*senet\[hub\]"):
        push(senet.build("resnet20"), "ORG/NAME")


def _network() -> Any:
    return senet.build("se_resnet20", num_classes=3)


PREPROCESSING = {"channels": 3, "size": 32, "resize": 32, "mean": [0.5] * 3, "std": [0.25] * 3}
EVALUATION = {
    **{"model": "runs/a", "data": "folder:/home/me/cats", "images": 200, "correct1": 150, "correct5": 200},
    **{"top1": 75.0, "top5": 100.0, "loss": 0.5},
}


def test_a_network_goes_there_and_back(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", hub.token)
    model = _network()
    name = push(
        model,
        "ME/mine",
        licence="mit",
        header={"preprocessing": PREPROCESSING, "classes": ["a", "b", "c"]},
        evaluations=[EVALUATION],
        private=True,
    )
    repository = hub.repositories["ME/mine"]
    assert name == f"hf:ME/mine@{repository.refs['main']}"
    assert len(repository.commits) == 2  # the hub's own, and all three files at once
    assert repository.private
    found = download(name)
    header, _, tensors = read_safetensors(found.path)
    assert all(torch.equal(tensors[key], value) for key, value in model.state_dict().items())
    assert header == {
        **{"network": json.loads(json.dumps(model.config.to_dict())), "preprocessing": PREPROCESSING},
        "classes": ["a", "b", "c"],
    }
    own = {"library_name": "senet", "senet_version": senet.__version__}
    assert found.config == {**own, **header}
    card = repository.commits[repository.refs["main"]]["README.md"].decode()
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["license"] == "mit"
    assert front["model-index"][0]["results"][0]["metrics"][0]["value"] == 75.0
    count = sum(parameter.numel() for parameter in model.parameters())
    assert f"{count:,}" in card
    assert 'senet.load("hf:ME/mine")' in card


def test_a_file_is_published_as_it_is(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", hub.token)
    model = senet.build("se_resnet20", se=senet.SEConfig(init="identity"))
    write(tmp_path / LAST, state_of(model), {**header_of(model), "classes": ["a"]})
    for given in (tmp_path, str(tmp_path / LAST)):
        name = push(given, "ME/mine")
        assert download(name).path.read_bytes() == (tmp_path / LAST).read_bytes()
    card = hub.repositories["ME/mine"].commits[name.split("@")[1]]["README.md"].decode()
    assert f"{sum(parameter.numel() for parameter in model.parameters()):,}" in card
    with pytest.raises(OptionError, match="has a header already"):
        push(tmp_path, "ME/mine", header={})


def test_a_branch_is_made(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", hub.token)
    before = hub.repositories["ORG/NAME"].refs["main"]
    for _ in range(2):
        name = push(_network(), "ORG/NAME", revision="next")
    assert hub.repositories["ORG/NAME"].refs == {"main": before, "next": name.split("@")[1]}


def test_what_is_not_published(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WeightsError, match="ME/mine"):
        push(_network(), "ME/mine")  # without a token
    monkeypatch.setenv("HF_TOKEN", hub.token)
    write(tmp_path / "foreign.safetensors", {"a": torch.zeros(1)}, {}, ours=False)
    with pytest.raises(WeightsError, match=r"foreign\.safetensors' is of another library"):
        push(tmp_path / "foreign.safetensors", "ME/mine")
    with pytest.raises(WeightsError, match=r"none\.safetensors"):
        push(tmp_path / "none.safetensors", "ME/mine")
    with pytest.raises(OptionError, match="one has no images, correct1"):
        push(_network(), "ME/mine", evaluations=[{"data": "digits", "top1": 1.0, "top5": 1.0}])
    with pytest.raises(OptionError, match=r"no name on the hub\. Allowed: ORG/NAME"):
        push(_network(), "mine")
    assert "ME/mine" not in hub.repositories


def _url(hub: Hub, content: bytes, named: bytes | None = None) -> str:
    """Of a file with this content, whose name has the hash of other content if it is given."""
    name = f"net-{hashlib.sha256(named or content).hexdigest()[:8]}.pth"
    hub.add("plain/files", {name: content})
    return f"{hub.endpoint}/files/{name}"


def test_a_url_is_fetched_once(hub: Hub, tmp_path: Path) -> None:
    url = _url(hub, b"tensors")
    found = download_url(url)
    assert found.path.read_bytes() == b"tensors"
    assert found.path.parent == tmp_path / "torch" / "checkpoints"
    assert (found.name, found.config) == (url, {})
    hub.stop()
    assert download_url(url) == found


def test_a_damaged_file_in_the_cache_is_fetched_again(hub: Hub) -> None:
    url = _url(hub, b"tensors")
    path = download_url(url).path
    path.write_bytes(b"tensorz")
    assert download_url(url).path.read_bytes() == b"tensors"
    path.write_bytes(b"tensorz")
    hub.stop()
    with pytest.raises(WeightsError, match=r"cannot be fetched to '.*net-\w+\.pth'"):
        download_url(url)


@pytest.mark.parametrize("failure", ["other", "cut", "missing", "refused", "moved"])
def test_a_url_that_does_not_give_the_file(hub: Hub, tmp_path: Path, failure: str) -> None:
    url = _url(hub, b"tensors", named=b"others" if failure == "other" else None)
    hub.cuts = int(failure == "cut")
    hub.moved = failure == "moved"
    hub.status = 500 if failure == "refused" else 0
    if failure == "missing":
        url = url.replace("net-", "other-")
    with pytest.raises(WeightsError, match=r"bytes came, whose SHA-256|HTTP Error|which is not https"):
        download_url(url)
    assert not list((tmp_path / "torch" / "checkpoints").iterdir())


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/net-0676ba61.pth",
        "file:///tmp/net-0676ba61.pth",
        "https://example.org/net.pth",
        "https://example.org/net-0676ba6.pth",
        "net-0676ba61.pth",
    ],
)
def test_a_url_that_nothing_checks(url: str) -> None:
    with pytest.raises(OptionError, match="not checked by anything"):
        download_url(url)
