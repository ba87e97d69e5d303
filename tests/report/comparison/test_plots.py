import dataclasses
from typing import Any

import pytest
from tests.analysis.comparison.made_up import HOSTILE, comparison, depths, group, reduction, result

from senet.analysis.comparison.comparison import Group
from senet.analysis.comparison.group import ERRORS

pytest.importorskip("plotly", reason="plotly is not installed")
pytest.importorskip("scipy", reason="scipy is not installed")

from senet.report.comparison.plots import cost_figure, curves_figure, errors_figure, gains_figure


def test_every_run_is_a_dot_in_the_row_of_its_group() -> None:
    found = reduction()
    dots, means = errors_figure(found).data
    runs = [(row, run) for row, each in enumerate(found.groups) for run in each.results.values()]
    assert list(dots.x) == pytest.approx([run.test_error for _, run in runs])
    assert [round(place) for place in dots.y] == [row for row, _ in runs]
    assert dots.text[0] == "original, seed 0"
    assert list(means.x) == pytest.approx([8.742, 8.308, 7.976, 8.3067], abs=1e-3)
    assert list(means.y) == [0, 1, 2, 3]
    mean = found.groups[0].mean("test_error")
    assert mean is not None
    assert mean.high is not None
    assert means.error_x.array[0] == pytest.approx(mean.high - mean.mean, abs=1e-4)


def test_buttons_choose_the_error_and_move_the_line_of_the_baseline() -> None:
    found = reduction()
    figure = errors_figure(found)
    buttons = figure.layout.updatemenus[0].buttons
    assert [each.label for each in buttons] == ["test error", "top-5 error", "train error"]
    for button, name in zip(buttons, ERRORS, strict=True):
        data, layout = button.args
        mean = found.groups[0].spread(name)
        assert mean is not None
        assert data["x"][1][0] == pytest.approx(mean.mean, rel=1e-4)
        assert layout["shapes"][0]["x0"] == pytest.approx(mean.mean)
    assert figure.layout.shapes[0].x0 == pytest.approx(buttons[0].args[1]["shapes"][0]["x0"])


def test_a_group_without_runs_says_why() -> None:
    [note] = errors_figure(reduction()).layout.annotations
    assert (note.y, note.text) == (4, "not defined: 16 channels // 32 is 0")


def test_one_seed_has_no_interval() -> None:
    found = comparison([group("a", seeds=[0]), group("b", seeds=[0])])
    assert errors_figure(found).data[1].error_x.array == (None, None)
    figure = gains_figure(found)
    marks = [trace for trace in figure.data if trace.mode == "markers" and trace.x]
    assert [trace.error_y.array for trace in marks] == [(None,)]


def test_gains_are_a_line_a_seed_from_the_baseline_on() -> None:
    found = reduction()
    figure = gains_figure(found)
    lines = [trace for trace in figure.data if trace.mode == "lines+markers"]
    assert len(lines) == 5
    for seed, line in enumerate(lines):
        assert line.y[0] == 0
        assert line.y[1] == found.gains["r = 2"].by_seed[seed]
        assert line.y[3] == found.gains["r = 16"].by_seed.get(seed)
    assert [trace.showlegend for trace in lines] == [True, False, False, False, False]
    assert list(figure.layout.xaxis.ticktext) == ["original", "r = 2", "r = 4", "r = 16"]


def test_names_below_the_gains_are_slanted_where_they_have_no_room() -> None:
    for label, count, angle in (("r = 16", 8, 0), ("x" * 25, 3, 0), ("x" * 32, 3, -35), ("r = 16", 15, -35)):
        groups = [group(f"{label[:-2]}{number:02}", seeds=[0]) for number in range(count)]
        axis = gains_figure(comparison(groups)).layout.xaxis
        assert (axis.tickangle, axis.ticklabeloverflow) == (angle, "allow")
        assert tuple(axis.range) == (-0.5, count - 0.5)


