from math import sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from senet.analysis.worth.paired import Paired


@given(st.integers(1, 10_000), st.floats(0, 1), st.floats(0, 1))
def test_the_interval_is_walds_with_half_an_image_in_each_cell(
    images: int, part: float, share: float
) -> None:
    changed = round(images * part)
    lost = round(changed * share)
    gained = changed - lost
    found = Paired(images, lost, gained)
    # Of one image more in every cell the change is a mean of +1, -1 and 0.
    n = images + 2
    values = np.repeat([1.0, -1.0, 0.0], 2)
    weights = np.repeat([gained + 0.5, lost + 0.5, images - changed + 1], 2) / (2 * n)
    mean = float(values @ weights)
    half = 1.96 * sqrt(float((values - mean) ** 2 @ weights) / n)
    low, high = found.interval
    assert low == pytest.approx(max(100 * (mean - half), -100))
    assert high == pytest.approx(min(100 * (mean + half), 100))
    assert found.change == pytest.approx(100 * (gained - lost) / images)
    # The other way round it is the same.
    assert Paired(images, gained, lost).interval == pytest.approx((-high, -low))


@pytest.mark.parametrize("probabilities", [(0.9, 0.05, 0.05), (0.97, 0.025, 0.005), (0.6, 0.1, 0.3)])
def test_it_covers_the_truth_in_95_of_100_cases(probabilities: tuple[float, float, float]) -> None:
    draws = np.random.default_rng(0).multinomial(200, probabilities, 3000)
    truth = 100 * (probabilities[2] - probabilities[1])
    intervals = [Paired(200, int(lost), int(gained)).interval for _, lost, gained in draws]
    assert np.mean([low <= truth <= high for low, high in intervals]) == pytest.approx(0.955, abs=0.015)


def test_whether_a_loss_is_within_so_many_points() -> None:
    assert Paired(100_000, 0, 0).within(0.1) is True
    assert Paired(100_000, 500, 100).within(0.1) is False
    assert Paired(1000, 0, 0).within(0.1) is None, "no change of 1,000 images is not yet none of all"
    assert Paired(1000, 50, 50).within(50) is True


@pytest.mark.parametrize(
    ("few", "points"),
    [(Paired(1000, 20, 30), 0.1), (Paired(20_000, 17, 1), 0.1), (Paired(5000, 30, 5), 0.6)],
)
def test_so_many_images_tell_if_it_is_as_it_seems(few: Paired, points: float) -> None:
    needed = few.images_for(points)
    assert few.within(points) is None
    assert needed is not None
    assert needed > few.images

    def of(images: float) -> Paired:
        more = images / few.images
        return Paired(round(images), round(few.lost * more), round(few.gained * more))

    assert of(1.1 * needed).within(points) is not None
    assert of(0.9 * needed).within(points) is None


def test_no_number_of_images_tells_what_is_on_the_edge() -> None:
    assert Paired(998, 5, 4).images_for(0.1) is None


def test_it_prints_the_change_with_its_interval() -> None:
    assert str(Paired(1000, 10, 5)) == "-0.50 [-1.28, +0.28]"
    assert Paired(1000, 10, 5).row("top1") == {
        "top1": -0.5,
        "top1_low": pytest.approx(-1.28, abs=0.005),
        "top1_high": pytest.approx(0.28, abs=0.005),
        "top1_lost": 10,
        "top1_gained": 5,
    }
