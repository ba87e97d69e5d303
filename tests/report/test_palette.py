from itertools import pairwise

import pytest

from senet.report.palette import GREY, INK, LINES, SCALE, faded, line_colour, line_dash


def _luminance(colour: str) -> float:
    """Relative, of WCAG 2."""
    parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize(("colour", "least"), [*((line, 3.0) for line in LINES), (INK, 7.0), (GREY, 7.0)])
def test_lines_and_text_stand_out_from_white(colour: str, least: float) -> None:
    assert 1.05 / (_luminance(colour) + 0.05) >= least


def test_no_two_of_sixteen_lines_look_alike_and_four_are_told_apart_by_colour() -> None:
    assert len({line_colour(number) for number in range(4)}) == 4
    assert {line_dash(number) for number in range(4)} == {"solid"}
    assert len({(line_colour(number), line_dash(number)) for number in range(16)}) == 16


def test_the_scale_becomes_darker_throughout() -> None:
    luminances = [_luminance(colour) for colour in SCALE]
    assert luminances == sorted(luminances, reverse=True)
    assert all(first - second > 0.02 for first, second in pairwise(luminances))


def test_a_colour_is_faded() -> None:
    assert faded("#0072B2", 0.25) == "rgba(0,114,178,0.25)"
