"""What a detector finds in single images, and the picture of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from senet.data.preprocessing import transforms
from senet.detection.detector import Detector
from senet.report.palette import line_colour

# Text of this share of the longer edge can be read and hides little.
_TEXT_SHARE = 1 / 50


class Object(NamedTuple):
    """What was found: its class, how sure that is, from 0 to 1, and left, top, right, bottom in pixels."""

    label: str
    score: float
    box: tuple[float, float, float, float]


@torch.inference_mode()
def detect(model: Detector, image: Any, classes: Sequence[str], *, threshold: float = 0.5) -> list[Object]:
    """The objects in an image, the surest first.

    Args:
        model: in evaluation mode.
        image: PIL, RGB.
        classes: their names, in the order of the labels.
        threshold: the lowest score that counts.
    """
    device = next(model.parameters()).device
    (found,) = model([transforms().functional.pil_to_tensor(image).to(device) / 255])
    rows = zip(found["labels"].tolist(), found["scores"].tolist(), found["boxes"].tolist(), strict=True)
    return [
        Object(classes[label - 1], score, (box[0], box[1], box[2], box[3]))
        for label, score, box in rows
        if score >= threshold
    ]


def drawn(image: Any, objects: Sequence[Object]) -> Any:
    """A copy of the image (PIL) with the boxes, each with its class and score, a colour a class."""
    from PIL import ImageDraw, ImageFont

    picture = image.copy()
    draw = ImageDraw.Draw(picture)
    size = max(11.0, max(picture.size) * _TEXT_SHARE)
    font, width = ImageFont.load_default(size), max(2, round(size / 7))
    order = {label: number for number, label in enumerate(dict.fromkeys(each.label for each in objects))}
    # The surest lie on top.
    for each in reversed(objects):
        colour = line_colour(order[each.label])
        draw.rectangle(each.box, outline=colour, width=width)
        text = f"{each.label} {each.score:.2f}"
        left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
        tall, wide = bottom - top + 4, right - left + 6
        # Within the picture, also where the box begins above or beside it.
        x = min(max(0.0, each.box[0]), max(0, picture.width - wide))
        y = each.box[1] - tall if each.box[1] >= tall else max(0.0, each.box[1])
        draw.rectangle((x, y, x + wide, y + tall), fill=colour)
        draw.text((x + 3 - left, y + 2 - top), text, fill="white", font=font)
    return picture
