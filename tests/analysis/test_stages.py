from __future__ import annotations

from typing import NamedTuple

import pytest

import senet
from senet.analysis.sites import find_gates
from senet.analysis.stages import panels, paper_names, stages_of


class Block(NamedTuple):
    name: str
    channels: int
    size: tuple[int, ...] = ()


def test_the_panels_of_resnet_50_are_the_papers() -> None:
    sites = find_gates(senet.build("se_resnet50"))
    names = paper_names([site.name for site in sites])
    assert [names[name] for name in panels(sites)] == "SE_2_3 SE_3_4 SE_4_6 SE_5_1 SE_5_2 SE_5_3".split()
    assert [len(stage) for stage in stages_of(sites)] == [3, 4, 6, 3]
    assert len(names) == 16


@pytest.mark.parametrize("known", [True, False])
def test_stages_are_runs_of_one_resolution_or_of_one_width(known: bool) -> None:
    sizes = [(8, 8), (8, 8), (4, 4)] if known else [()] * 3
    blocks = [Block(name, width, size) for name, width, size in zip("abc", (4, 8, 8), sizes, strict=True)]
    assert stages_of(blocks) == ([["a", "b"], ["c"]] if known else [["a"], ["b", "c"]])


def test_a_last_stage_of_one_block_is_shown_once() -> None:
    assert panels([Block("a", 4), Block("b", 8)]) == ["a", "b"]


def test_networks_that_the_paper_does_not_name_have_no_names_of_its() -> None:
    assert paper_names(["layer1.0.se", "layer3.2.se"]) == {}
    assert paper_names(["features.1.block.2", "layer4.0.se"]) == {"layer4.0.se": "SE_5_1"}
