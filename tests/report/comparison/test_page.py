import sys
from pathlib import Path

import pytest
from tests.analysis.comparison.made_up import HOSTILE, comparison, depths, group, reduction

from senet.analysis.comparison.comparison import Comparison, Group
from senet.errors import MissingExtraError
from senet.report.comparison.page import comparison_page, write_report
from senet.report.page import escaped

pytest.importorskip("plotly", reason="plotly is not installed")
pytest.importorskip("matplotlib", reason="matplotlib is not installed")
pytest.importorskip("scipy", reason="scipy is not installed")


def _text(found: Comparison) -> str:
    """The page without plotly, which is long."""
    return comparison_page(found).html().partition("<body>")[2]


def _waiting() -> Comparison:
    return comparison([Group(label=label, network=label, missing=[0, 1]) for label in "ab"])


def test_the_report_and_the_picture_are_written_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    assert write_report(comparison(), folder) == folder / "report.html"
    assert sorted(path.name for path in folder.iterdir()) == [
        "comparison.png",
        "comparison.svg",
        "report.html",
    ]


def test_the_question_the_answer_and_the_conditions_come_first() -> None:
    found = comparison()
    text = _text(found)
    places = [
        text.index(str(escaped(part)))
        for part in (found.title, found.question, found.answer, "shards:cifar10")
    ]
    assert places == sorted(places)
    assert "<dt>runs done</dt><dd>10 of 10</dd>" in text
    assert "<dt>versions: torch</dt><dd>2.15.0</dd>" in text
    assert "All runs are done." in text


def test_the_papers_numbers_have_a_section_of_their_own() -> None:
    ours, paper = _text(reduction()).split('">The paper&#x27;s numbers</h2>')
    assert "Table 10: SE-ResNet-50 on ImageNet" in paper
    assert "22.28" in paper
    assert "22.28" not in ours
    assert "The paper&#x27;s numbers" not in _text(comparison())


def test_the_table_has_a_line_a_group_with_its_verdict() -> None:
    text = _text(reduction())
    assert text.count('<span class="pill held">better</span>') == 2
    assert text.count('<span class="pill">undecided</span>') == 1
    assert '<div>r = 32</div><div class="small">not defined: 16 channels // 32 is 0</div>' in text
    for note in reduction().notes:
        assert f"<li>{escaped(note)}</li>" in text


def test_what_failed_or_is_missing_is_in_the_open() -> None:
    text = _text(reduction())
    assert "<dd>18 of 20, 1 failed, 1 not run yet</dd>" in text
    shown = text.partition('">Runs</h2>')[2].partition("<details>")[0]
    assert "RunError: the loss is nan" in shown
    assert "not run yet" in shown


def test_before_anything_is_done_there_is_a_page_without_figures() -> None:
    text = _text(_waiting())
    assert "No run is done yet." in text
    assert "<figure>" not in text
    assert "0 of 4, 4 not run yet" in text
    assert _text(comparison([])).count("<h2") == 3


@pytest.mark.parametrize(("seeds", "banners"), [(1, 1), (2, 1), (3, 0)])
def test_too_few_seeds_are_a_banner(seeds: int, banners: int) -> None:
    text = _text(comparison([group("a", seeds=range(seeds)), group("b", seeds=range(seeds))]))
    assert text.count('<p class="banner"') == banners


def test_depth_says_that_each_is_compared_with_its_plain_network() -> None:
    text = _text(depths())
    assert "above the plain network with the same seed" in text
    assert str(escaped(depths().answer)) in text


def test_no_name_becomes_markup() -> None:
    failed = Group(label="c", network="c", failed={0: HOSTILE})
    text = _text(
        comparison([group("a"), group(HOSTILE), failed], title=HOSTILE, question=HOSTILE, origin=HOSTILE)
    )
    assert "<script>document" not in text
    assert "&lt;script&gt;document" in text


def test_without_plotly_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "plotly.io", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'senet\[plot\]'"):
        comparison_page(comparison())
