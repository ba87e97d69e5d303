"""The table of networks: counts of ours beside what the paper prints, and where they differ."""

import json
from pathlib import Path

import pytest

import senet
from senet.models import Catalogue, described
from senet.models.catalogue import differences, published_errors

# Table 2's GFLOPs, Table 3's MFLOPs and parameters: all that does not round to what is printed.
DIFFERENT = {
    "inception_resnet_v2": ["multiply-adds"],
    "resnext101_32x4d": ["multiply-adds"],
    "shufflenet_v1_g3": ["parameters", "multiply-adds"],
    "se_bn_inception": ["multiply-adds"],
    "se_inception_resnet_v2": ["multiply-adds"],
    "se_resnet101": ["multiply-adds"],
    "se_resnext50_32x4d": ["multiply-adds"],
    "se_resnext101_32x4d": ["multiply-adds"],
    "se_shufflenet_v1_g3": ["parameters", "multiply-adds"],
}
IMAGENET = (
    *("resnet50", "resnet101", "resnet152", "resnext50_32x4d", "resnext101_32x4d", "vgg16_bn"),
    *("bn_inception", "inception_resnet_v2", "mobilenet_v1", "shufflenet_v1_g3"),
)


@pytest.mark.parametrize("name", [*IMAGENET, *(f"se_{name}" for name in IMAGENET)])
def test_counts_round_to_what_the_paper_prints_or_are_told(name: str) -> None:
    info = senet.info(name)
    printed = [number for number in info.published if number.by == "paper"]
    (macs,) = {str(number) for number in printed if number.column in ("gmacs", "mmacs")}
    assert macs
    said = differences(info)
    assert [
        word for sentence in said for word in ("parameters", "multiply-adds") if f" {word}," in sentence
    ] == (DIFFERENT.get(name, []))
    # No difference is large, but for the network whose variant is not known.
    for number in printed:
        if number.column in ("gmacs", "mmacs") and "inception_resnet" not in name:
            ours = info.multiply_adds.total / {"gmacs": 1e9, "mmacs": 1e6}[number.column]
            assert ours == pytest.approx(number.value, rel=0.009)


def test_the_table_says_what_differs(tmp_path: Path) -> None:
    names = ["resnet20", "resnext50_32x4d", "resnext101_32x4d", "preresnet110", "se_preresnet110", "senet154"]
    found = Catalogue([senet.info(name) for name in names])
    head, *lines = str(found).splitlines()
    assert head.split()[:2] == ["network", "parameters"]
    assert lines[0].split() == ["resnet20", "269,722", "-", "40.6", "M", "-", "-"]
    assert lines[1].split()[1:] == "25,028,904 - 4.236 G 4.24 G ImageNet 22.11 / 5.90 (Table 2)".split()
    assert lines[2].split()[1:] == "44,177,704 - 7.979 G 7.99 G ≠ ImageNet 21.18 / 5.57 (Table 2)".split()
    assert lines[3].endswith("CIFAR-10 6.37, CIFAR-100 26.88 (Table 4, Table 5; from the original papers)")
    assert lines[4].endswith("CIFAR-10 5.21, CIFAR-100 23.85 (Table 4, Table 5)")
    assert lines[5].endswith("ImageNet 18.68 / 4.47 (Table 8)")
    assert lines[-1] == "  resnext101_32x4d: 7.979 G multiply-adds, Table 2 prints 7.99 G"
    assert found.rows[5]["released errors"] == "ImageNet 18.68 / 4.47 (README, Table 1)"
    assert [row["agrees"] for row in found.rows] == [None, True, False, None, None, None]
    found.save(tmp_path / "networks.json")
    assert json.loads((tmp_path / "networks.json").read_text())[0]["parameters"] == 269_722


def test_without_differences_nothing_is_said_of_them() -> None:
    assert "≠" not in str(Catalogue([senet.info("resnet50")]))


def test_one_network_with_all_that_is_printed_of_it() -> None:
    text = described(senet.info("se_resnext50_32x4d"))
    assert "27,559,896 parameters with 1000 classes" in text
    assert "4,244,033,536 multiply-adds for an image of 3 × 224 × 224: 4,232,994,816 in convolutions" in text
    assert "⎣ fc, [16, 256]        ⎦" in text
    assert "Table 2 (paper, ImageNet): top1 21.10, top5 5.49, gmacs 4.25" in text
    assert "README, Table 1 (released, ImageNet): top1 20.97, top5 5.54" in text
    assert "≠ se_resnext50_32x4d: 4.244 G multiply-adds, Table 2 prints 4.25 G\n\npublished weights" in text
    weights = next(line for line in text.splitlines() if line.startswith("timm:seresnext50_32x4d.racm_in1k"))
    assert weights.split()[1:] == "modern 82.186 / 96.146 288 of 303, bicubic apache-2.0".split()
    plain = described(senet.info("resnet20"))
    assert "≠" not in plain
    assert "published weights" not in plain


def test_errors_are_the_papers_own_where_it_has_some() -> None:
    assert published_errors(senet.info("resnet50")) == "ImageNet 24.80 / 7.48 (Table 2)"
    assert published_errors(senet.info("resnet18")) == ""
