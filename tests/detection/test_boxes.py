from pathlib import Path

import numpy as np
import torch
from PIL import Image

from senet.data.stream import Sample
from senet.detection.annotations import Annotated
from senet.detection.boxes import WithBoxes, batches_of, collated
from senet.detection.coco import open_coco
from senet.runtime.processes import Processes


def annotated() -> Annotated:
    pixels = np.zeros((20, 30, 3), np.uint8)
    pixels[4:10, 2:12] = 255
    boxes = np.array([[2.0, 4, 12, 10], [20, 10, 33, 25]])
    return Annotated(Image.fromarray(pixels), boxes, np.array([4, 0]))


def test_images_are_mirrored_with_their_boxes() -> None:
    found = {}
    for seed in range(8):
        torch.manual_seed(seed)
        image, target = WithBoxes(flip=True)(annotated())
        (rows, columns) = (image[0] > 0).nonzero().T
        left, top, right, bottom = target["boxes"][0].tolist()
        assert (columns.min(), columns.max() + 1) == (left, right)
        assert (rows.min(), rows.max() + 1) == (top, bottom)
        found[left] = target
    assert found.keys() == {2.0, 18.0}, "some are mirrored, some are not"
    for target in found.values():
        assert target["labels"].tolist() == [5, 1], "0 is the background"


def test_boxes_are_cut_off_at_the_border() -> None:
    image, target = WithBoxes()(annotated())
    assert image.dtype == torch.uint8
    assert image.shape == (3, 20, 30)
    assert target["boxes"].tolist() == [[2, 4, 12, 10], [20, 10, 30, 20]]
    assert target["boxes"].dtype == torch.float32


def test_broken_images_are_not_in_the_batch() -> None:
    whole = WithBoxes()(annotated())
    batch = collated([Sample(whole, 3, []), Sample(None, -1, [(7, "broken")])])  # type: ignore[list-item]
    assert len(batch.images) == 1
    assert batch.labels[0]["number"] == 3
    assert batch.broken == [(7, "broken")]


def test_processes_share_the_images(coco_folder: Path) -> None:
    images = open_coco(f"coco:{coco_folder}").train
    seen = [
        [
            target["number"]
            for batch in batches_of(images, batch_size=2, processes=Processes(rank, 2))
            for target in batch.labels
        ]
        for rank in range(2)
    ]
    assert seen == [[0, 1, 4, 5], [2, 3]]
