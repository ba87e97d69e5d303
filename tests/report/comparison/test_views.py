import pytest
from tests.analysis.comparison.made_up import comparison, depths, group

from senet.analysis.comparison.comparison import Group
from senet.analysis.comparison.seeds import BETTER, UNDECIDED, WORSE
from senet.report.comparison.views import VERDICTS, compared, jitter, short, state

pytest.importorskip("scipy", reason="scipy is not installed")


def test_every_verdict_has_a_colour_of_its_own() -> None:
    assert list(VERDICTS) == [BETTER, UNDECIDED, WORSE]
    assert len(set(VERDICTS.values())) == 3


def test_long_names_are_cut() -> None:
    assert short("r = 16") == "r = 16"
    assert short("x" * 32) == "x" * 32
    assert short("x" * 33) == "x" * 31 + "…"
    assert short("a\n b", 2) == "a…"
    assert short("a\n b") == "a b"


@pytest.mark.parametrize("count", [1, 2, 5])
def test_runs_stay_in_their_row(count: int) -> None:
    places = [jitter(place, count) for place in range(count)]
    assert max(map(abs, places)) < 0.5
    assert (len(set(places)) > 1) == (count > 1)


def test_why_there_are_no_points() -> None:
    assert state(Group(label="a", network="a", undefined="16 // 32")) == "not defined: 16 // 32"
    assert state(Group(label="a", network="a", failed={0: "nan"})) == "failed"
    assert state(Group(label="a", network="a", failed={0: "nan"}, missing=[1])) == "not run yet"


def test_the_baseline_stands_first_and_depths_at_their_logarithm() -> None:
    groups = [group("a"), group("b"), group("c")]
    assert compared(comparison(groups, baseline="b")) == (["b", "a", "c"], [0.0, 1.0, 2.0])
    labels, places = compared(depths())
    assert labels == ["se_resnet20", "se_resnet32", "se_resnet56"]
    assert places == pytest.approx([4.3219, 5, 5.8074], abs=1e-4)
