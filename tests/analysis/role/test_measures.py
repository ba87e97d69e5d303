import math

import numpy as np
import pytest
import torch
from tests.analysis.gates import labels_of, normal, profile_of
from torch import Tensor

from senet.analysis.role.measures import (
    NUMBERS,
    class_shares,
    common_noise,
    effective_rank,
    interval,
    measures_of,
    numbers_of,
)
from senet.analysis.role.profiles import BlockProfile


def _numbers(profile: BlockProfile) -> dict[str, float]:
    return numbers_of(profile.moments(), common_noise(profile))


def test_the_spread_is_split_exactly() -> None:
    labels = torch.cat([labels_of(5, 30), torch.full((13,), 2)])
    s = 0.5 + 0.1 * normal(163, 6, seed=0) + 0.2 * normal(5, 6, seed=1)[labels] + normal(6, seed=2)
    found = _numbers(profile_of(s, labels))
    assert found["mean"] == pytest.approx(s.mean().item(), rel=1e-12)
    assert found["spread"] == pytest.approx(s.std(correction=0).item(), rel=1e-12)
    parts = ("between_channels", "between_classes", "within_class")
    assert sum(found[part] ** 2 for part in parts) == pytest.approx(found["spread"] ** 2, rel=1e-12)
    assert found["between_channels"] == pytest.approx(s.mean(0).std(correction=0).item(), rel=1e-12)
    within = torch.stack([s[labels == label].mean(0) for label in range(5)])[labels]
    assert found["within_class"] == pytest.approx((s - within).square().mean().sqrt().item(), rel=1e-12)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_the_class_share_is_the_true_one_without_bias(share: float) -> None:
    """Of few images a class, where the uncorrected share would be far too high."""
    classes, each, draws = 10, 4, 150
    labels = labels_of(classes, each)
    effect = normal(classes, 8, seed=1)
    effect = (effect - effect.mean(0)) / effect.std(0, correction=0) * math.sqrt(share)
    found, uncorrected = [], []
    for draw in range(draws):
        s = effect[labels] + math.sqrt(1 - share) * normal(len(labels), 8, seed=draw + 2)
        numbers = _numbers(profile_of(s, labels))
        found.append(numbers["class_share"])
        parts = numbers["between_classes"] ** 2, numbers["within_class"] ** 2
        uncorrected.append(parts[0] / sum(parts))
    assert np.mean(found) == pytest.approx(share, abs=0.02)
    if share < 0.9:
        assert np.mean(uncorrected) > share + 0.1


def test_the_class_share_of_each_channel() -> None:
    labels = labels_of(4, 500)
    s = normal(2000, 3, seed=0)
    s[:, 1] = labels.double() + 1e-3 * s[:, 1]
    s[:, 2] = 0.3
    found = class_shares(profile_of(s, labels))
    assert abs(found[0]) < 0.01
    assert found[1] > 0.999
    assert found[2].isnan()


def test_the_intervals_cover_the_truth_as_often_as_they_say() -> None:
    """About 95 of 100, for a mean, a share and a standard deviation."""
    classes, each, draws = 5, 40, 120
    labels = labels_of(classes, each)
    effect = normal(classes, 4, seed=7)
    effect = (effect - effect.mean(0)) / effect.std(0, correction=0)
    # The standard deviation is divided by the number of images.
    truth = {"mean": 0.0, "class_share": 0.5, "within_class": math.sqrt(1 - 1 / each)}
    covered = dict.fromkeys(truth, 0)
    for draw in range(draws):
        profile = profile_of(effect[labels] + normal(len(labels), 4, seed=draw + 100), labels)
        numbers = [numbers_of(profile.moments(without), 0) for without in (None, *range(10))]
        for name, value in truth.items():
            _, low, high = interval(np.array([each[name] for each in numbers]))
            assert low is not None
            assert high is not None
            covered[name] += low <= value <= high
    assert all(0.9 <= count / draws <= 0.985 for count in covered.values()), covered


def test_similarity_is_the_mean_correlation_of_pairs() -> None:
    """Of profiles that vary alike over the channels, and known without noise."""
    profiles = normal(5, 9, seed=0) + 2 * normal(9, seed=1)
    profiles = (profiles - profiles.mean(1, keepdim=True)) / profiles.std(1, keepdim=True)
    pairs = np.corrcoef(profiles.numpy())[np.triu_indices(5, 1)]
    labels = labels_of(5, 20)
    assert _numbers(profile_of(profiles[labels], labels))["similarity"] == pytest.approx(pairs.mean())
    scaled = torch.tensor([0.5, 0.8, 1, 1.2, 3], dtype=torch.float64)[:, None] * profiles[0] + 0.1
    assert _numbers(profile_of(scaled[labels], labels))["similarity"] == pytest.approx(1)


