import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from senet.data.source import Names
from senet.detection.annotations import Boxes, CocoImages
from senet.detection.boxes import batches_of
from senet.detection.coco import CocoData, open_coco
from senet.detection.precision import Precision, evaluate, precision
from senet.errors import DataError
from senet.runtime.processes import Processes

NUMBERS = [each.name for each in dataclasses.fields(Precision)][1:13]


def made(seed: int, images: int, boxes: int) -> CocoData:
    """Random boxes in images that are not read, some of them crowds; the last image has none."""
    generator = np.random.default_rng(seed)
    counts = np.append(generator.multinomial(boxes, [1 / (images - 1)] * (images - 1)), 0)
    corners = generator.uniform(0, 300, (boxes, 2))
    sizes = np.exp(generator.uniform(1, 5.5, (boxes, 2)))
    labels = generator.integers(0, 3, boxes)
    source = CocoImages(
        Path(),
        Names.of(f"{number}.jpg" for number in range(images)),
        np.arange(images) + 20170101123456710,  # floats hold no such numbers
        np.full((images, 2), 640),
        Boxes(
            np.concatenate([[0], np.cumsum(counts)]),
            np.concatenate([corners, corners + sizes], 1),
            labels,
            generator.random(boxes) < 0.1,
            sizes.prod(1) * generator.uniform(0.4, 1, boxes),
        ),
    )
    return CocoData("coco:made", "", source, source, ("a", "b", "c"), (2, 5, 9))


def guesses(data: CocoData, seed: int) -> np.ndarray[Any, Any]:
    """Each box moved a little, some of another class, and some that are nowhere."""
    generator = np.random.default_rng(seed)
    rows = []
    for image in range(len(data.test)):
        own = data.test.boxes.of(image)
        for left, top, right, bottom in data.test.boxes.corners[own]:
            moved = generator.normal(0, 0.1, 4) * np.tile([right - left, bottom - top], 2)
            place = np.array([left, top, right - left, bottom - top]) + moved
            rows.append(
                (image, *place, generator.choice([0.2, generator.random()]), generator.integers(0, 3))
            )
        rows.append((image, *generator.uniform(1, 90, 4), generator.random(), 1))
    return np.array(rows)


@given(seed=st.integers(0, 2**32), images=st.integers(2, 6), boxes=st.integers(1, 25))
def test_the_numbers_are_those_of_pycocotools(seed: int, images: int, boxes: int) -> None:
    oracle = pytest.importorskip("pycocotools.cocoeval")
    from pycocotools.coco import COCO

    data = made(seed, images, boxes)
    # Files need not be sorted, and of equal scores the image decides that has the lower number.
    mixed = np.random.default_rng(seed).permutation(images)
    data = dataclasses.replace(data, test=dataclasses.replace(data.test, ids=data.test.ids[mixed]))
    found = guesses(data, seed)
    truth = COCO()
    held = data.test.boxes
    of = np.repeat(np.arange(images), np.diff(held.starts))
    truth.dataset = {
        "info": {},
        "images": [{"id": int(number)} for number in mixed],
        "categories": [{"id": number} for number in data.categories],
        "annotations": [
            {
                "id": number + 1,
                "image_id": int(mixed[of[number]]),
                "category_id": data.categories[held.labels[number]],
                "bbox": [*corner[:2], *(corner[2:] - corner[:2])],
                "area": held.areas[number],
                "iscrowd": int(held.crowd[number]),
            }
            for number, corner in enumerate(held.corners)
        ],
    }
    truth.createIndex()
    said = [
        {
            "image_id": int(mixed[int(row[0])]),
            "bbox": row[1:5].tolist(),
            "score": row[5],
            "category_id": data.categories[int(row[6])],
        }
        for row in found
    ]
    run = oracle.COCOeval(truth, truth.loadRes(said), "bbox")
    run.evaluate()
    run.accumulate()
    run.summarize()
    ours = precision(found, data).to_dict()
    for name, theirs in zip(NUMBERS, run.stats, strict=True):
        if theirs < 0:
            assert ours[name] is None
        else:
            assert ours[name] == pytest.approx(100 * theirs, abs=1e-9)


def test_nothing_found_and_all_found() -> None:
    data = made(1, 4, 12)
    nothing = precision(np.zeros((0, 7)), data)
    assert nothing.score == nothing.ar100 == 0
    boxes = data.test.boxes
    single = ~boxes.crowd
    of = np.repeat(np.arange(4), np.diff(boxes.starts))[single]
    sizes = (boxes.corners[:, 2:] - boxes.corners[:, :2])[single]
    rows = [
        of[:, None],
        boxes.corners[single][:, :2],
        sizes,
        np.ones((len(of), 1)),
        boxes.labels[single][:, None],
    ]
    every = precision(np.concatenate(rows, 1), data)
    assert every.ap == pytest.approx(100)
    assert every.columns() == {"test_ap": every.ap, "test_ap50": every.ap50, "test_ap75": every.ap75}
    assert every.measure in every.columns()
    assert every.summary.startswith("average precision 100.00 % (IoU 0.5: 100.00 %, 0.75: 100.00 %), 4 test")
    assert "ar_large" in str(every)


class Seeing(nn.Module):
    """Finds the red and the blue box by their colours."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def forward(self, images: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
        assert not self.training
        self.seen += len(images)
        found = []
        for image in images:
            boxes = []
            for channel in (0, 2):
                rows, columns = (image[channel] == 1).nonzero().T
                boxes.append([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
            scores = torch.tensor([0.9, 0.8])
            found.append(
                {"boxes": torch.tensor(boxes).float(), "labels": torch.tensor([1, 2]), "scores": scores}
            )
        return found


CPU = torch.device("cpu")


def test_a_detector_that_sees_everything(coco_folder: Path) -> None:
    data = open_coco(f"coco:{coco_folder}")
    model = Seeing()
    found = evaluate(model, batches_of(data.test, batch_size=2), data, device=CPU)
    assert found.ap == pytest.approx(100)
    assert (found.images, model.seen) == (3, 3)
    assert model.training, "the mode is as it was"


def test_in_a_broken_image_nothing_is_found(coco_folder: Path) -> None:
    (coco_folder / "val2017" / "1.png").write_bytes(b"no image")
    data = open_coco(f"coco:{coco_folder}")
    found = evaluate(Seeing(), batches_of(data.test), data, device=CPU)
    assert found.images == 3
    assert found.ar100 == pytest.approx(200 / 3)
    (why,) = found.broken
    assert "1.png" in why
    for name in ("0", "2"):
        (coco_folder / "val2017" / f"{name}.png").unlink()
    with pytest.raises(DataError, match="none of the 3 images can be read"):
        evaluate(Seeing(), batches_of(data.test), data, device=CPU)


def test_the_processes_count_together(coco_folder: Path) -> None:
    """With a gather that has the share of the other as well."""
    data = open_coco(f"coco:{coco_folder}")
    shares: list[Any] = []

    class Two(Processes):
        def gather(self, value: Any) -> list[Any]:
            shares.append(value)
            return shares

    two = [Two(rank, 2) for rank in range(2)]
    last = None
    for processes in two:
        batches = batches_of(data.test, batch_size=1, processes=processes)
        last = evaluate(Seeing(), batches, data, device=CPU, processes=processes)
    assert last is not None
    assert last.to_dict() == evaluate(Seeing(), batches_of(data.test), data, device=CPU).to_dict()
