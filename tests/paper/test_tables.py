"""The paper's numbers: each is there as printed, with its source, and under the right network."""

import csv
import json
from decimal import Decimal
from pathlib import Path

import pytest
import yaml

from senet import paper
from senet.errors import OptionError
from senet.paper import Published, published, table, tables

KEYS = """imagenet mobile cifar10 cifar100 places365 coco state_of_the_art larger_crops reduction squeeze
    excitation stages placement se3x3 nosqueeze longer_schedule cost challenge released released_soeaver
    released_mcn released_timm released_counts conference_coco conference_reduction conference_mobile
    conference_state_of_the_art detectron shakeshake_crosscheck""".split()
UNITS = {
    *("% error", "% more", "GMACs", "MMACs", "MACs", "M parameters", "parameters", "numbers", "ms", "AP"),
    *("MiB", "SE blocks", "pixels", "1 = yes"),
}
PLAIN = """resnet50 resnet101 resnet152 resnext50_32x4d resnext101_32x4d vgg16_bn bn_inception
    inception_resnet_v2 mobilenet_v1 shufflenet_v1_g3 preresnet110 preresnet164 wrn16_8 shakeshake26_2x96d
    shakeeven29_2x4x64d""".split()
NETWORKS = {*PLAIN, *(f"se_{name}" for name in PLAIN), "senet154"}


def of(network: str, table: str, column: str, by: str = "paper") -> list[str]:
    return [str(p) for p in published(network) if (p.key, p.column, p.by) == (table, column, by)]


# ------------------------------------------------------------------ every table


def test_every_table_is_there_in_the_papers_order() -> None:
    assert list(tables()) == KEYS
    assert [tables()[key].where for key in KEYS[:15]] == [f"Table {number}" for number in range(2, 17)]


@pytest.mark.parametrize("key", KEYS)
def test_every_table_is_whole(key: str) -> None:
    found = table(key)
    assert found.key == key
    assert all((found.title, found.where, found.source, found.data, found.setting))
    assert found.version in {"journal", "conference", "repository", "third party"}
    assert found.certainty in {"read twice", "read once", "computed", "from memory"}
    assert found.data in {"ImageNet", "CIFAR-10", "CIFAR-100", "Places365", "COCO"}
    assert {column.unit for column in found.columns} <= UNITS
    assert {row.network for row in found.rows} - {None} <= NETWORKS
    for row in found.rows:
        assert list(row.values) == [column.key for column in found.columns]
        for column in found.columns:
            value, printed = row.values[column.key], row.printed[column.key]
            if value is None:
                assert printed == "-"
            else:
                decimals = -int(Decimal(printed.replace(",", "")).as_tuple().exponent)
                assert f"{value:,.{decimals}f}" == printed
                assert decimals <= column.decimals
                assert value > 0


def test_every_name_of_a_network_is_that_of_a_row() -> None:
    text = Path(paper.__file__).with_name("tables.yaml").read_text(encoding="utf-8")
    for key, entry in yaml.safe_load(text).items():
        listed = set(entry.get("networks", {}).values())
        assert listed - {row.network for row in table(key).rows} == set(), key


def test_what_is_from_memory_says_so_in_its_source() -> None:
    memory = {key for key, each in tables().items() if each.certainty == "from memory"}
    assert memory == {"conference_coco", "conference_reduction", "conference_mobile"}
    assert all("from memory" in table(key).source for key in memory)


def test_the_journal_was_read_twice() -> None:
    journal = [each for each in tables().values() if each.version == "journal"]
    assert len(journal) == 18
    assert {each.certainty for each in journal} == {"read twice"}


# ------------------------------------------------------------------ the numbers


