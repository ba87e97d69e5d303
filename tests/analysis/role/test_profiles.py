from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from senet.analysis.role.profiles import BINS, KEPT, BlockProfile, groups_for, merged
from senet.errors import ShapeError

CLASSES, CHANNELS, GROUPS = 4, 3, 5


def _new() -> BlockProfile:
    return BlockProfile.new("b", CHANNELS, (7, 7), CLASSES, GROUPS)


def _filled(s: Tensor, labels: Tensor, images: Tensor) -> BlockProfile:
    found = _new()
    found.update(s, labels, images)
    return found


def _samples(count: int, seed: int, offset: float = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    # Eighths are exact in float32, and often equal.
    s = torch.randint(-4, 12, (count, CHANNELS), generator=generator).double() / 8 + offset
    return (
        s,
        torch.randint(CLASSES, (count,), generator=generator),
        torch.randperm(count, generator=generator),
    )


def _differing(found: BlockProfile, wanted: BlockProfile) -> list[str]:
    """The names of the tensors that differ by more than rounding."""
    return [
        name
        for name, tensor in wanted.tensors.items()
        if not torch.allclose(found.tensors[name], tensor, rtol=1e-12, atol=1e-8, equal_nan=True)
    ]


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(0, 40), seed=st.integers(0, 1000), offset=st.sampled_from([0.0, 1e4]), data=st.data()
)
def test_order_batches_and_processes_do_not_matter(
    count: int, seed: int, offset: float, data: st.DataObject
) -> None:
    s, labels, images = _samples(count, seed, offset)
    whole = _filled(s, labels, images)
    order = torch.tensor(data.draw(st.permutations(range(count))), dtype=torch.int64)
    cuts = sorted(data.draw(st.lists(st.integers(0, count), max_size=5)))
    shares = [_new() for _ in range(data.draw(st.integers(1, 3)))]
    for number, part in enumerate(order.tensor_split(cuts)):
        shares[number % len(shares)].update(s[part], labels[part], images[part])
    assert not _differing(merged(shares), whole)


@settings(max_examples=40, deadline=None)
@given(count=st.integers(1, 40), seed=st.integers(0, 1000), offset=st.sampled_from([0.0, 1e4]))
def test_the_statistics_are_those_of_all_gates_at_once(count: int, seed: int, offset: float) -> None:
    s, labels, images = _samples(count, seed, offset)
    found = _filled(s, labels, images)
    close: Any = {"rtol": 1e-12, "atol": 1e-9}
    torch.testing.assert_close(found.overall_mean, s.mean(0), **close)
    torch.testing.assert_close(found.overall_std, s.std(0, correction=0), **close)
    torch.testing.assert_close(found.covariance, s.T.cov(correction=0).view(CHANNELS, CHANNELS), **close)
    assert found.images.tolist() == labels.bincount(minlength=CLASSES).tolist()
    for without in (None, 2):
        moments = found.moments(without)
        kept = images % GROUPS != without if without is not None else torch.ones(count, dtype=torch.bool)
        for label in range(CLASSES):
            these = s[kept & (labels == label)]
            assert moments.images[label] == len(these)
            if len(these):
                torch.testing.assert_close(moments.mean[label], these.mean(0), **close)
                torch.testing.assert_close(
                    moments.square[label], these.var(0, correction=0) * len(these), **close
                )
            else:
                assert moments.mean[label].isnan().all()
        assert moments.closed.tolist() == (s[kept] <= 0.05).sum(0).tolist()
        assert moments.opened.tolist() == (s[kept] >= 0.95).sum(0).tolist()
    torch.testing.assert_close(found.class_mean, found.moments().mean, equal_nan=True)
    label = int(labels[0])
    torch.testing.assert_close(found.class_std[label], s[labels == label].std(0, correction=0), **close)
    assert found.closed.tolist() == (s <= 0.05).sum(0).tolist()
    assert found.opened.tolist() == (s >= 0.95).sum(0).tolist()
    torch.testing.assert_close(found.low, s.amin(0))
    torch.testing.assert_close(found.high, s.amax(0))


@settings(max_examples=30, deadline=None)
@given(count=st.integers(0, 40), seed=st.integers(0, 1000))
def test_the_most_extreme_images(count: int, seed: int) -> None:
    s, labels, images = _samples(count, seed)
    found = _filled(s, labels, images)
    for extremes, sign in ((found.opening, -1), (found.closing, 1)):
        for channel in range(CHANNELS):
            pairs = sorted(zip((sign * s[:, channel]).tolist(), images.tolist(), strict=True))[:KEPT]
            kept = list(
                zip(extremes.values[channel].tolist(), extremes.images[channel].tolist(), strict=True)
            )
            assert kept[: len(pairs)] == [(sign * value, image) for value, image in pairs]
            assert all(image == -1 for _, image in kept[len(pairs) :])


def test_the_histogram() -> None:
    found = BlockProfile.new("b", 4, (), 1, 1)
    s = torch.tensor([[0.0, 0.019, 0.5, 1.0], [-3.0, 0.021, 2.0, 0.999]])
    found.update(s, torch.zeros(2, dtype=torch.int64), torch.arange(2))
    counts = {index: count for index, count in enumerate(found.histogram.tolist()) if count}
    assert counts == {0: 3, 1: 1, BINS // 2: 1, BINS - 1: 3}


def test_gates_that_are_not_numbers_are_not_hidden() -> None:
    s, labels, images = _samples(20, 0)
    s[3, 1] = torch.nan
    found = _filled(s, labels, images)
    assert found.overall_mean.isnan().tolist() == [False, True, False]
    assert found.overall_std[1].isnan()
    assert found.low[1].isnan()
    assert found.high[1].isnan()
    assert found.class_mean.isnan().any(1).nonzero().flatten().tolist() == [int(labels[3])]
    assert found.histogram.sum() == 59


def test_groups_that_are_given_count() -> None:
    s, labels, images = _samples(6, 0)
    found = _new()
    found.update(s, labels, images, torch.tensor([0, 0, 0, 4, 4, 1]))
    assert found.count.sum(1).tolist() == [3, 1, 0, 0, 2]


def test_what_does_not_fit_is_refused() -> None:
    s, labels, images = _samples(6, 0)
    for wrong in ((s[:, :2], labels, images), (s, labels[:5], images), (s, labels, images[:5])):
        with pytest.raises(ShapeError, match="gates of 'b'"):
            _new().update(*wrong)
    for label in (-1, CLASSES):
        with pytest.raises(ShapeError, match="4 classes"):
            _new().update(s, torch.full((6,), label), images)
    with pytest.raises(ShapeError, match="merging"):
        _new().merge(BlockProfile.new("b", CHANNELS, (), CLASSES + 1, GROUPS))


def test_the_tensors_make_the_profile_again() -> None:
    found = _filled(*_samples(20, 0))
    again = BlockProfile.of_tensors("b", [7, 7], found.tensors)
    assert (again.name, again.channels, again.size) == ("b", CHANNELS, (7, 7))
    assert not _differing(again, found)
    assert not again.closing.largest
    assert again.opening.largest


def test_groups_are_fewer_where_there_is_much_to_keep() -> None:
    assert groups_for(10, 500) == 10
    assert groups_for(1000, 15_104) == 4
    assert groups_for(21_841, 15_104) == 4
