import pytest
from tests.analysis.comparison.made_up import group, result

from senet.analysis.comparison.group import Group, gain_text, p_text
from senet.analysis.comparison.seeds import Estimate, Gain

pytest.importorskip("scipy", reason="scipy is not installed")

GAIN = Gain({0: 0.2, 1: -0.1, 2: 0.5}, Estimate(0.2, -0.55, 0.95, 0.37), 0.74)


def _group() -> Group:
    results = {1: result(top1=92.0, saved_bytes=2**21), 0: result(top1=90.0, saved_bytes=None)}
    return Group(
        label="a", network="x", results=results, failed={2: "RunError: nan\nTraceback"}, missing=[4, 3]
    )


def test_it_says_what_is_done_and_what_is_not() -> None:
    assert _group().seeds == "2 of 5"
    assert _group().short == "2 of 5 seeds done, seed 2 failed (RunError: nan), 2 not run yet"
    assert group("b").seeds == "5"
    assert group("b").short == ""


def test_values_are_in_the_order_of_their_seeds_and_known_ones_count() -> None:
    assert _group().values("test_error") == {0: 10.0, 1: 8.0}
    assert _group().median("saved_bytes") == 2**21
    assert _group().median("peak_bytes") is None
    nothing = Group(label="c", network="x")
    assert (nothing.spread("test_error"), nothing.mean("test_error"), nothing.median("macs")) == (None,) * 3


def test_the_interval_of_a_mean_is_that_of_its_own_seeds() -> None:
    mean = _group().mean("test_error")
    assert mean is not None
    # 12.706 is t of one degree of freedom, 1 the standard error.
    assert mean[:3] == pytest.approx((9.0, -3.706, 21.706), abs=1e-3)


def test_cells_are_text_with_two_digits() -> None:
    cells = _group().cells(GAIN)
    assert cells[""] == "a"
    assert cells["test error %"] == "9.00 ± 1.41"
    assert cells["gain"] == "+0.20 [-0.55, +0.95]"
    assert (cells["wins"], cells["p"], cells["verdict"]) == ("2 of 3", "0.740", "undecided")
    assert (cells["M params"], cells["ms/step"], cells["MiB/image"], cells["GPU MiB"]) == (
        "0.272",
        "67.2",
        "2.00",
        "–",
    )


def test_one_seed_has_no_deviation_and_no_gain_is_a_dash() -> None:
    cells = group("a", seeds=[0]).cells(None)
    assert "±" not in cells["test error %"]
    assert (cells["gain"], cells["p"], cells["verdict"]) == ("–", "–", "–")
    assert gain_text(Gain({0: -0.001}, Estimate(-0.001), None)) == "+0.00"
    assert gain_text(Gain({0: 0.5}, Estimate(0.5, why="one seed: no interval"), None)) == "+0.50"


@pytest.mark.parametrize(("p", "text"), [(None, "–"), (0.0004, "< 0.001"), (0.0234, "0.023"), (1.0, "1.000")])
def test_p_as_text(p: float | None, text: str) -> None:
    assert p_text(p) == text


def test_what_is_not_defined_has_a_name_and_nothing_else() -> None:
    cells = Group(label="r = 32", network="x", undefined="16 // 32 is 0").cells(None)
    assert {head: cell for head, cell in cells.items() if cell} == {"": "r = 32"}


def test_a_row_is_plain_numbers() -> None:
    row = _group().row(GAIN, "base")
    assert row["test_error_percent"] == 9.0
    assert row["test_error_percent_std"] == pytest.approx(2**0.5)
    assert (row["seeds_done"], row["seeds_failed"], row["seeds_missing"]) == (2, 1, 2)
    assert (row["against"], row["gain_points"], row["gain_points_low"], row["gain_wins"]) == (
        "base",
        0.2,
        -0.55,
        2,
    )
    assert (row["p"], row["p_holm"]) == (0.37, 0.74)
    assert (row["parameters"], row["seconds_per_step"]) == (272_474, result().seconds_per_step)
    assert all(value is None or isinstance(value, int | float | str) for value in row.values())
    assert row.keys() == Group(label="c", network="x").row(None, None).keys()


def test_every_seed_is_a_run_whatever_became_of_it() -> None:
    runs = _group().runs
    assert [(run["seed"], run["status"]) for run in runs] == [
        (0, "done"),
        (1, "done"),
        (2, "failed"),
        (3, "not run yet"),
        (4, "not run yet"),
    ]
    assert runs[1]["test_top1"] == 92.0
    assert runs[2]["why"].startswith("RunError")
    assert {tuple(run) for run in runs} == {tuple(runs[0])}
    assert result().to_dict().keys() <= runs[4].keys()