@pytest.mark.parametrize("each", [2, 5, 20])
@pytest.mark.parametrize("common", [0.0, 1.0])
def test_the_similarity_is_that_of_infinitely_many_images(each: int, common: float) -> None:
    """Also where all channels of an image rise and fall together, which is no noise of a profile."""
    classes, channels = 10, 64
    labels = labels_of(classes, each)
    truth = normal(channels, seed=1) + 0.7 * normal(classes, channels, seed=2)
    exact = _numbers(profile_of(truth, labels_of(classes, 1)))["similarity"]
    assert math.isnan(exact), "one image a class does not say how large the noise is"
    exact = _numbers(profile_of(truth[labels], labels))["similarity"]
    found, uncorrected = [], []
    for draw in range(60):
        noise = normal(len(labels), channels, seed=draw + 10) + common * normal(len(labels), 1, seed=draw)
        profile = profile_of(truth[labels] + noise, labels)
        found.append(_numbers(profile)["similarity"])
        pairs = np.corrcoef(profile.class_mean.numpy())[np.triu_indices(classes, 1)]
        uncorrected.append(pairs.mean())
    assert np.mean(found) == pytest.approx(exact, abs=0.01)
    assert np.mean(uncorrected) < exact - 0.2 / each


def test_profiles_that_do_not_vary_beyond_their_noise_have_no_similarity() -> None:
    labels = labels_of(5, 10)
    assert math.isnan(_numbers(profile_of(0.5 + 0.1 * normal(50, 30, seed=0), labels))["similarity"])


def test_one_scale_is_all_or_nothing_where_it_should_be() -> None:
    labels = labels_of(4, 10)
    pattern = 0.2 + normal(50, seed=0).abs()
    scale = torch.tensor([0.8, 0.9, 1.1, 1.2], dtype=torch.float64)
    found = _numbers(profile_of(scale[labels, None] * pattern, labels))
    assert found["one_scale"] == pytest.approx(1)
    assert found["scale_spread"] == pytest.approx(scale.std(correction=0).item())
    other = normal(4, 50, seed=1)
    other -= (other @ pattern / pattern.square().sum())[:, None] * pattern
    other -= other.mean(0)
    found = _numbers(profile_of(pattern + 0.1 * other[labels], labels))
    assert found["one_scale"] == pytest.approx(0, abs=1e-12)
    assert found["scale_spread"] == pytest.approx(0, abs=1e-6)


def test_shares_of_closed_and_open_gates_dead_and_constant_channels() -> None:
    s = torch.tensor([[0.01, 0.5, 0.02, 1.0], [0.04, 0.5, 0.97, 0.96], [0.0, 0.5001, 0.5, 0.9]])
    found = measures_of(profile_of(s, torch.tensor([0, 0, 1])))
    assert {name: found.estimates[name][0] for name in ("closed", "open", "saturated")} == pytest.approx(
        {"closed": 4 / 12, "open": 3 / 12, "saturated": 7 / 12}
    )
    assert (found.dead, found.constant, found.beyond, found.images) == (1, 1, False, 3)
    assert measures_of(profile_of(s + 0.2, torch.tensor([0, 0, 1]))).beyond


@pytest.mark.parametrize(("values", "rank"), [([1.0, 0, 0], 1), ([2.0, 2, 0], 2), ([1.0, 1, 1], 3)])
def test_the_effective_rank_counts_directions(values: list[float], rank: int) -> None:
    turned = torch.linalg.qr(normal(3, 3, seed=0)).Q
    covariance: Tensor = turned @ torch.tensor(values, dtype=torch.float64).diag() @ turned.T
    assert effective_rank(covariance) == pytest.approx(rank)


def test_the_jackknife_of_a_mean_is_the_textbook_interval() -> None:
    from scipy import stats

    groups = np.array([0.1, 0.4, 0.35, 0.8])
    without = [np.delete(groups, index).mean() for index in range(4)]
    _, low, high = interval(np.array([groups.mean(), *without]))
    wanted = stats.t.interval(0.95, 3, groups.mean(), stats.sem(groups))
    assert (low, high) == pytest.approx(wanted)


def test_constant_gates_are_not_judged() -> None:
    """As of a network that starts from the identity: rounding is no class."""
    labels = labels_of(3, 20)
    found = measures_of(profile_of(torch.ones(60, 5) * 0.3, labels)).row
    assert found["mean"] == pytest.approx(0.3)
    assert found["spread"] == pytest.approx(0, abs=1e-12)
    assert found["constant"] == 5
    undefined = ("class_share", "similarity", "one_scale", "effective_rank")
    assert [found[name] for name in undefined] == [None] * 4


def test_one_class_says_nothing_of_classes() -> None:
    found = measures_of(profile_of(normal(30, 4, seed=0), labels_of(1, 30))).row
    assert found["class_share"] is found["similarity"] is found["one_scale"] is None
    assert found["within_class"] > 0


def test_gates_that_are_not_numbers_are_counted() -> None:
    s = normal(30, 4, seed=0)
    s[2, 3] = torch.nan
    found = measures_of(profile_of(s, labels_of(3, 10))).row
    assert found["nan"] == 1
    assert found["mean"] is None
    assert found["effective_rank"] is None


def test_too_few_images_have_no_interval() -> None:
    found = measures_of(profile_of(normal(1, 4, seed=0), torch.tensor([0]))).full_row
    assert found["mean"] is not None
    assert found["mean_low"] is found["mean_high"] is None


def test_rows_have_all_numbers() -> None:
    found = measures_of(profile_of(normal(30, 4, seed=0), labels_of(3, 10)))
    assert NUMBERS.keys() <= found.row.keys()
    assert found.row["size"] == "7×7"
    full = found.full_row
    assert full["mean_low"] < full["mean"] < full["mean_high"]