@pytest.mark.parametrize(
    ("key", "label", "printed"),
    [
        ("imagenet", "ResNet-50", "24.7 7.8 24.80 7.48 3.86 23.29 6.62 3.87"),
        ("imagenet", "BN-Inception", "25.2 7.82 25.38 7.89 2.03 24.23 7.14 2.04"),
        ("imagenet", "VGG-16 (BN)", "- - 27.02 8.81 15.47 25.22 7.70 15.48"),
        ("mobile", "ShuffleNet 1x (g=3)", "32.6 - 32.6 12.5 140 1.8 31.0 11.1 142 2.4"),
        ("cifar10", "Shake-Shake 26 2x96d + Cutout", "2.56 2.12"),
        ("cifar100", "Shake-Even 29 2x4x64d + Cutout", "15.85 15.41"),
        ("places365", "SE-ResNet-152", "40.37 11.01"),
        ("coco", "SE-ResNet-50", "61.0 40.4"),
        ("state_of_the_art", "SENet-154", "18.68 4.47 17.28 3.79"),
        ("larger_crops", "SENet-154 (trained at 320)", "- 320 16.88 3.58"),
        ("reduction", "2", "22.29 6.00 45.7"),
        ("squeeze", "Max", "22.57 6.09"),
        ("excitation", "ReLU", "23.47 6.98"),
        ("stages", "SE Stage 4", "22.68 6.22 3.86 26.4"),
        ("placement", "SE-Identity", "22.20 6.15"),
        ("se3x3", "SE_3x3", "22.48 6.02 3.86 25.8"),
        ("nosqueeze", "NoSqueeze", "22.93 6.39 4.27 28.1"),
        ("longer_schedule", "SE-ResNet-50", "22.20 6.00"),
        ("challenge", "ensemble of SENets", "2.251"),
        ("shakeshake_crosscheck", "Shake-shake + cutout", "15.20"),
    ],
)
def test_rows_are_as_printed(key: str, label: str, printed: str) -> None:
    assert " ".join(table(key).row(label).printed.values()) == printed


def test_the_gains_in_brackets_of_table_2() -> None:
    gains = {
        "ResNet-50": (1.51, 0.86),
        "ResNet-101": (0.79, 0.45),
        "ResNet-152": (0.85, 0.61),
        "ResNeXt-50 (32x4d)": (1.01, 0.41),
        "ResNeXt-101 (32x4d)": (0.48, 0.56),
        "VGG-16 (BN)": (1.80, 1.11),
        "BN-Inception": (1.15, 0.75),
        "Inception-ResNet-v2": (0.57, 0.42),
    }
    assert [row.label for row in table("imagenet").rows] == list(gains)
    for row in table("imagenet").rows:
        for column, gain in zip(("top1", "top5"), gains[row.label], strict=True):
            plain, se = row.values[f"plain_{column}"], row.values[f"se_{column}"]
            assert plain is not None
            assert se is not None
            assert round(plain - se, 2) == gain


def test_the_ablations_share_their_standard_block() -> None:
    standard = table("reduction").row("16").values
    for key, label in (
        *(("squeeze", "Avg"), ("excitation", "Sigmoid"), ("stages", "SE All")),
        *(("placement", "SE"), ("se3x3", "SE"), ("nosqueeze", "SE")),
    ):
        row = table(key).row(label)
        shared = standard.keys() & row.values.keys()
        assert {"top1", "top5"} <= shared
        assert {name: row.values[name] for name in shared} == {name: standard[name] for name in shared}
        assert row.network == "se_resnet50"


def test_counts_of_the_released_models_add_up() -> None:
    for row in table("released_counts").rows:
        of_row = {name: value for name, value in row.values.items() if value is not None}
        without, weights = of_row["parameters_without_se"], of_row["weights_of_se"]
        assert of_row["parameters"] == without + weights + of_row["biases_of_se"]
        assert of_row["parameters_without_biases_of_se"] == without + weights
        assert of_row["macs"] == of_row["macs_without_se"] + of_row["macs_of_se"]


# ------------------------------------------------------------------ the numbers of a network


def test_the_paper_and_the_released_model_are_told_apart() -> None:
    assert of("se_resnet50", "imagenet", "top1") == ["23.29"]
    assert of("se_resnet50", "released", "top1", by="released") == ["22.37"]
    assert of("resnet50", "imagenet", "top1") == ["24.80"]
    assert of("resnet50", "imagenet", "top1", by="original") == ["24.7"]
    assert of("se_resnet50", "imagenet", "top1", by="original") == []


