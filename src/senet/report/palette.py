"""The colours of all pictures: everybody can tell them apart, on a screen and on paper."""

from __future__ import annotations

# Okabe and Ito's (https://jfly.uni-koeln.de/color/), the purple Tol's; their orange, sky blue and yellow
# are too light for thin lines on white.
BLUE, VERMILION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#AA4499"
LINES = (BLUE, VERMILION, GREEN, PURPLE)

# Text, what is less important than the rest, and grids.
INK, GREY, PALE = "#1f2933", "#555555", "#e4e4e4"

# From none to all, at 0, 1/5, ..., 1: each darker than the one before, so it is also read without colours.
SCALE = ("#fbf6e9", "#f9d59b", "#f1a066", "#cf5f63", "#8a3a70", "#371f57")


# Where there are more lines than colours, as plotly and CSS name them.
_DASHES = ("solid", "dash", "dot", "dashdot")


def line_colour(number: int) -> str:
    """The colour of the line ``number``, from 0; after the last the first again."""
    return LINES[number % len(LINES)]


def line_dash(number: int) -> str:
    """How the line ``number`` is dashed: another way each time that the colours begin again."""
    return _DASHES[number // len(LINES) % len(_DASHES)]


def faded(colour: str, share: float) -> str:
    """``colour``, "#rrggbb", as CSS has it with this share of it, from 0 to 1, over what lies below."""
    red, green, blue = (int(colour[start : start + 2], 16) for start in (1, 3, 5))
    return f"rgba({red},{green},{blue},{share:g})"
