import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tests.report.images import image_gates
from tests.report.studies import HOSTILE

from senet.analysis.image.image_gates import Prediction
from senet.errors import MissingExtraError
from senet.report.image.figure import image_figure, write_image_figure

pytest.importorskip("matplotlib", reason="matplotlib is not installed")


def test_the_picture_is_there_and_nothing_else(tmp_path: Path) -> None:
    write_image_figure(image_gates(stages=(1, 1)), tmp_path / "image.png")
    with Image.open(tmp_path / "image.png") as picture:
        assert picture.width == 1350
        assert len(picture.convert("RGB").getcolors(1 << 24) or []) > 500
    assert [path.name for path in tmp_path.iterdir()] == ["image.png"]


def test_the_last_block_of_each_stage_has_a_row_with_its_gates_and_four_maps() -> None:
    found = image_gates()
    figure: Any = image_figure(found)
    by_title = {axes.get_title(loc="left"): axes for axes in figure.axes}
    assert [title for title in by_title if title.startswith("layer")] == [
        "layer1.1.se",
        "layer2.1.se",
        "layer3.0.se",
        "layer3.1.se",
        "layer3.2.se",
    ]
    block = found.blocks[1]
    assert block.average is not None
    axes = by_title[block.name]
    order = block.average.mean.argsort()
    assert axes.collections[1].get_offsets()[:, 1].tolist() == block.s[order].tolist()
    assert axes.get_lines()[0].get_ydata().tolist() == block.average.mean[order].tolist()
    for channel in (*block.opened, *block.closed):
        assert f"{channel.number}: {channel.gate:.2f} ({channel.apart:+.2f})" in by_title


def test_names_are_text_and_nothing_leaves_the_picture() -> None:
    prediction = Prediction(0, HOSTILE, 0.5)
    found = image_gates(stages=(1,), network="$1", file="a_$2_$3.png", predictions=(prediction,) * 5)
    figure: Any = image_figure(replace(found, images=1_000_000, label=2))
    figure.savefig("/dev/null", format="png", backend="agg")
    width, height = figure.canvas.get_width_height()
    texts = [text for axes in figure.axes for text in (*axes.texts, axes.title, axes._left_title)]
    for text in texts:
        box = text.get_window_extent()
        assert not text.get_parse_math() or "$" not in text.get_text()
        assert not text.get_text() or (box.x0 >= 0 and box.x1 <= width and box.y0 >= 0 and box.y1 <= height)


@pytest.mark.parametrize(
    "changed", [{"study": False}, {"maps": False}, {"predictions": ()}, {"stages": (1,)}]
)
def test_it_is_drawn_whatever_is_not_known(changed: dict[str, Any], tmp_path: Path) -> None:
    write_image_figure(image_gates(**{"stages": (1,), **changed}), tmp_path / "image.png")
    assert (tmp_path / "image.png").stat().st_size > 10_000


def test_without_matplotlib_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match="matplotlib"):
        write_image_figure(image_gates(), tmp_path / "image.png")
    assert not list(tmp_path.iterdir())
