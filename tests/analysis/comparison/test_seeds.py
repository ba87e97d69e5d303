import math
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from senet.analysis.comparison.seeds import (
    BETTER,
    UNDECIDED,
    WORSE,
    Estimate,
    Gain,
    Slope,
    estimate,
    gains,
    holm,
    slope,
    spread,
)
from senet.errors import MissingExtraError

stats = pytest.importorskip("scipy.stats", reason="scipy is not installed")

# Correct images of 1,000, as percentages: what runs differ by in truth.
PERCENTAGES = st.integers(0, 1000).map(lambda correct: correct / 10)
PAIRED = st.lists(st.tuples(PERCENTAGES, PERCENTAGES), min_size=2, max_size=12)


@given(st.lists(PERCENTAGES, min_size=2, max_size=12))
def test_mean_and_deviation_are_those_of_the_formulas(values: list[float]) -> None:
    found = spread(values)
    mean = sum(values) / len(values)
    assert found.mean == pytest.approx(mean)
    variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
    assert found.std == pytest.approx(math.sqrt(variance), abs=1e-9)


@settings(max_examples=60)
@given(PAIRED)
def test_the_test_is_the_paired_t_test_and_the_interval_is_its_inverse(
    pairs: list[tuple[float, float]],
) -> None:
    own, other = zip(*pairs, strict=True)
    differences = [mine - theirs for mine, theirs in pairs]
    found = estimate(differences)
    assert found.mean == pytest.approx(sum(differences) / len(differences), abs=1e-9)
    if max(differences) - min(differences) < 1e-6:
        assert found[1:] == (None, None, None, "equal in all seeds: no interval")
        return
    expected = stats.ttest_rel(own, other)
    low, high = expected.confidence_interval(0.95)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-6, abs=1e-12)
    assert [found.low, found.high] == pytest.approx([low, high], abs=1e-8)


def test_one_seed_has_a_difference_and_nothing_more() -> None:
    assert spread([90.0]) == (90.0, None)
    assert estimate([0.5]) == Estimate(0.5, None, None, None, "one seed: no interval")


def test_only_seeds_that_both_have_are_paired() -> None:
    found = gains({"a": ({0: 91.0, 1: 92.0, 2: 93.5, 7: 10.0}, {0: 90.0, 1: 92.5, 2: 92.5, 3: 99.0})})
    assert found["a"].by_seed == {0: 1.0, 1: -0.5, 2: 1.0}
    assert found["a"].wins == 2
    assert found["a"].estimate.mean == pytest.approx(0.5)


def test_without_a_seed_in_common_there_is_no_gain() -> None:
    assert gains({"a": ({0: 91.0}, {1: 90.0}), "b": ({}, {1: 90.0})}) == {}


def test_holm_by_hand() -> None:
    # The example in R's p.adjust: sorted 0.01, 0.02, 0.03, 0.04 times 4, 3, 2, 1, never falling.
    assert holm([0.03, 0.01, None, 0.04, 0.02]) == pytest.approx([0.06, 0.04, None, 0.06, 0.06])
    assert holm([0.4, 0.9]) == pytest.approx([0.8, 0.9])
    assert holm([0.02]) == [0.02]
    assert holm([]) == []


@given(st.lists(st.one_of(st.none(), st.floats(0, 1)), max_size=8))
def test_holm_only_raises_and_rejects_what_the_stepwise_rule_does(ps: list[float | None]) -> None:
    known = sorted(p for p in ps if p is not None)
    rejected = 0
    while rejected < len(known) and known[rejected] * (len(known) - rejected) < 0.05:
        rejected += 1
    adjusted = holm(ps)
    assert [p is None for p in adjusted] == [p is None for p in ps]
    assert all(
        new >= old for new, old in zip(adjusted, ps, strict=True) if new is not None and old is not None
    )
    assert sum(p is not None and p < 0.05 for p in adjusted) == rejected


def test_several_comparisons_are_adjusted_together() -> None:
    base = {0: 90.0, 1: 91.0, 2: 90.5}
    better = {0: 91.0, 1: 92.1, 2: 91.4}
    alone = gains({"a": (better, base)})["a"]
    three = gains(dict.fromkeys("abc", (better, base)))["a"]
    assert alone.estimate == three.estimate
    assert alone.p == alone.estimate.p
    assert three.estimate.p is not None
    assert three.p == pytest.approx(3 * three.estimate.p)


@pytest.mark.parametrize(
    ("differences", "verdict"),
    [
        ([1.0, 1.1, 0.9], BETTER),
        ([-1.0, -1.1, -0.9], WORSE),
        ([1.0, -1.1, 0.9], UNDECIDED),
        # However small p is with two seeds, and though all are the same.
        ([1.0, 1.0001], UNDECIDED),
        ([1.0, 1.0, 1.0], UNDECIDED),
        ([1.0], UNDECIDED),
    ],
)
def test_verdicts(differences: list[float], verdict: str) -> None:
    found = gains({"a": (dict(enumerate(differences)), dict.fromkeys(range(len(differences)), 0.0))})["a"]
    assert found.verdict == verdict


def test_a_verdict_goes_by_the_adjusted_p() -> None:
    single = Estimate(0.5, 0.1, 0.9, 0.02)
    assert Gain({0: 0.5, 1: 0.4, 2: 0.6}, single, 0.02).verdict == BETTER
    assert Gain({0: 0.5, 1: 0.4, 2: 0.6}, single, 0.06).verdict == UNDECIDED


@given(st.floats(-2, 2), st.floats(-2, 2))
def test_the_slope_is_in_points_per_doubling(rise: float, start: float) -> None:
    depths = [20, 40, 80]
    found = slope(depths, [{0: start + rise * doublings, 4: start} for doublings in range(3)])
    assert found is not None
    assert found.by_seed == pytest.approx({0: rise, 4: 0.0}, abs=1e-9)
    assert found.estimate.mean == pytest.approx(rise / 2, abs=1e-9)


def test_a_slope_needs_two_depths_and_a_seed_that_has_all() -> None:
    assert slope([20], [{0: 1.0}]) is None
    assert slope([20, 20], [{0: 1.0}, {0: 2.0}]) is None
    assert slope([20, 40], [{0: 1.0}, {1: 1.0}]) is None
    assert slope([], []) is None
    found = slope([20, 40], [{0: 1.0, 1: 9.0}, {0: 2.0}])
    assert found is not None
    assert found.by_seed == pytest.approx({0: 1.0})


@pytest.mark.parametrize(
    ("slopes", "begins"),
    [
        (
            [0.1, -0.1, 0.05],
            "No change of the gain with depth is seen, which is no proof of none: the slope is",
        ),
        (
            [0.5, 0.6, 0.55],
            "The gain grows with depth: the slope is +0.55 points per doubling of the depth [",
        ),
        ([-0.5, -0.6, -0.55], "The gain shrinks with depth: the slope is -0.55 points per doubling"),
        ([0.5, 0.6], "Fewer than 3 seeds: nothing can be concluded; the slope is +0.55"),
        ([0.5], "Nothing can be said of the slope (+0.50 points per doubling): one seed: no interval."),
    ],
)
def test_a_slope_says_no_more_than_its_interval(slopes: list[float], begins: str) -> None:
    assert Slope(dict(enumerate(slopes)), estimate(slopes)).verdict.startswith(begins)


def test_without_scipy_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy", None)
    assert estimate([1.0]).mean == 1.0
    with pytest.raises(MissingExtraError, match=r"pip install 'senet\[train\]'"):
        estimate([1.0, 2.0])
