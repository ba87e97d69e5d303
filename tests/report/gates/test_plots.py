from typing import Any

import pytest
import torch
from tests.report.studies import CLASSES, study

pytest.importorskip("plotly", reason="plotly is not installed")

from senet.report.gates import plots as gate_plots


def _named(figure: Any, kind: str) -> dict[str, Any]:
    return {trace.name: trace for trace in figure.data if trace.type == kind and trace.name}


def test_depth_has_a_line_a_measure_with_its_interval_and_a_mark_a_stage() -> None:
    found = study()
    figure = gate_plots.depth_figure(found)
    lines = _named(figure, "scatter")
    assert len(lines) == 7
    line = lines["class share"]
    assert list(line.y) == [row["class_share"] for row in found.rows]
    first = found.measures[0].numbers["class_share"]
    assert list(line.customdata[0]) == [first.low, first.high]
    assert [shape.x0 for shape in figure.layout.shapes] == [1.5]
    texts = [note.text for note in figure.layout.annotations]
    assert texts[-3:] == ["32 × 32", "16 × 16", "8 × 8"]
    assert next(iter(figure.layout.xaxis4.ticktext)) == "layer1.0"


def test_a_measure_that_is_not_defined_leaves_a_gap() -> None:
    figure = gate_plots.depth_figure(study(classes=("only",)))
    assert set(_named(figure, "scatter")["similarity"].y) == {None}


def test_specificity_has_a_row_a_block_with_its_channels() -> None:
    found = study()
    figure = gate_plots.specificity_figure(found)
    assert [trace.z.shape for trace in figure.data] == [
        (1, block.channels) for block in found.blocks.values()
    ]
    row = figure.data[3]
    assert sorted(row.customdata[0]) == list(range(32))
    assert (row.z[0][1:] >= row.z[0][:-1]).all()
    # The cells of a row fill it, whatever their number.
    assert row.x0 - row.dx / 2 == pytest.approx(0)
    assert row.x0 + row.dx * 31.5 == pytest.approx(1)


def test_a_block_shows_means_deviations_and_all_gates() -> None:
    found = study()
    figure = gate_plots.block_figure(found, [1, 2], 8)
    profile = found.blocks["layer1.0.se"]
    at = list(range(0, 16, 2))
    mean, deviation = profile.class_mean[1, at], profile.class_std[1, at]
    line, within, band = figure.data[:3]
    assert line.name == within.name == "pug"
    assert list(line.x) == at
    torch.testing.assert_close(torch.tensor(line.y), mean.float(), atol=1e-4, rtol=0)
    assert list(line.customdata[0]) == [pytest.approx(float(deviation[0]), abs=1e-4), 12]
    edges = torch.cat([mean + deviation, (mean - deviation).flip(0)]).float()
    torch.testing.assert_close(torch.tensor(band.y), edges, atol=2e-4, rtol=0)
    assert {trace.legendgroup for trace in figure.data[:3]} == {"class 0"}
    *_, over_all, histogram = figure.data
    assert over_all.name == "mean over all 5 classes"
    torch.testing.assert_close(
        torch.tensor(over_all.y), profile.class_mean.mean(0)[at].float(), atol=1e-4, rtol=0
    )
    assert sum(histogram.y) == pytest.approx(1, abs=1e-3)


def test_the_list_of_blocks_changes_the_values_of_every_trace() -> None:
    found = study()
    figure = gate_plots.block_figure(found, [0, 1, 2, 3], None)
    buttons = figure.layout.updatemenus[0].buttons
    assert [button.label for button in buttons][2] == "layer2.0: 32 channels, maps of 16 × 16"
    assert len(buttons) == len(found.blocks)
    (values,) = buttons[2].args
    assert {len(each) for each in values.values()} == {len(figure.data)}
    means = found.blocks["layer2.0.se"].class_mean[3].float()
    torch.testing.assert_close(torch.tensor(values["y"][9]), means, atol=1e-4, rtol=0)


def test_a_class_without_images_has_no_values() -> None:
    found = study(classes=(*CLASSES, "none"), images=2)
    block = found.blocks["layer1.0.se"]
    block.mean[:, 5] = 0.0
    block.square[:, 5] = 0.0
    block.count[:, 5] = 0
    figure = gate_plots.block_figure(found, [5], None)
    assert set(figure.data[0].y) == set(figure.data[2].y) == {None}


def test_names_are_text_for_plotly() -> None:
    figure = gate_plots.block_figure(study(), [2], 8)
    assert figure.data[0].name.startswith("&lt;script&gt;document.title='owned'")
