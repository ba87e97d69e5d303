import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.report.images import image_gates

from senet.analysis.image.image_gates import Average, ImageBlock


def _block(s: list[float], mean: list[float], std: list[float], similarity: list[float]) -> ImageBlock:
    average = Average(10, torch.tensor(mean, dtype=torch.float64), torch.tensor(std, dtype=torch.float64))
    gates = torch.tensor(s, dtype=torch.float64)
    return ImageBlock("b", len(s), (4, 4), gates, average, torch.tensor(similarity, dtype=torch.float64))


def test_how_far_a_block_is() -> None:
    block = _block([0.5, 0.9], [0.2, 0.5], [0.1, 0.0], [-0.5, float("nan"), -0.2])
    assert block.apart.tolist() == pytest.approx([0.3, 0.4])
    assert block.distance == pytest.approx((0.25 / 2) ** 0.5)
    assert block.usual == pytest.approx((0.01 / 2) ** 0.5)
    assert block.deviations is not None
    assert block.deviations.tolist() == pytest.approx([3, float("nan")], nan_ok=True)
    assert block.nearest == 2


def test_nothing_is_nearest_where_nothing_is_known() -> None:
    assert _block([0.5], [0.5], [0.0], [float("nan")]).nearest is None
    alone = image_gates(study=False).blocks[0]
    assert (alone.nearest, alone.distance, alone.usual, alone.deviations) == (None,) * 4
    assert float(alone.apart.mean()) == pytest.approx(0)


def test_the_channel_after_its_gate() -> None:
    channel = image_gates().blocks[0].opened[0]
    assert channel.before is not None
    assert channel.after is not None
    assert torch.equal(channel.after, channel.gate * channel.before)
    assert image_gates(maps=False).blocks[0].opened[0].after is None


def test_it_prints_and_saves(tmp_path: Path) -> None:
    found = image_gates()
    text = str(found)
    assert text.startswith("se_resnet20 on pug.png: pug 75.0%, ")
    assert "Compared with the average of 12 images of the class pug.\n" in text
    assert len(text.splitlines()) == 3 + len(found.blocks)
    opened = found.blocks[0].opened[0]
    assert f"{opened.number} {opened.apart:+.2f}" in text.splitlines()[3]
    for ending in (".csv", ".json", ".md"):
        found.save(tmp_path / f"image{ending}")
    rows = json.loads((tmp_path / "image.json").read_text())
    assert rows == found.rows
    assert rows[-1]["nearest"] == found.classes[found.blocks[-1].nearest or 0]
    with (tmp_path / "image.csv").open(newline="") as file:
        assert [row["block"] for row in csv.DictReader(file)] == [block.name for block in found.blocks]


def test_it_says_what_it_is_compared_with() -> None:
    found = image_gates()
    assert replace(found, label=None).compared == "the average of 12 images over all classes"
    alone = image_gates(study=False)
    assert "no other images" in str(alone)
    assert "distance" not in str(alone)
    assert alone.rows[0]["distance"] is None
    assert "random" in str(replace(found, random=True))


def test_a_row_a_channel() -> None:
    found = image_gates(stages=(1, 1))
    rows = found.channel_rows
    assert [row["block"] for row in rows] == ["layer1.0.se"] * 8 + ["layer2.0.se"] * 16
    last, average = rows[-1], found.blocks[1].average
    assert average is not None
    assert (last["channel"], last["gate"]) == (15, float(found.blocks[1].s[15]))
    assert (last["average"], last["std"]) == (float(average.mean[15]), float(average.std[15]))
    assert last["deviations"] == pytest.approx((last["gate"] - last["average"]) / last["std"])
    assert image_gates(study=False).channel_rows[0]["average"] is None


def test_the_block_that_is_furthest() -> None:
    found = image_gates(stages=(1, 1, 1))
    far = _block([0.0, 1.0], [1.0, 0.0], [0.1, 0.1], [0.0])
    assert replace(found, blocks=(*found.blocks, far)).furthest == 3
