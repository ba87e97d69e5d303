"""The benchmark of inference measures each form of a network, and reports none that is wrong."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from senet.acceleration.simplify import simplified

# Scripts, that find each other beside them.
sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import inference
import subjects

SMALL = "tests.benchmarks.small:Small"
FORMS = ["plain", "plain, norms", "theirs", "norms", "squeeze", "scale", "simplified"]


def run(out: Path, network: str = SMALL) -> None:
    settings = "--size 16 --batch 1 3 --device cpu --dtype float32 --rounds 2".split()
    inference.main(["--network", network, *settings, "--out", str(out)])


def test_every_form_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path / "found.json")
    found = json.loads((tmp_path / "found.json").read_text())
    assert [(row["batch"], row["candidate"]) for row in found["rows"]] == [
        (batch, form) for batch in (1, 3) for form in FORMS
    ]
    rows = {row["candidate"]: row for row in found["rows"]}
    assert {form: [*row["rewritten"].values()] for form, row in rows.items()} == {
        "plain": [0, 0, 0],
        "plain, norms": [7, 0, 0],
        "theirs": [0, 0, 0],
        "norms": [7, 0, 0],
        "squeeze": [7, 1, 0],
        "scale": [7, 0, 1],
        "simplified": [7, 1, 1],
    }
    traffic = {form: row["eager MiB an image"] for form, row in rows.items()}
    assert traffic["plain, norms"] < traffic["plain"] < traffic["theirs"]
    assert traffic["simplified"] < min(traffic["squeeze"], traffic["scale"])
    assert max(traffic["squeeze"], traffic["scale"]) < traffic["norms"] < traffic["theirs"]
    for row in found["rows"]:
        assert row["error in float64"] < 1e-14
        assert row["error"] < 20 * torch.finfo(torch.float32).eps
        assert row["rounds"] == 2
        for base in FORMS[:3]:
            ratio = row[f"ratio to {base}"]
            assert ratio["low quartile"] <= ratio["median"] <= ratio["high quartile"]
    assert rows["theirs"]["ratio to theirs"]["median"] == 1
    assert found["passport"]["versions"]["torch"]
    printed = capsys.readouterr().out
    assert printed.count("\n    ") >= 2 * len(FORMS)
    assert "ratio to plain, norms" in printed


def test_a_form_without_anything_of_its_kind_is_left_out() -> None:
    subject = inference.prepared("se_resnet20", 32)
    assert [*subject.forms] == FORMS[:4]
    assert subject.left_out == {
        "squeeze": "there is no squeeze to rewrite",
        "scale": "there is no scale to rewrite",
        "simplified": "the same as norms",
    }
    assert len(subject.stay) == 9


def test_the_plain_network_by_name() -> None:
    assert subjects.plain_name("se_resnet50") == "resnet50"
    assert subjects.plain_name("resnet50") is None
    assert subjects.plain_name("torchvision:regnet_y_400mf") is None
    pytest.importorskip("timm")
    assert subjects.plain_name("timm:seresnext50_32x4d") == "timm:resnext50_32x4d"
    assert subjects.plain_name("timm:efficientnet_b0") is None


def test_a_simplified_network_by_name() -> None:
    model = subjects.load("simplified se_resnet20")
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    assert subjects.bare("simplified se_resnet20") == "se_resnet20"


def test_a_plain_network_of_that_name_has_to_be_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "plain_name", lambda name: "resnet32")
    with pytest.raises(SystemExit, match="resnet32 is not se_resnet20 without SE"):
        inference.prepared("se_resnet20", 32)


def test_a_network_without_se_is_refused() -> None:
    with pytest.raises(SystemExit, match="SE cannot be taken out"):
        inference.prepared("resnet20", 32)


@pytest.mark.parametrize("form", ["plain, norms", "norms", "simplified"])
def test_a_rewriting_that_changes_the_network_is_not_reported(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []

    def wrong(*args: Any, **options: Any) -> Any:
        network, report = simplified(*args, **options)
        changed: Any = network
        made.append(report)
        if len(made) == [*FORMS[1:2], *FORMS[3:]].index(form) + 1:
            with torch.no_grad():
                changed.fc.bias[0] += 1e-8
        return network, report

    monkeypatch.setattr(inference, "simplified", wrong)
    with pytest.raises(SystemExit, match=rf": {form} is wrong by .*nothing is reported") as found:
        run(tmp_path / "found.json")
    # Words, which Python prints, and ends with 1.
    assert isinstance(found.value.code, str)
    assert not (tmp_path / "found.json").exists()


def test_what_is_wrong_only_as_it_is_measured_is_not_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready = inference.ready

    def wrong(model: nn.Module, *args: Any) -> Any:
        made: Any = ready(model, *args)
        made.fc.bias[0] += 1e-2
        return made

    monkeypatch.setattr(inference, "ready", wrong)
    with pytest.raises(SystemExit, match=r": plain is wrong by .*nothing is reported"):
        run(tmp_path / "found.json")
    assert not (tmp_path / "found.json").exists()


def test_random_networks_hide_nothing() -> None:
    model = subjects.load("se_resnet20")
    momenta = [module.momentum for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    subjects.randomise(model, torch.randn(8, 3, 32, 32))
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert not any(module.training for module in model.modules())
    assert [norm.momentum for norm in norms] == momenta
    biases = [value for key, value in model.named_parameters() if key.endswith("bias")]
    means = [norm.running_mean for norm in norms]
    assert all(value is not None and value.abs().min() > 0 for value in (*biases, *means))
    with torch.inference_mode():
        one, other = model(torch.randn(2, 3, 32, 32))
    assert (one - other).abs().max() > 0.01 * one.abs().max()
