import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tests.analysis.comparison.made_up import HOSTILE, comparison, group, reduction

from senet.analysis.comparison.comparison import Group
from senet.errors import MissingExtraError
from senet.report.comparison.figure import figure_of, write_figure

pytest.importorskip("matplotlib", reason="matplotlib is not installed")
pytest.importorskip("scipy", reason="scipy is not installed")


def test_both_kinds_are_written_and_are_the_same_each_time(tmp_path: Path) -> None:
    paths = write_figure(reduction(), tmp_path)
    assert (
        sorted(paths)
        == sorted(tmp_path.iterdir())
        == [tmp_path / "comparison.png", tmp_path / "comparison.svg"]
    )
    before = paths[1].read_bytes()
    write_figure(reduction(), tmp_path)
    assert paths[1].read_bytes() == before
    with Image.open(paths[0]) as image:
        assert image.width == 1275


def test_nothing_is_drawn_before_a_run_is_done(tmp_path: Path) -> None:
    waiting = [Group(label=label, network=label, missing=[0]) for label in "ab"]
    assert write_figure(comparison(waiting), tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_a_row_a_group_with_its_runs_mean_and_gain() -> None:
    found = reduction()
    errors, gains = figure_of(found).axes
    assert [tick.get_text() for tick in errors.get_yticklabels()] == [each.label for each in found.groups]
    assert [text.get_text() for text in errors.texts] == ["not defined: 16 channels // 32 is 0"]
    # A mean and its interval are a container each.
    assert (len(errors.containers), len(gains.containers)) == (4, 3)
    runs: Any = errors.lines[0].get_xdata()
    assert list(runs) == list(found.groups[0].values("test_error").values())


def test_more_groups_make_it_higher_and_names_are_no_formulas(tmp_path: Path) -> None:
    many = comparison([group(f"{number} {HOSTILE}", seeds=[0]) for number in range(12)], title=HOSTILE)
    assert figure_of(many).get_figheight() > figure_of(comparison()).get_figheight() + 3
    svg = write_figure(many, tmp_path)[1].read_text()
    assert "<script" not in svg


def test_without_matplotlib_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'senet\[plot\]'"):
        write_figure(comparison(), tmp_path)


def test_no_text_makes_it_warn_or_collapse(tmp_path: Path) -> None:
    """Warnings are errors here."""
    undefined = Group(label="c", network="c", undefined="W W " * 40)
    found = comparison([group("基線", seeds=[0]), group("W" * 40, seeds=[0]), undefined], title="a\n" * 9)
    assert len(write_figure(found, tmp_path)) == 2
    long = figure_of(comparison(title="word " * 40)).get_suptitle()
    assert long.endswith("…")
