import json
import re
from pathlib import Path

import pytest

import senet
from senet.cli.cost import cost
from senet.errors import SenetError


def test_a_network_and_its_plain_twin(capsys: pytest.CaptureFixture[str]) -> None:
    cost(["se_resnet20", "--vs", "plain", "--runs", "2"])
    out = capsys.readouterr().out
    assert out.startswith("se_resnet20 on 3 × 32 × 32, a batch of 1: 9 SE blocks\n")
    assert "quantity       se_resnet20       plain  difference" in out
    # Equation 5 and the biases: three blocks each of 16, 32 and 64 channels.
    assert re.search(r"parameters +[\d,]+ +[\d,]+ +2,373 ", out)
    assert "latency: median of 2 runs" in out


def test_for_programs_and_to_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["se_resnet20", "--vs", "resnet20", "--input", "3x16x16", "--batch", "2", "--runs", "0"]
    cost([*words, "--json", "--out", "cost.csv"])
    found = json.loads(capsys.readouterr().out)
    assert (found["input"], found["batch"]) == ([3, 16, 16], 2)
    assert found["rows"][-1]["network"] == "resnet20"
    assert found["vs"][0]["difference"] == found["rows"][9]["parameters"]
    assert found["share of SE"]["latency ms"] is None
    assert found["missing"] == ["latency: not measured"]
    assert Path("cost.csv").read_text().count("\n") == 1 + 11 + 2


def test_the_paper_is_quoted_in_its_layout(capsys: pytest.CaptureFixture[str]) -> None:
    cost(["resnet50", "--layout", "original", "--runs", "0"])
    out = capsys.readouterr().out
    assert 'the paper prints, in the layout "original": 3.86 G multiply-adds (Table 2)' in out
    assert "3,863.49" in out


def test_weights_are_counted_on_what_they_were_trained_on(capsys: pytest.CaptureFixture[str]) -> None:
    model = senet.build("se_resnet20", num_classes=10, in_channels=1)
    header = {"preprocessing": {"channels": 1, "size": 8, "resize": 8, "mean": [0.3], "std": [0.4]}}
    senet.weights.save(model, "digits.safetensors", header=header)
    cost(["digits.safetensors", "--runs", "0"])
    assert capsys.readouterr().out.startswith("digits.safetensors on 1 × 8 × 8, a batch of 1: 9 SE blocks")


@pytest.mark.slow
def test_the_example_of_the_document(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("timm")
    text = (Path(__file__).parents[2] / "docs" / "cost.md").read_text(encoding="utf-8")
    command, _, printed = text.rpartition("$ senet cost ")[2].partition("```")[0].partition("\n")
    cost(command.split())
    assert capsys.readouterr().out == printed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["se_resnt20"], "Did you mean 'se_resnet20'"),
        (["se_resnet20", "--input", "3x"], "it is no size. Allowed: CxHxW"),
        (["se_resnet20", "--input", "4x32x32"], "does not run on such images"),
        (["se_resnet20", "--vs", "resnt20"], "Did you mean 'resnet20'"),
        (["resnet20", "--vs", "plain"], "no network of `senet models` with SE"),
        (["se_resnet20", "--out", "cost.txt"], "Allowed: .csv, .json, .md"),
        (["se_resnet20", "--out", "nowhere/cost.csv"], "there is no folder nowhere"),
        (["se_resnet20", "--device", "nowhere"], "it cannot be used"),
        (["se_resnet20", "--runs", "1"], "Allowed: 0, or at least 2"),
    ],
)
def test_it_says_why_not(words: list[str], message: str) -> None:
    with pytest.raises(SenetError) as error:
        cost(words)
    assert message in str(error.value)
