"""The printed structure: the paper's Table 1, and what other kinds of network show."""

import pytest
import torch

import senet
from senet.models.network import Network
from senet.models.structure import Part, Structure, structure


def _structure(name: str, **options: object) -> Structure:
    with torch.device("meta"):
        network = senet.build(name, **options)  # type: ignore[arg-type]
    assert isinstance(network, Network)
    return structure(network, senet.info(name).input_size)


# Table 1 of the paper ("Figure 4" of introductions): the widths of a bottleneck, how many, of fc.
STAGES = {
    "resnet50": [((64, 64, 256), 3), ((128, 128, 512), 4), ((256, 256, 1024), 6), ((512, 512, 2048), 3)],
    "resnext50_32x4d": [
        ((128, 128, 256), 3),
        ((256, 256, 512), 4),
        ((512, 512, 1024), 6),
        ((1024, 1024, 2048), 3),
    ],
}
FC = ["fc, [16, 256]", "fc, [32, 512]", "fc, [64, 1024]", "fc, [128, 2048]"]


@pytest.mark.parametrize("layout", ["modern", "original"])
@pytest.mark.parametrize("name", ["resnet50", "se_resnet50", "se_resnext50_32x4d"])
def test_the_three_columns_of_table_1(name: str, layout: str) -> None:
    plain = name.removeprefix("se_")
    cardinality = ", C=32" if plain == "resnext50_32x4d" else ""
    wanted = [
        Part(1, (112, 112), ("conv, 7×7, 64, stride 2",)),
        Part(2, (56, 56), ("max pool, 3×3, stride 2",)),
    ]
    for stage, ((widths, times), fc) in enumerate(zip(STAGES[plain], FC, strict=True), start=2):
        size = 224 // 2**stage
        first, middle, last = widths
        lines = [f"conv, 1×1, {first}", f"conv, 3×3, {middle}{cardinality}", f"conv, 1×1, {last}"]
        lines += [fc] if name != plain else []
        wanted.append(Part(stage, (size, size), tuple(lines), times))
    # The paper ends with the softmax that is here a part of the loss.
    wanted.append(Part(None, (1, 1), ("global average pool, 1000-d fc",)))
    assert _structure(name, layout=layout).parts == tuple(wanted)


def test_it_prints_and_gives_rows() -> None:
    found = _structure("se_resnet50")
    lines = str(found).splitlines()
    assert lines[:7] == [
        "stage  output     layers",
        "1      112 × 112  conv, 7×7, 64, stride 2",
        "2      56 × 56    max pool, 3×3, stride 2",
        "                  ⎡ conv, 1×1, 64  ⎤",
        "                  ⎢ conv, 3×3, 64  ⎥ × 3",
        "                  ⎢ conv, 1×1, 256 ⎥",
        "                  ⎣ fc, [16, 256]  ⎦",
    ]
    assert lines[-1] == "       1 × 1      global average pool, 1000-d fc"
    assert found.rows[2] == {
        "stage": 2,
        "size": [56, 56],
        "layers": ["conv, 1×1, 64", "conv, 3×3, 64", "conv, 1×1, 256", "fc, [16, 256]"],
        "times": 3,
    }


@pytest.mark.parametrize(
    ("placement", "wanted"),
    [
        ("pre", ["fc, [16, 256]", "conv, 1×1, 64", "conv, 3×3, 64", "conv, 1×1, 256"]),
        ("3x3", ["conv, 1×1, 64", "conv, 3×3, 64", "fc, [4, 64]", "conv, 1×1, 256"]),
        ("post", ["conv, 1×1, 64", "conv, 3×3, 64", "conv, 1×1, 256", "fc, [16, 256] after the sum"]),
        ("identity", ["conv, 1×1, 64", "conv, 3×3, 64", "conv, 1×1, 256", "fc, [16, 256] on the shortcut"]),
    ],
)
def test_the_block_is_printed_where_it_stands(placement: str, wanted: list[str]) -> None:
    stage = [row for row in _structure("se_resnet50", placement=placement).rows if row["stage"] == 2]
    assert stage[-1]["layers"] == wanted


def test_stages_without_se_show_none() -> None:
    lines = [line for part in _structure("se_resnet50", stages=[4]).parts for line in part.lines]
    assert [line for line in lines if line.startswith("fc")] == ["fc, [64, 1024]"]


def test_an_inception_module_has_a_line_a_branch() -> None:
    part = next(part for part in _structure("se_bn_inception").parts if len(part.lines) > 1)
    assert part == Part(
        3,
        (28, 28),
        (
            "conv, 1×1, 64",
            "conv, 1×1, 64 → conv, 3×3, 64",
            "conv, 1×1, 64 → conv, 3×3, 96 → conv, 3×3, 96",
            "average pool, 3×3 → conv, 1×1, 32",
            "fc, [16, 256]",
        ),
    )


def test_a_residual_inception_unit_has_a_line_a_branch_and_one_for_the_sum() -> None:
    part = next(part for part in _structure("se_inception_resnet_v2").parts if part.times == 10)
    assert part.lines == (
        "conv, 1×1, 32",
        "conv, 1×1, 32 → conv, 3×3, 32",
        "conv, 1×1, 32 → conv, 3×3, 48 → conv, 3×3, 64",
        "conv, 1×1, 320",
        "fc, [20, 320]",
    )


def test_heads_with_several_layers() -> None:
    *_, pool, head = _structure("vgg16_bn").parts
    assert (pool.size, pool.lines) == ((7, 7), ("max pool, 2×2, stride 2",))
    assert head.lines == ("4096-d fc, 4096-d fc, 1000-d fc",)
