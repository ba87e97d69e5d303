import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.analysis.comparison.made_up import HOSTILE, comparison, depths, group, reduction, result

from senet.analysis.comparison.comparison import Comparison, Group, Pair
from senet.errors import DataError, OptionError

pytest.importorskip("scipy", reason="scipy is not installed")


def _exact(label: str, *top1: float) -> Group:
    return Group(label=label, network=label, results={s: result(top1=each) for s, each in enumerate(top1)})


def _two(*gains: float) -> Comparison:
    better = [90.0 + seed + gain for seed, gain in enumerate(gains)]
    return comparison([_exact("a", *[90.0 + seed for seed in range(len(gains))]), _exact("b", *better)])


def test_gains_are_paired_by_seed() -> None:
    found = _two(1.0, 1.1, 0.9)
    assert found.gains["b"].by_seed == pytest.approx({0: 1.0, 1: 1.1, 2: 0.9})
    assert list(found.gains) == ["b"]


@pytest.mark.parametrize(
    ("gains", "answer"),
    [
        ([0.4, 0.5, 0.45], "b is better than a by 0.45 points of test top-1 [0.33, 0.57], 3 seeds."),
        ([-0.4, -0.5, -0.45], "b is worse than a by 0.45 points of test top-1 [0.33, 0.57], 3 seeds."),
        ([0.4, -0.5, 0.4], "Undecided: b against a: +0.10 [-1.19, +1.39] points of test top-1, 3 seeds."),
        ([0.4, 0.5], "Undecided: b against a: +0.45 [-0.19, +1.09] points of test top-1, 2 seeds."),
        ([0.4], "Undecided: b against a: +0.40 points of test top-1, 1 seed."),
    ],
)
def test_the_answer_on_two_groups(gains: list[float], answer: str) -> None:
    assert _two(*gains).answer == answer


def test_the_answer_on_several_names_each_with_its_verdict() -> None:
    found = comparison([_exact("a", 90, 91, 92), _exact("b", 91, 92.1, 92.9), _exact("c", 90.1, 91, 91.9)])
    assert found.answer == "Against a, 3 seeds: better: b (+1.00); undecided: c (+0.00)."
    assert reduction().answer.startswith("Against original, 3 to 5 seeds: better: ")


def test_before_anything_is_done_there_is_an_answer_too() -> None:
    waiting = [Group(label=label, network=label, missing=[0]) for label in "ab"]
    assert comparison(waiting).answer == comparison([]).answer == "No run is done yet."
    apart = comparison([group("a", seeds=[0]), group("b", seeds=[1])])
    assert apart.answer == "There is nothing to compare yet: no seed is done on both sides."


def test_depth_pairs_each_with_its_own_plain_network() -> None:
    found = depths()
    assert found.opponents == {
        "se_resnet20": "resnet20",
        "se_resnet32": "resnet32",
        "se_resnet56": "resnet56",
    }
    assert found.slope is not None
    assert found.answer.startswith(found.slope.verdict)
    assert "With SE, 5 seeds: " in found.answer


def test_the_slope_is_that_of_the_gains() -> None:
    names = [
        _exact("p20", 90, 91, 92),
        _exact("s20", 91, 92, 93),
        _exact("p40", 90, 91, 92),
        _exact("s40", 91.5, 92.6, 93.4),
    ]
    found = comparison(names, baseline="", pairs=[Pair("p20", "s20", 20), Pair("p40", "s40", 40)])
    assert found.slope is not None
    assert found.slope.by_seed == pytest.approx({0: 0.5, 1: 0.6, 2: 0.4})
    assert found.answer.startswith("The gain grows with depth: the slope is +0.50 points per doubling")


def test_a_slope_waits_for_all_depths_but_not_for_those_that_cannot_be() -> None:
    groups = list(depths().groups)
    waiting = comparison(
        [*groups[:-1], Group(label="se_resnet56", network="x", missing=[0])], pairs=depths().pairs
    )
    assert waiting.slope is None
    assert waiting.answer.startswith("Too little is done to see how the gain changes. With SE")
    without = comparison(
        [*groups[:-1], Group(label="se_resnet56", network="x", undefined="no")], pairs=depths().pairs
    )
    assert without.slope is not None


