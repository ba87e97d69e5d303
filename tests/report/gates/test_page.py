import sys
from pathlib import Path

import pytest
from PIL import Image
from tests.report.studies import HOSTILE, study

from senet.errors import MissingExtraError, OptionError
from senet.report.gates.page import gate_page, write_report
from senet.report.gates.views import most_specific
from senet.report.page import escaped

pytest.importorskip("plotly", reason="plotly is not installed")
pytest.importorskip("matplotlib", reason="matplotlib is not installed")


def test_the_report_and_the_figures_are_written_and_nothing_else(tmp_path: Path) -> None:
    paths = write_report(study(stages=(1, 1)), tmp_path / "a" / "b", shown=[0], panels=["layer1.0.se"])
    assert paths[0].name == "report.html"
    assert sorted(paths) == sorted((tmp_path / "a" / "b").iterdir())
    assert len(paths) == 9
    assert paths[0].stat().st_size < 8e6


def test_it_says_what_was_looked_at_and_what_was_found() -> None:
    found = study()
    text = gate_page(found, shown=[0]).html()
    for expected in (
        "se_resnet20",
        "runs/a",
        "shards:a",
        "test",
        "60 of 5 classes",
        "90.00 %",
        "7, with 288 channels",
    ):
        assert f"<dd>{expected}</dd>" in text, expected
    assert "<dt>versions: torch</dt><dd>2.15.0</dd>" in text
    for finding in found.claims:
        assert escaped(finding.claim.text) in text
        assert f"{finding.number.value:+.3f}" in text
        assert f"{finding.number.low:+.3f} to {finding.number.high:+.3f}" in text
        assert f">{finding.verdict}</span>" in text
    assert "between classes" in text
    assert "Random weights" not in text
    assert ">Images<" not in text


def test_random_weights_are_a_banner() -> None:
    text = gate_page(study(random=True), shown=[0]).html()
    assert '<p class="banner" role="note">Random weights: mechanics only.' in text
    assert "not applicable" in text


def test_few_images_are_asked_for_and_each_is_shown_with_its_gate() -> None:
    found = study(stages=(1, 2), images=5)
    asked: list[int] = []

    def pictures(number: int) -> Image.Image:
        asked.append(number)
        return Image.new("RGB", (8, 8), (number, 0, 0))

    text = gate_page(found, shown=[0], pictures=pictures).html()
    assert len(asked) == text.count("data:image/jpeg") == 3 * 3 * 2 * 8
    opening = found.blocks["layer2.1.se"].opening
    channel = most_specific(found.blocks["layer2.1.se"], 1)[0]
    value, image = float(opening.values[channel, 0]), int(opening.images[channel, 0])
    assert f'alt="image {image}, gate {value:.3f}"' in text
    assert f"<h3>Channel {channel}</h3>" in text
    assert text.count("<details><summary>layer") == 3


def test_fewer_images_than_are_kept_are_shown_as_they_are() -> None:
    found = study(stages=(1, 1), classes=("a", "b"), images=2)
    text = gate_page(found, shown=[0], pictures=lambda number: Image.new("L", (4, 4))).html()
    assert text.count("data:image/jpeg") == 2 * 3 * 2 * 4


def test_no_name_becomes_markup() -> None:
    text = gate_page(study(prefix=HOSTILE), shown=[0, 1, 2]).html()
    assert "<script>document" not in text
    assert "</script> " not in text.rpartition("<main>")[2]


@pytest.mark.parametrize("shown", [[], [5], [-1]])
def test_classes_that_are_not_there_are_refused(tmp_path: Path, shown: list[int]) -> None:
    with pytest.raises(OptionError, match="0 to 4"):
        write_report(study(), tmp_path, shown=shown)


def test_without_plotly_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "plotly.io", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'senet\[plot\]'"):
        gate_page(study(), shown=[0])
