import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from senet.kernels.gpu.configurations import (
    PROGRAMS,
    Geometry,
    ceiling,
    elementwise_tile,
    geometry,
    groups,
    power_of_two,
    reduction_tile,
    shared_sum,
    splits,
)


def test_a_map_is_seen_in_its_layout() -> None:
    u = torch.empty(2, 24, 5, 7, device="meta")
    assert geometry(u) == Geometry(False, 2, 24, 35, 1)
    assert geometry(u.contiguous(memory_format=torch.channels_last)) == Geometry(True, 2, 24, 35, 8)
    # One position: both layouts are the same memory, and channels lie side by side.
    assert geometry(torch.empty(2, 6, 1, 1, device="meta")) == Geometry(True, 2, 6, 1, 2)
    assert geometry(torch.empty(2, 6, 12, device="meta")) == Geometry(False, 2, 6, 12, 4)


@given(
    st.booleans(), st.integers(1, 300), st.integers(1, 3000), st.integers(1, 20_000), st.sampled_from([2, 4])
)
def test_tiles_and_parts_cover_the_map(
    last: bool, samples: int, channels: int, positions: int, repeats: int
) -> None:
    shape = Geometry(last, samples, channels, positions, 1)
    for tile in (reduction_tile(shape, repeats), elementwise_tile(shape)):
        assert tile.rows * tile.lanes in (1024, 2048)
        assert all(number & (number - 1) == 0 for number in tile)
        kept = groups(shape, tile) * tile.kept(last)
        assert kept >= samples * channels
    tile = reduction_tile(shape, repeats)
    shares = splits(shape, tile)
    # No part is empty, and a part begins where a tile does.
    assert (shares.parts - 1) * shares.size < positions <= shares.parts * shares.size
    assert shares.size % tile.positions(last) == 0
    assert shares.parts == 1 or shares.parts * groups(shape, tile) <= PROGRAMS


def test_a_large_map_needs_no_parts_and_a_single_one_many() -> None:
    large = Geometry(True, 256, 256, 56 * 56, 8)
    assert splits(large, reduction_tile(large, 4)).parts == 1
    single = Geometry(True, 1, 64, 112 * 112, 8)
    assert splits(single, reduction_tile(single, 4)).parts > 90


@given(st.integers(1, 10_000))
def test_sums_over_channels_are_divided_into_at_most_four(channels: int) -> None:
    shares = shared_sum(channels)
    assert 1 <= shares.parts <= 4
    assert (shares.parts - 1) * shares.size < channels <= shares.parts * shares.size


@pytest.mark.parametrize(("number", "power"), [(1, 16), (16, 16), (17, 32), (100, 128), (1000, 256)])
def test_powers_of_two_stay_within_their_bounds(number: int, power: int) -> None:
    assert power_of_two(number, 16, 256) == power
    assert ceiling(number, power) == -(-number // power)
