import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.report.studies import HOSTILE, study

from senet.analysis.role.profiles import BlockProfile
from senet.report.gates import views


@pytest.mark.parametrize(
    ("stages", "found"),
    [
        ((1, 2), ["layer1.0", "layer2.0", "layer2.1"]),
        ((1,), ["layer1.0.se"]),
        ((1, 1, 1, 2), ["SE_2_1", "SE_3_1", "SE_4_1", "SE_5_1", "SE_5_2"]),
    ],
)
def test_blocks_are_called_as_in_the_paper_or_without_the_end_that_all_share(
    stages: tuple[int, ...], found: list[str]
) -> None:
    assert list(views.labels(study(stages=stages, images=2)).values()) == found


def test_stages_are_blocks_of_one_resolution() -> None:
    found = [(stage.first, stage.last, stage.text) for stage in views.stages(study(images=2))]
    assert found == [(0, 1, "32 × 32"), (2, 3, "16 × 16"), (4, 6, "8 × 8")]


@given(st.integers(1, 3000), st.none() | st.integers(1, 100))
def test_sampled_channels_are_different_even_and_all_where_there_are_fewer(
    channels: int, count: int | None
) -> None:
    found = views.sampled(channels, count)
    assert len(found) == (channels if count is None else min(count, channels))
    assert found[0] == 0
    assert found[-1] < channels
    steps = {after - before for before, after in itertools.pairwise(found)}
    assert not steps or (min(steps) > 0 and max(steps) - min(steps) <= 1)


def _profile(gates: list[list[float]], labels: list[int]) -> BlockProfile:
    profile = BlockProfile.new("se", len(gates[0]), (), max(labels) + 1, 2)
    profile.update(torch.tensor(gates), torch.tensor(labels), torch.arange(len(labels)))
    return profile


def test_channels_are_sorted_by_what_the_class_explains_and_constant_ones_come_last() -> None:
    # The class decides channel 1 alone, channel 2 in part, channel 3 not; channel 0 does not vary.
    profile = _profile(
        [[0.5, 0.1, 0.2, 0.4], [0.5, 0.1, 0.4, 0.6], [0.5, 0.9, 0.6, 0.4], [0.5, 0.9, 0.8, 0.6]], [0, 0, 1, 1]
    )
    shares, order = views.sorted_shares(profile)
    assert order == [3, 2, 1, 0]
    assert shares[0] == 0.0
    assert 0.5 < shares[1] < 1
    assert shares[2] == pytest.approx(1.0)
    assert math.isnan(shares[3])
    assert views.most_specific(profile, 2) == [1, 2]
    assert views.most_specific(profile, 9) == [1, 2, 3]


def test_the_mean_over_classes_counts_each_class_once_and_leaves_out_those_without_images() -> None:
    profile = _profile([[0.2], [0.4], [0.9]], [0, 0, 2])
    assert float(views.over_classes(profile)) == pytest.approx((0.3 + 0.9) / 2)


def test_names_of_classes_are_cut_to_a_line() -> None:
    names = ("a\nb", "x" * 99, "", HOSTILE, "pug")
    found = views.class_labels(study(classes=names, images=2), range(5))
    assert found[0] == "a b"
    assert found[1] == "x" * 39 + "…"
    assert found[2] == "class 2"
    assert found[3].startswith("<script>")
    assert found[4] == "pug"


def test_the_axis_of_gates_is_from_0_to_1_and_as_far_as_they_go() -> None:
    found = study(stages=(2,), images=2)
    assert views.gate_range(found) == (0.0, 1.0)
    block = next(iter(found.blocks.values()))
    block.update(torch.full((1, 16), 1.5), torch.tensor([0]), torch.tensor([0]))
    assert views.gate_range(found) == (0.0, 1.5)


def test_the_summary_says_what_was_looked_at_and_whether_weights_are_random() -> None:
    assert views.summary(study()) == "se_resnet20 · 60 images of 5 classes from shards:a"
    assert "random weights: mechanics only" in views.summary(study(random=True))
