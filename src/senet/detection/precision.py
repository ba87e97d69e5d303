"""Average precision as COCO counts it: faster-coco-eval's numbers, over any number of processes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from senet.data.stream import Batch, Broken
from senet.detection.coco import CocoData
from senet.errors import DataError, MissingExtraError
from senet.evaluation.classification import evaluating
from senet.runtime.processes import ALONE, Processes
from senet.tables import Table

# A row for each box that was found: image, left, top, width, height, score, label.
Found = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Precision:
    """COCO's twelve numbers, in per cent; NaN where there are no objects of a size.

    Args:
        images: how many there are; in a broken one nothing is found.
        ap: average precision, the mean over IoU of 0.50 to 0.95 and over the categories.
        ap50: that of an IoU of 0.5.
        ap75: that of an IoU of 0.75.
        ap_small: that of objects below 32 × 32 pixels.
        ap_medium: that of objects between.
        ap_large: that of objects above 96 × 96 pixels.
        ar1: average recall of one box an image.
        ar10: of ten.
        ar100: of a hundred.
        ar_small: of a hundred, of objects below 32 × 32 pixels.
        ar_medium: of objects between.
        ar_large: of objects above 96 × 96 pixels.
        broken: why, for each image that cannot be read, in their order.
    """

    images: int
    ap: float
    ap50: float
    ap75: float
    ap_small: float
    ap_medium: float
    ap_large: float
    ar1: float
    ar10: float
    ar100: float
    ar_small: float
    ar_medium: float
    ar_large: float
    broken: tuple[str, ...] = ()

    @property
    def score(self) -> float:
        """What decides which epoch is best."""
        return self.ap

    @property
    def measure(self) -> str:
        """The column that says the score to people."""
        return "test_ap"

    @property
    def summary(self) -> str:
        """The precision in a line."""
        return (
            f"average precision {self.ap:.2f} % (IoU 0.5: {self.ap50:.2f} %, 0.75: {self.ap75:.2f} %), "
            f"{self.images:,} test images"
        )

    def __str__(self) -> str:
        """COCO's table."""
        named = dataclasses.fields(self)[1:13]
        return str(Table([{"": each.name, "%": round(getattr(self, each.name), 2)} for each in named]))

    def columns(self) -> dict[str, float]:
        """The columns of a run's metrics.csv that are the test's."""
        return {"test_ap": self.ap, "test_ap50": self.ap50, "test_ap75": self.ap75}

    def to_dict(self) -> dict[str, Any]:
        """All numbers, None where there is none; how many images are broken."""
        values = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        values = {name: None if value != value else value for name, value in values.items()}
        return values | {"broken": len(self.broken)}


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    batches: Iterable[Batch],
    data: CocoData,
    *,
    device: torch.device,
    processes: Processes = ALONE,
) -> Precision:
    """The precision of a detector on test images; each module is left in the mode it was in.

    Args:
        model: a ``Detector``.
        batches: of the test images, see ``senet.detection.boxes.batches_of``.
        data: the images.
        device: where the model is.
        processes: all that evaluate, each with its share of the batches; all get the same numbers.

    Raises:
        DataError: all images are broken.
        MissingExtraError: faster-coco-eval is not installed.
        RunError: a process that prepares images has died.
    """
    rows: list[Found] = []
    broken: list[Broken] = []
    read = 0
    with evaluating(model):
        for batch in batches:
            broken += batch.broken
            read += len(batch.images)
            if not batch.images:
                continue
            given = model([image.to(device) / 255 for image in batch.images])
            rows += [
                _rows(target["number"], found) for target, found in zip(batch.labels, given, strict=True)
            ]
    shares = processes.gather((rows, broken, read))
    every = sorted(each for _, share, _ in shares for each in share)
    if not any(share for _, _, share in shares):
        raise DataError(
            "evaluating a detector",
            found=f"none of the {len(every)} images can be read" + (f"; {every[0].why}" if every else ""),
        )
    found = np.concatenate([np.zeros((0, 7)), *(row for share, _, _ in shares for row in share)])
    # In the order of the images, whoever looked at them.
    found = found[np.argsort(found[:, 0], kind="stable")]
    return precision(found, data, broken=tuple(each.why for each in every))


def precision(found: Found, data: CocoData, *, broken: tuple[str, ...] = ()) -> Precision:
    """The precision of boxes that were found in the test images.

    Args:
        found: (m, 7), a row a box: number of the image, left, top, width, height in pixels, score, label from
            0.
        data: the images.
        broken: why, for each image that cannot be read.

    Raises:
        MissingExtraError: faster-coco-eval is not installed.
    """
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError as error:
        raise MissingExtraError.of("faster-coco-eval", extra="detection", need="average precision") from error
    truth = COCO(_as_coco(data))
    said = found.copy()
    said[:, 0] = _numbers(data)[said[:, 0].astype(np.int64)]
    said[:, 6] += 1
    results = truth.loadRes(said)
    run = COCOeval_faster(truth, results, iouType="bbox", print_function=_silent)
    run.evaluate()
    run.accumulate()
    run.summarize()
    # COCO says -1 where there is nothing to find.
    numbers = [100 * float(value) if value >= 0 else float("nan") for value in run.stats[:12]]
    names = [each.name for each in dataclasses.fields(Precision)][1:13]
    return Precision(len(data.test), **dict(zip(names, numbers, strict=True)), broken=broken)


def _as_coco(data: CocoData) -> dict[str, Any]:
    """The test images as a file of annotations has them, without polygons, all numbered from 1.

    COCO's own numbers may be larger than what the metric's floats hold.
    """
    images, boxes, numbers = data.test, data.test.boxes, _numbers(data).tolist()
    annotations = []
    for image in range(len(images)):
        own = boxes.of(image)
        for number in range(own.start, own.stop):
            left, top, right, bottom = boxes.corners[number].tolist()
            annotations.append(
                {
                    "id": number + 1,
                    "image_id": numbers[image],
                    "category_id": int(boxes.labels[number]) + 1,
                    "bbox": [left, top, right - left, bottom - top],
                    "area": float(boxes.areas[number]),
                    "iscrowd": int(boxes.crowd[number]),
                }
            )
    return {
        "images": [
            {"id": number, "width": int(width), "height": int(height)}
            for number, (width, height) in zip(numbers, images.sizes, strict=True)
        ],
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for number, name in enumerate(data.classes, 1)],
    }


def _numbers(data: CocoData) -> npt.NDArray[np.int64]:
    """A number from 1 for each image, in the order of COCO's, which decides between equal scores."""
    return np.argsort(np.argsort(data.test.ids)) + 1


def _rows(number: int, found: dict[str, torch.Tensor]) -> Found:
    corners = found["boxes"].double().cpu().numpy()
    scores, labels = (found[name].double().cpu().numpy()[:, None] for name in ("scores", "labels"))
    sizes = corners[:, 2:] - corners[:, :2]
    return np.concatenate([np.full_like(scores, number), corners[:, :2], sizes, scores, labels - 1], 1)


def _silent(*_words: object) -> None:
    pass
