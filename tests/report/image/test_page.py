import base64
import csv
import io
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tests.report.images import image_gates
from tests.report.studies import CLASSES, HOSTILE

from senet.report.image.page import image_page, write_image_report

pytest.importorskip("plotly", reason="plotly is not installed")
pytest.importorskip("matplotlib", reason="matplotlib is not installed")


def test_the_page_the_picture_and_the_numbers_are_written(tmp_path: Path) -> None:
    found = image_gates(stages=(1, 1))
    paths = write_image_report(found, tmp_path / "a" / "b")
    assert [path.name for path in paths] == ["image.html", "image.png", "image.csv"]
    assert sorted(paths) == sorted((tmp_path / "a" / "b").iterdir())
    with paths[2].open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8 + 16
    assert float(rows[9]["gate"]) == float(found.blocks[1].s[1])


def _own(text: str) -> str:
    """The page without plotly itself."""
    return re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)


def test_it_says_what_the_image_is_and_which_channels_are_far_off() -> None:
    found = image_gates()
    text = _own(image_page(found).html())
    assert "<h1>The gates of se_resnet20 on pug.png</h1>" in text
    assert "the average of 12 images of the class pug" in text
    assert "75.0%" in text
    for block in found.blocks:
        assert f"{block.name} · {block.channels} channels · {block.distance:.3f} from the average" in text
        for channel in (*block.opened, *block.closed):
            usual = channel.gate - channel.apart
            said = f"gate {channel.gate:.2f}, usually {usual:.2f} ({channel.deviations:+.1f} σ)"
            assert said in text
    opened = [part for part in text.split("<details") if part.startswith(" open")]
    assert len(opened) == 1
    assert found.blocks[found.furthest].name in opened[0]


def _pictures(text: str) -> list[Image.Image]:
    found = re.findall(r'src="data:image/\w+;base64,([^"]+)"', text)
    return [Image.open(io.BytesIO(base64.b64decode(each))) for each in found]


def test_the_maps_before_and_after_the_gate_are_in_the_page() -> None:
    found = image_gates(stages=(1,))
    image, *maps = _pictures(_own(image_page(found).html()))
    assert image.size == (32, 32)
    assert len(maps) == 2 * 4
    assert len({each.tobytes() for each in maps}) == 8
    assert len({each.size for each in maps}) == 1


@pytest.mark.parametrize("changed", [{"study": False}, {"maps": False}, {"predictions": ()}])
def test_it_is_whole_whatever_is_not_known(changed: dict[str, Any]) -> None:
    text = _own(image_page(image_gates(**changed)).html())
    assert (">Over depth<" in text) == changed.get("study", True)
    assert ("The map is not seen." in text) == ("maps" in changed)
    assert (">prediction<" in text) == ("predictions" not in changed)
    assert not re.search(r"\b(nan|None)\b", re.sub(r'src="[^"]*"', "", text))


def test_where_no_gate_is_off_it_says_so() -> None:
    found = image_gates(stages=(1,))
    block = replace(found.blocks[0], closed=())
    text = _own(image_page(replace(found, blocks=(block,))).html())
    assert text.count("No gate differs.") == 1


def test_names_are_text_and_nothing_is_loaded_from_elsewhere() -> None:
    text = image_page(
        image_gates(network=HOSTILE, file=f"{HOSTILE}.png", label=CLASSES.index(HOSTILE))
    ).html()
    assert "<script>document" not in text
    assert "&lt;script&gt;document" in text
    assert not re.search(r'(?:src|href)="(?!data:|#)', _own(text))
    assert not re.search(r"url\((?!data:)", _own(text))


def test_random_weights_are_a_banner() -> None:
    assert "Random weights" in image_page(image_gates(stages=(1,), random=True)).html()
    assert "Random weights" not in image_page(image_gates(stages=(1,))).html()