def test_the_first_top1_of_a_network_is_that_of_the_standard_crop() -> None:
    first = {
        name: next(p for p in published(name) if p.column == "top1") for name in ("senet154", "se_vgg16_bn")
    }
    assert {name: (str(p), p.where) for name, p in first.items()} == {
        "senet154": ("18.68", "Table 8"),
        "se_vgg16_bn": ("25.22", "Table 2"),
    }


def test_a_number_says_where_it_is_from() -> None:
    number = next(p for p in published("se_preresnet110") if p.data == "CIFAR-100")
    assert number == Published(
        key="cifar100",
        where="Table 5",
        version="journal",
        certainty="read twice",
        source="arXiv 1709.01507v4, the journal version (TPAMI)",
        data="CIFAR-100",
        setting="trained as in the network's own paper",
        column="error",
        unit="% error",
        value=23.85,
        decimals=2,
        by="paper",
    )


@pytest.mark.parametrize("network", sorted(NETWORKS))
def test_every_network_of_the_paper_has_numbers(network: str) -> None:
    numbers = published(network)
    assert any(p.column in ("top1", "error") for p in numbers)
    assert {p.version for p in numbers} <= {"journal", "repository"}
    assert {p.certainty for p in numbers} <= {"read twice", "read once"}
    assert {p.by for p in numbers} <= {"paper", "original", "released"}


def test_a_number_repeated_under_one_setting_is_given_once() -> None:
    assert [(str(p), p.where) for p in published("se_resnet50") if p.value == 22.28] == [
        ("22.28", "Table 10")
    ]


def test_a_network_that_the_paper_lacks_has_no_numbers() -> None:
    assert published("resnet20") == ()


def test_agreeing_is_rounding_halves_up_to_the_printed_digits() -> None:
    gmacs = next(p for p in published("resnet50") if p.column == "gmacs")
    assert str(gmacs) == "3.86"
    assert gmacs.agrees(3_857_973_248 / 1e9)
    assert gmacs.agrees(3.8550001)
    assert not gmacs.agrees(3.8549999)
    assert not gmacs.agrees(4.09)
    whole = next(p for p in published("mobilenet_v1") if p.column == "mmacs")
    assert whole.agrees(568.5)
    assert not whole.agrees(569.5)


# ------------------------------------------------------------------ asking, printing, saving


def test_an_unknown_table_or_row_names_the_nearest() -> None:
    with pytest.raises(OptionError, match="Did you mean 'reduction'"):
        table("reductions")
    with pytest.raises(OptionError, match="Did you mean 'SE-POST'"):
        table("placement").row("SE-POSTS")


def test_it_prints_itself_with_source_units_and_notes() -> None:
    lines = str(table("places365")).splitlines()
    assert lines == [
        "Places365-Challenge validation",
        "Table 6 (journal; read twice): arXiv 1709.01507v4, the journal version (TPAMI)",
        "Places365: from scratch; one crop",
        "",
        "                    top1   top5",
        "Places-365-CNN     41.07  11.48",
        "ResNet-152 (ours)  41.15  11.61",
        "SE-ResNet-152      40.37  11.01",
        "",
        "% error: top1, top5",
        "* Places-365-CNN is another paper's network.",
    ]
    assert "ResNeXt-50 (32x4d)            22.2              -       22.11" in str(table("imagenet"))
    assert "28,088,024" in str(table("released_counts"))


def test_it_saves_with_its_source(tmp_path: Path) -> None:
    for ending in ("csv", "json", "md"):
        table("imagenet").save(tmp_path / f"t.{ending}")
    first = json.loads((tmp_path / "t.json").read_text())[0]
    assert first["row"] == "ResNet-50"
    assert first["plain_top1"] == 24.8
    assert (first["where"], first["certainty"]) == ("Table 2", "read twice")
    with (tmp_path / "t.csv").open() as file:
        assert [row["original_top5"] for row in csv.DictReader(file)][3:5] == ["", "5.6"]
    assert "| ResNet-50 | 24.7 | 7.8 | 24.80 |" in (tmp_path / "t.md").read_text()
