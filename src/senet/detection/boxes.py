"""Images with boxes as a detector takes them: prepared, mirrored for training, in batches."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from senet.data.preprocessing import transforms
from senet.data.stream import Batch, BatchesInOrder, Images, Loader, Sample, spent
from senet.detection.annotations import Annotated, CocoImages
from senet.runtime.processes import ALONE, Processes


@dataclass(frozen=True)
class WithBoxes:
    """An annotated image to uint8 (3, H, W) and its target: boxes (K, 4) in pixels, labels (K,) from 1.

    Args:
        flip: whether half of the images are mirrored.
    """

    flip: bool = False

    def __call__(self, annotated: Annotated) -> tuple[Tensor, dict[str, Any]]:
        """The image and its target; what of a box is outside of the image is cut off."""
        image: Tensor = transforms().functional.pil_to_tensor(annotated.image)
        height, width = image.shape[1:]
        boxes = torch.from_numpy(np.clip(annotated.boxes, 0, [width, height, width, height]))
        if self.flip and torch.rand(()) < 0.5:
            image = image.flip(-1)
            boxes = torch.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], 1)
        return image, {"boxes": boxes.float(), "labels": torch.from_numpy(annotated.labels) + 1}


def collated(samples: list[Sample]) -> Batch:
    """A batch of images of any size; each target also has the number of its image."""
    whole = [(*sample.image, sample.label) for sample in samples if sample.image is not None]
    images = [image for image, _, _ in whole]
    targets = [{**target, "number": number} for _, target, number in whole]
    return Batch(images, targets, [broken for sample in samples for broken in sample.broken], spent(samples))


def batches_of(
    images: CocoImages, *, batch_size: int = 8, workers: int = 0, processes: Processes = ALONE
) -> Iterable[Batch]:
    """Every image once, in order, shared out among the processes.

    Args:
        images: to look at.
        batch_size: what the detector is given at once.
        workers: processes that prepare images; 0 does it in this one.
        processes: among which the batches are shared out.
    """
    order = BatchesInOrder(len(images), batch_size, processes)
    return Loader(Images(images, WithBoxes(), seed=0), order, workers=workers, collate=collated)
