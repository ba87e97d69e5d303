import itertools
import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from senet.evaluation.averaging import Average, log_mean_softmax


def _reference(scores: Tensor) -> Tensor:
    """The mean over the first dimension of the probabilities, by the definition, number by number."""
    members, images, classes = scores.shape
    mean = torch.zeros(images, classes, dtype=torch.float64)
    for member, image in itertools.product(range(members), range(images)):
        row = [float(each) for each in scores[member, image]]
        powers = [math.exp(each - max(row)) for each in row]
        for index, power in enumerate(powers):
            mean[image, index] += power / math.fsum(powers) / members
    return mean


@settings(max_examples=50)
@given(
    members=st.integers(1, 4),
    views=st.integers(1, 6),
    images=st.integers(1, 4),
    classes=st.integers(1, 9),
    spread=st.floats(0.01, 30),
    seed=st.integers(0, 2**31),
)
def test_the_mean_over_members_and_views_is_the_mean_of_probabilities(
    members: int, views: int, images: int, classes: int, spread: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = spread * torch.randn(members, views, images, classes, generator=generator)
    average = Average()
    for each in scores:
        average.add(list(log_mean_softmax(each, 0).split(2)))
    found = torch.cat(average.scores())
    assert found.dtype == torch.float64
    # Every view counts alike, as every member has as many.
    wanted = _reference(scores.flatten(0, 1))
    torch.testing.assert_close(found.exp(), wanted, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(
        found.exp().sum(1), torch.ones(images, dtype=torch.float64), atol=1e-12, rtol=0
    )


@given(classes=st.integers(2, 9), times=st.integers(1, 5), seed=st.integers(0, 2**31))
def test_a_network_given_several_times_changes_nothing(classes: int, times: int, seed: int) -> None:
    scores = 10 * torch.randn(20, classes, generator=torch.Generator().manual_seed(seed))
    average = Average()
    for _ in range(times):
        average.add([scores])
    (found,) = average.scores()
    torch.testing.assert_close(found, scores.double().log_softmax(-1), atol=1e-12, rtol=1e-12)
    assert torch.equal(found.argsort(1), scores.argsort(1))


@given(seed=st.integers(0, 2**31))
def test_the_order_of_the_networks_changes_no_ranking(seed: int) -> None:
    scores = torch.randn(3, 10, 6, generator=torch.Generator().manual_seed(seed))
    rankings = []
    for order in itertools.permutations(scores):
        average = Average()
        for each in order:
            average.add([each])
        rankings.append(average.scores()[0].argsort(1))
    assert all(torch.equal(each, rankings[0]) for each in rankings)


def test_what_underflows_as_a_probability_keeps_its_logarithm() -> None:
    scores = torch.tensor([[[0.0, -2000.0, -3000.0]], [[0.0, -2500.0, -2600.0]]])
    found = log_mean_softmax(scores, 0)
    wanted = torch.tensor([[0.0, -2000 - math.log(2), -2600 - math.log(2)]], dtype=torch.float64)
    torch.testing.assert_close(found, wanted, atol=1e-12, rtol=1e-15)
