"""A detector's weights, evaluated on the data that they are for."""

from __future__ import annotations

from pathlib import Path

from senet import weights as weight_files
from senet.detection.boxes import batches_of
from senet.detection.coco import CocoData, open_coco
from senet.detection.detector import load
from senet.detection.precision import Precision, evaluate
from senet.errors import OptionError, WeightsError, require_count
from senet.runtime.device import device_named, worker_count
from senet.runtime.processes import joined
from senet.weights import Weights


def evaluate_detector(
    weights: str | Path,
    *,
    data: str | None = None,
    device: str = "auto",
    batch_size: int = 8,
    workers: int | None = None,
) -> tuple[str, Precision]:
    """Finds boxes in all test images; under ``torchrun`` the processes share them, and all return the same.

    Args:
        weights: of a detector: a file that a run wrote, or a run folder.
        data: ``coco:DIR``; None takes the data that they were trained on.
        device: auto, cpu, cuda, ...
        batch_size: images a batch.
        workers: processes that prepare images; None decides by the device.

    Returns:
        The name of the data, and COCO's numbers.

    Raises:
        OptionError: no data is named, or a value is not allowed.
        WeightsError: the weights cannot be read, or know other categories than the data.
        DataError: the data is missing, or all of its images are broken.
    """
    require_count("batch_size", batch_size)
    found = weight_files.recognise(weights)
    name = data or found.header.get("data")
    if not name:
        raise OptionError(f"eval {str(weights)!r}", "the weights name no data", do="Give --data coco:DIR.")
    place = device_named(device)
    model = load(found)
    images = open_coco(name)
    check_classes(found, images)
    model.to(place)
    with joined(place) as processes:
        batches = batches_of(
            images.test,
            batch_size=batch_size,
            workers=worker_count(workers, place),
            processes=processes,
        )
        return name, evaluate(model, batches, images, device=place, processes=processes)


def check_classes(found: Weights, data: CocoData) -> None:
    """Raises WeightsError where a detector knows other categories than the data has, or another order."""
    known = found.header["detector"]["num_classes"]
    theirs = list(found.header.get("classes", data.classes))
    if theirs != list(data.classes) or known != len(data.classes):
        named = f" ({', '.join(theirs[:3])}, ...)" if theirs != list(data.classes) else ""
        raise WeightsError(
            f"eval {found.source!r} on {data.name!r}",
            found=f"the weights know {known} categories{named}, the data has "
            f"{len(data.classes)} ({', '.join(data.classes[:3])}, ...)",
            allowed="the same categories in the same order",
            do="Name the data that they were trained on.",
        )
