"""Activation maps over the image that they are of, as pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor
from torch.nn import functional as F

from senet.report.palette import BLUE, VERMILION

# How much of the image's contrast is left under a map.
_CONTRAST = 0.35

Pixels = npt.NDArray[np.uint8]


def map_over_image(values: Tensor, image: Any, *, most: float, side: int) -> Pixels:
    """A map over the pale image: vermilion where it is above zero, blue where below, nothing at zero.

    Args:
        values: (H, W); of fewer dimensions as one row.
        image: what the network saw, PIL.
        most: the absolute value that is drawn without the image below; 0 draws the image alone.
        side: of the result, in pixels.

    Returns:
        (side, side, 3) RGB.
    """
    grey = np.asarray(image.convert("L").resize((side, side)), dtype=np.float64) / 255
    ground = (1 - _CONTRAST * (1 - grey))[..., None]
    rows = values.reshape(-1, values.shape[-1])[None, None].double()
    # The few numbers of a deep map are seen as what they are, without any between them.
    drawn = F.interpolate(rows, (side, side), mode="nearest-exact")[0, 0].numpy()
    share = np.clip(drawn / (most or 1.0), -1, 1)[..., None] * (most > 0)
    colour, weight = np.where(share > 0, _rgb(VERMILION), _rgb(BLUE)), np.abs(share)
    return np.round(255 * (weight * colour + (1 - weight) * ground)).astype(np.uint8)


def _rgb(colour: str) -> npt.NDArray[np.float64]:
    return np.array([int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)])
