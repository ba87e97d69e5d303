"""What is said of images that come too slowly."""

import torch

from senet.data.stream import Batch, Seconds
from senet.training.supply import Supply


def _batch(images: int, seconds: Seconds) -> Batch:
    return Batch(torch.zeros(images, 1), torch.zeros(images), [], seconds)


def _supply(waited: float, *, preparing: float, computing: float) -> Supply:
    """100 images in 10 seconds and two steps."""
    supply = Supply()
    half = Seconds(preparing / 2, computing / 2)
    for _ in range(2):
        parts = [_batch(20, half._replace(computing=0)), _batch(30, Seconds(0, half.computing))]
        supply.add(parts, 5, waited / 2)
    return supply


def test_it_adds_up() -> None:
    assert _supply(4, preparing=12, computing=3) == Supply(100, 10, 4, 12, 3)
    assert _supply(4, preparing=12, computing=3).share == 0.4
    assert Supply().share == 0


def test_nothing_is_said_where_the_network_is_fed() -> None:
    assert _supply(1, preparing=12, computing=3).line(2, 4) == ""
    assert Supply().line(0, 4) == ""
    assert Supply(seconds=1, waited=1).line(0, 4) == ""


def test_files_that_come_slowly_want_more_workers() -> None:
    """The network takes 100 images in 5 seconds, for which 17 seconds are needed."""
    line = _supply(5, preparing=17, computing=1.7).line(2, 1)
    assert line == (
        "images   the network waited 50 % of the time for images: 2 processes prepare 12 a second, it takes "
        "20; --workers 4 should do (90 % of preparing is waiting, for files or a core)"
    )


def test_enough_on_average_is_not_enough() -> None:
    assert "1 process prepares 25 a second" in (line := _supply(5, preparing=4, computing=1).line(1, 1))
    assert "--workers 2 should do" in line


def test_preparing_that_computes_wants_a_free_core() -> None:
    slow = _supply(5, preparing=10, computing=9)
    assert "--workers 2 should do" in slow.line(1, 2)
    assert "without workers 10 a second are prepared, it takes 20; --workers 2 should do" in slow.line(0, 2)
    assert slow.line(2, 2).endswith("the processor is the limit: that many take 1.8 cores, and 2 are free")
    assert slow.line(1, 1).endswith("the processor is the limit: that many take 1.8 cores, and 1 is free")


def test_more_cores_than_there_are() -> None:
    """Processes that wait for each other's core seem to wait for files."""
    line = _supply(5, preparing=60, computing=18).line(6, 2)
    assert "the limit: that many take 3.6 cores, and 2 are free" in line


def test_by_default_on_the_cpu_nothing_is_to_be_gained() -> None:
    assert _supply(5, preparing=5, computing=4.9).line(0, 0) == ""
    assert "--workers 1 should do" in _supply(5, preparing=5, computing=0.5).line(0, 0)