def test_means_stand_under_their_verdict() -> None:
    found = reduction()
    marks = {
        trace.name.rpartition(" ")[2]: trace for trace in gains_figure(found).data if trace.mode == "markers"
    }
    assert list(marks["better"].x) == [1, 2]
    assert list(marks["undecided"].x) == [3]
    assert list(marks["worse"].x) == []
    assert marks["worse"].showlegend is False
    assert marks["better"].text[0] == found.shown[1]["gain"]


def test_depths_are_as_far_apart_as_they_are_doublings() -> None:
    figure = gains_figure(depths())
    assert list(figure.layout.xaxis.tickvals) == pytest.approx([4.3219, 5, 5.8074], abs=1e-4)
    assert 0 not in figure.data[0].y


def test_curves_are_means_within_their_bands_and_end_where_the_runs_do() -> None:
    found = comparison()
    band, line, loss_band, loss = curves_figure(found).data[:4]
    spread = found.groups[0].spread("test_error")
    assert spread is not None
    assert line.y[-1] == pytest.approx(spread.mean, rel=1e-4)
    assert list(line.x) == list(range(1, 21))
    errors = found.groups[0].values("test_error").values()
    assert [line.customdata[-1][0], line.customdata[-1][1]] == pytest.approx(
        [min(errors), max(errors)], rel=1e-4
    )
    assert (band.legendgroup, line.legendgroup, loss.legendgroup) == ("group 0",) * 3
    assert max(loss.y) <= max(loss_band.y)
    assert loss.yaxis == "y2"


def test_only_runs_that_are_done_have_curves_and_only_four_groups_at_first() -> None:
    short = group("b", seeds=[0, 1])
    short = dataclasses.replace(short, curves={**short.curves, 2: short.curves[0][:3]}, missing=[2])
    many = [group("a"), short, *(group(label) for label in "cdef")]
    lines = [trace for trace in curves_figure(comparison(many)).data if trace.showlegend]
    assert [trace.visible for trace in lines] == [True] * 4 + ["legendonly"] * 2
    assert len(lines[1].y) == 20


def test_no_error_at_all_has_a_linear_axis() -> None:
    def axis(top1: float) -> Any:
        rows = [{"test_top1": 50.0, "train_loss": 1.0}, {"test_top1": top1, "train_loss": 0.1}]
        groups = [
            Group(label=label, network=label, results={0: result()}, curves={0: rows}) for label in "ab"
        ]
        figure = curves_figure(comparison(groups))
        return figure.layout.yaxis.type, figure.layout.updatemenus[0].active

    assert axis(99.0) == ("log", 0)
    assert axis(100.0) == ("linear", 1)


def test_cost_is_chosen_by_buttons_and_unknown_ones_are_none() -> None:
    found = reduction()
    figure = cost_figure(found)
    assert [trace.name for trace in figure.data] == ["original", "r = 2", "r = 4", "r = 16"]
    assert [trace.x[0] for trace in figure.data] == pytest.approx([0.27247, 0.29, 0.281, 0.275])
    buttons = figure.layout.updatemenus[0].buttons
    assert [each.label for each in buttons] == ["M params", "M MACs", "ms/step", "MiB/image"]
    assert buttons[2].args[0]["x"][0] == [pytest.approx(67.247, rel=1e-4)]
    known = Group(label="b", network="b", results={0: result(peak_bytes=2**30)})
    last = cost_figure(comparison([group("a"), known])).layout.updatemenus[0].buttons[-1]
    assert (last.label, last.args[0]["x"]) == ("GPU MiB", [[None], [1024.0]])


def test_names_are_text() -> None:
    found = comparison([group("a"), group(HOSTILE)])
    for figure in (errors_figure(found), gains_figure(found), curves_figure(found), cost_figure(found)):
        assert "<script" not in figure.to_json().replace("\\u003c", "<")