def test_text_is_a_line_a_group_and_the_papers_numbers_stand_apart() -> None:
    ours, paper = str(reduction()).split(
        "Printed in the paper, not measured here: Table 10: SE-ResNet-50 on ImageNet"
    )
    lines = ours.splitlines()
    assert sum(line.startswith(("original ", "r = ")) for line in lines) == 5
    assert "r = 32    not defined: 16 channels // 32 is 0" in lines
    [head] = [line for line in lines if "test error %" in line]
    assert "top-5" not in head
    assert "22.28" not in ours
    assert "top-1 error %  M params" in paper
    assert "r = 16            22.28      28.1" in paper
    assert max(map(len, lines)) < 140


def test_columns_of_which_nothing_is_known_are_left_out() -> None:
    waiting = comparison([Group(label=label, network=label, missing=[0]) for label in "ab"])
    assert list(waiting.shown[0]) == ["", "seeds", "verdict"]
    assert "GPU MiB" not in comparison().shown[0]
    assert comparison([]).shown == []
    assert str(comparison([])).startswith("resnet20 and se_resnet20")


def test_saving_writes_all_three(tmp_path: Path) -> None:
    paths = reduction().save(tmp_path / "reduction")
    assert sorted(paths) == sorted((tmp_path / "reduction").iterdir())
    with (tmp_path / "reduction" / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == [each.label for each in reduction().groups]
    assert float(rows[1]["gain_points"]) == pytest.approx(reduction().gains["r = 2"].estimate.mean)
    assert rows[4]["not_defined"] == "16 channels // 32 is 0"
    with (tmp_path / "reduction" / "runs.csv").open() as file:
        runs = list(csv.DictReader(file))
    assert len(runs) == 20
    assert float(runs[0]["test_top1"]) == reduction().groups[0].results[0].test_top1
    text = (tmp_path / "reduction" / "table.md").read_text()
    assert text == reduction().to_markdown()
    assert "| r = 32 | not defined: 16 channels // 32 is 0 |" in text
    assert "top-5 error %" in text


def test_a_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: Comparison) -> str:
        raise OSError("no room")

    monkeypatch.setattr(Comparison, "to_markdown", fails)
    with pytest.raises(DataError, match="no room"):
        comparison().save(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_no_label_becomes_markup_in_markdown() -> None:
    text = comparison([group("a"), group(HOSTILE)], title=HOSTILE).to_markdown()
    assert "<script>" not in text
    assert "a\\|b" in text
    assert {line.replace("\\|", "").count("|") for line in text.splitlines() if line.startswith("|")} == {14}


def test_only_what_is_markup_is_escaped_in_markdown() -> None:
    label = "*a* `b` [c](d) _e_ se_resnet20 ~f~ $g$ &lt; \\h"
    text = comparison([group("a"), group(label)]).to_markdown()
    escaped = "\\*a\\* \\`b\\` \\[c\\](d) \\_e\\_ se_resnet20 \\~f\\~ \\$g\\$ \\&lt; \\\\h"
    assert f"\n| {escaped} | 5 |" in text


def test_a_baseline_that_is_not_defined_is_told() -> None:
    found = reduction()
    answer = comparison(found.groups, baseline="r = 32").answer
    assert answer == (
        "Nothing can be compared: the baseline, r = 32, is not defined for this network "
        "(16 channels // 32 is 0)."
    )


def test_heads_of_the_papers_numbers_give_units_and_keep_the_data() -> None:
    printed = {"top1, ImageNet": "24.80", "error, CIFAR-10": "6.37", "gmacs": "3.86"}
    [line] = comparison([Group(label="a", network="a", printed=printed)]).printed
    assert list(line) == ["", "top-1 error %, ImageNet", "error %, CIFAR-10", "GMACs"]


@pytest.mark.parametrize(
    ("labels", "options", "expected"),
    [
        (["a\nb"], {}, "'a.*b' of compare: it is not one line of text"),
        (["a\n"], {}, "it is not one line of text"),
        ([""], {}, "it is not one line of text"),
        ([" "], {}, "it is not one line of text"),
        ("aa", {}, "it is there twice"),
        ("ab", {"baseline": "c"}, "the group 'c' of compare"),
        ("ab", {"pairs": [Pair("a", "x", 20)]}, "the group 'x' of compare"),
    ],
)
def test_labels_that_do_not_fit_are_refused(
    labels: Sequence[str], options: dict[str, Any], expected: str
) -> None:
    with pytest.raises(OptionError, match=expected):
        comparison([Group(label=label, network="x") for label in labels], **options)
