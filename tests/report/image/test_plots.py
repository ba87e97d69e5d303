import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tests.report.images import image_gates

pytest.importorskip("plotly", reason="plotly is not installed")

from senet.report.image.plots import distance_figure, gates_figure, shown_classes, similarity_figure


def test_distances_stand_beside_the_usual_ones() -> None:
    found = image_gates()
    image, usual = distance_figure(found).data
    assert list(image.y) == [block.distance for block in found.blocks]
    assert list(usual.y) == [block.usual for block in found.blocks]


def test_similarity_has_a_row_a_class_and_a_dot_at_the_nearest() -> None:
    found = image_gates()
    figure = similarity_figure(found)
    cells, dots = figure.data
    classes = shown_classes(found)
    assert classes[:2] == [1, 2]
    assert sorted(classes) == [0, 1, 2, 3, 4]
    expected = [[float(block.similarity[k]) for block in found.blocks] for k in classes]
    assert np.allclose(cells.z, expected, atol=1e-3)
    assert [classes[row] for row in dots.y] == [block.nearest for block in found.blocks]
    names = list(figure.layout.yaxis.ticktext)
    assert names[0] == "pug"
    assert "<" not in names[1]


def test_of_many_classes_those_are_shown_that_matter() -> None:
    found = image_gates()
    similarity = torch.zeros(1000)
    similarity[700] = 0.5
    blocks = tuple(replace(block, similarity=similarity) for block in found.blocks)
    found = replace(found, blocks=blocks, classes=tuple(map(str, range(1000))), label=30)
    assert shown_classes(found) == [30, 1, 2, 700]


def _values(trace: Any) -> tuple[list[float], list[float], list[str] | None]:
    return list(trace.x), list(trace.y), None if trace.customdata is None else list(trace.customdata)


def test_the_block_that_is_furthest_is_shown_first_and_the_list_has_all() -> None:
    found = image_gates()
    figure = gates_figure(found)
    menu = figure.layout.updatemenus[0]
    assert menu.active == found.furthest
    assert len(menu.buttons) == len(found.blocks)
    for trace, x in zip(figure.data, menu.buttons[found.furthest].args[0]["x"], strict=True):
        assert list(trace.x) == list(x)
    block = found.blocks[0]
    assert block.average is not None
    values = menu.buttons[0].args[0]
    order = block.average.mean.argsort()
    assert values["y"][2] == pytest.approx(block.s[order].tolist(), abs=1e-4)
    assert values["y"][1] == pytest.approx(block.average.mean[order].tolist(), abs=1e-4)
    assert values["marker.color"][2] == pytest.approx(block.apart[order].tolist(), abs=1e-4)
    channel = int(order[0])
    assert values["customdata"][2][0].startswith(
        f"channel {channel}: {float(block.s[channel]):.3f}<br>average "
    )


def test_without_a_study_there_is_no_average() -> None:
    found = image_gates(study=False)
    figure = gates_figure(found)
    assert [trace.name for trace in figure.data] == ["this image"]
    x, y, hover = _values(figure.data[0])
    assert y == sorted(y)
    assert x == list(range(len(y)))
    assert hover is not None
    assert "average" not in hover[0]


def test_gates_that_never_vary_have_no_deviations() -> None:
    found = image_gates(stages=(1,))
    block = found.blocks[0]
    assert block.average is not None
    still = replace(block, average=block.average._replace(std=torch.zeros(8, dtype=torch.float64)))
    figure = gates_figure(replace(found, blocks=(still,)))
    assert not any("σ" in text for text in figure.data[2].customdata)
    assert "NaN" not in json.dumps(figure.to_plotly_json()["layout"], default=str)
