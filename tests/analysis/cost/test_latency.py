import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from senet.analysis.cost.latency import Spread, alternate


def test_candidates_take_turns_after_a_warm_up() -> None:
    ran: list[str] = []
    found = alternate({"a": lambda: ran.append("a"), "b": lambda: ran.append("b")}, rounds=3, repeats=2)
    assert ran == [*"ab", *"aabb" * 3]
    assert {name: len(seconds) for name, seconds in found.items()} == {"a": 3, "b": 3}
    assert all(each >= 0 for seconds in found.values() for each in seconds)


def test_nothing_to_measure() -> None:
    assert alternate({}, rounds=3) == {}


def test_spread_by_hand() -> None:
    assert Spread.of([5.0, 1.0, 3.0, 2.0, 4.0]) == Spread(3.0, 2.0, 4.0, 5)


@given(st.lists(st.floats(-1e6, 1e6), min_size=2))
def test_the_median_lies_between_the_quartiles(values: list[float]) -> None:
    found = Spread.of(values)
    assert found.median == pytest.approx(statistics.median(values))
    assert min(values) <= found.low <= found.median <= found.high <= max(values)
