import json

import pytest

from senet.cli import main


def test_models(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "se_resnet5*"]) == 0
    out = capsys.readouterr().out
    assert "28,088,024" in out
    assert "se_resnet56" in out
    assert main(["models", "senet154", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["parameters"] == 115_088_984


def test_one_network_is_shown_with_its_structure(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "se_resnet50"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("se_resnet50: 28,088,024 parameters with 1000 classes\n")
    assert "⎣ fc, [128, 2048] ⎦" in out
    assert "Table 2 (paper, ImageNet): top1 23.29" in out
    assert main(["models", "wrn16_8", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["parameters"] == 10_961_370
    assert row["published errors"].startswith("CIFAR-10 4.27, CIFAR-100 20.43 (Table 4, Table 5")


def test_the_detectors_are_found_too(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torchvision")
    assert main(["models", "fasterrcnn_se_resnet*50_fpn", "--json"]) == 0
    assert [row["detector"] for row in json.loads(capsys.readouterr().out)] == ["fasterrcnn_se_resnet50_fpn"]
    assert main(["models", "fasterrcnn_resnet5_fpn"]) == 1
    assert "Did you mean 'fasterrcnn_resnet50_fpn'?" in capsys.readouterr().err


def test_plan_shows_a_network_its_unit_and_its_places(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "torchvision:resnet18"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("ResNet: 8 places for SE, 89,080 parameters more\n\nlayer1.0\n     X\n     ├──")
    assert "layer4.1  residual      5  standard   output of layer4.1.bn2" in out
    assert "3 x in a shortcut: layer2.0.downsample.0" in out


def test_plan_draws_a_unit_of_each_kind(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "bn_inception"]) == 0
    out = capsys.readouterr().out
    assert out.count(" Inception  ") == out.count("global pooling") == 1
    assert "28 × 28 × 256" in out
    assert "1 × 1 × 16" in out
    assert main(["plan", "mobilenet_v1"]) == 0
    assert "x ─ depthwise ─ pointwise, activation ─[SE 64→4→64]─ out" in capsys.readouterr().out


def test_plan_takes_options(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--placement", "pre", "--where", "4,layer4.*", "--reduction", "8", "--bias", "false", "--json"]
    assert main(["plan", "se_resnet18", *words]) == 1
    assert "8 x channel attention is there already" in capsys.readouterr().err
    assert main(["plan", "resnet18", "--input", "3x64x64", *words]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["network"] == "resnet18"
    assert [site["block"] for site in printed["sites"]] == [
        "layer3.0.se",
        "layer3.1.se",
        "layer4.0.se",
        "layer4.1.se",
    ]
    assert {site["placement"] for site in printed["sites"]} == {"pre"}
    assert printed["sites"][0]["hidden"] == 128 // 8


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["torchvision:vit_b_16"], "no place for SE"),
        (["resnet18", "--input", "3x"], "Allowed: CxHxW"),
        (["resnet18", "--where", "9"], "stages 2, 3, 4, 5"),
        (["resnet18", "--where", ""], "it names nothing"),
        (["timm:resnt18"], "Did you mean"),
    ],
)
def test_plan_says_why_not(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *words]) == 1
    assert message in capsys.readouterr().err
