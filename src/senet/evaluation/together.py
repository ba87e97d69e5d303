"""Networks evaluated by their names, each alone and all together."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from senet.data import open_data
from senet.errors import DataError, OptionError, WeightsError, require, require_count
from senet.evaluation.averaging import Average
from senet.evaluation.classification import Evaluation, Scored, batches_of, count, evaluate
from senet.evaluation.members import Member, changed, check_scores, check_size, member_named
from senet.runtime.device import device_named, worker_count
from senet.runtime.processes import Processes, joined
from senet.tables import Table


@dataclass(frozen=True)
class Evaluations:
    """Networks on the same images; it prints itself, has rows, and saves.

    Args:
        data: the data set.
        models: the names of the networks and their evaluations.
        average: the evaluation of the mean of their softmax; None for one network.
    """

    data: str
    models: tuple[tuple[str, Evaluation], ...]
    average: Evaluation | None

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The name, the data and the numbers of each network, and then of their average."""
        named = list(self.models)
        if self.average is not None:
            named.append((f"average of {len(named)}", self.average))
        return [{"model": name, "data": self.data} | found.to_dict() for name, found in named]

    @property
    def broken(self) -> tuple[str, ...]:
        """Why, for each image that cannot be read."""
        return self.models[0][1].broken

    def __str__(self) -> str:
        return str(Table(self.rows))

    def save(self, path: str | Path) -> None:
        """Writes the rows as .csv, .json or .md."""
        Table(self.rows).save(path)


def evaluate_models(
    *models: str | Member,
    data: str | None = None,
    weights: str | None = None,
    preprocessing: str | None = None,
    size: int | None = None,
    scales: Sequence[int] = (),
    squash: bool = False,
    crops: int = 1,
    device: str = "auto",
    batch_size: int = 256,
    workers: int | None = None,
) -> Evaluations:
    """Evaluates what a user names, with the preprocessing that the weights carry.

    Probabilities are averaged in float64 over the views of an image, and over the networks for one
    evaluation more. Started by ``torchrun``, the processes share the images, and all return the same.

    Args:
        models: run folders, weights of any origin, or a network's name beside ``weights``; or what makes the
            network in another way.
        data: the data set; None takes the one that the weights were trained on.
        weights: the weights of one network given by name.
        preprocessing: "data" (as training decides it), or as ``preprocessing_named`` takes it, in place of
            what the weights say.
        size: the side of the crop, in place of what the preprocessing says.
        scales: the shorter edges that images are resized to, likewise; each is a view of its own.
        squash: whether images are resized to a square, likewise.
        crops: of each scale, 1 or 10; see ``Preprocessing.views``.
        device: auto, cpu, cuda, ...
        batch_size: what a network is given at once: images, or views of them.
        workers: processes that prepare images; None decides by the device.

    Raises:
        OptionError: no weights or no data are named, or a value is not allowed.
        WeightsError: weights cannot be read, or are for other images or classes.
        DataError: the data is missing, or all of its images are broken.
    """
    require("models", models, len(models) > 0, "one or more")
    require("batch_size", batch_size, batch_size >= 1, "at least 1")
    require("workers", workers, workers is None or workers >= 0, "at least 0")
    if size is not None:
        require_count("size", size)
    for scale in scales:
        require_count("scale", scale)
    if weights is not None and len(models) > 1:
        raise OptionError("--weights", f"there are {len(models)} models", "one MODEL beside it")
    place = device_named(device)
    members = [each if isinstance(each, Member) else member_named(each, weights) for each in models]
    name = data or _data_of(members)
    splits = open_data(name)
    prepared = {}
    for member in members:
        found = member.preprocessing(splits, preprocessing)
        member.check_classes(splits)
        prepared[member.name] = changed(found, member.name, size=size, scales=scales, squash=squash)
        prepared[member.name].views(scales, crops)  # whatever is wrong shows up before the first batch
    with joined(place) as processes:
        batches = partial(
            batches_of,
            splits.test,
            batch_size=batch_size,
            workers=worker_count(workers, place),
            processes=processes,
            scales=scales,
            crops=crops,
        )

        def evaluated(member: Member, keep: list[Scored] | None) -> Evaluation:
            how = prepared[member.name]
            model: Any = member.network(splits)
            model.to(place, memory_format=torch.channels_last)
            check_scores(check_size(model, how, member.name), member.name, splits)
            found = evaluate(model, batches(how), how, device=place, processes=processes, keep=keep)
            if not math.isfinite(found.loss):
                raise WeightsError(
                    f"{member.name!r} on {name!r}",
                    found=f"the loss is {found.loss}: the network gives scores that are no finite numbers",
                    do="Its weights may be lost: look whether they are finite.",
                )
            return found

        if len(members) == 1:
            return Evaluations(name, ((members[0].name, evaluated(members[0], None)),), None)
        return _together(name, members, evaluated, processes)


def _together(
    data: str,
    members: Sequence[Member],
    evaluated: Callable[[Member, list[Scored]], Evaluation],
    processes: Processes,
) -> Evaluations:
    """Evaluates one network after the other, and then the mean of their softmax."""
    average = Average()
    found: dict[str, Evaluation] = {}
    # Sorted, so that sums are rounded alike in whatever order the networks are named.
    for member in sorted(members, key=lambda each: each.name):
        batches: list[Scored] = []
        found[member.name] = evaluated(member, batches)
        if len({each.broken for each in found.values()}) > 1:
            raise DataError(
                f"averaging {member.name!r} with the networks before it",
                found="some images could be read in one pass over them and not in another",
                do="Look at the disk, then evaluate again.",
            )
        average.add([batch.scores for batch in batches])
    mean = [batch._replace(scores=each) for batch, each in zip(batches, average.scores(), strict=True)]
    every = tuple((member.name, found[member.name]) for member in members)
    return Evaluations(data, every, count(mean, device=torch.device("cpu"), processes=processes))


def _data_of(members: Sequence[Member]) -> str:
    """The data that all weights were trained on."""
    names = {member.name: member.header.get("data") for member in members}
    asked = f"{' '.join(repr(name) for name in names)}"
    for name, data in names.items():
        if data is None:
            raise OptionError(f"{name!r}", "no data is named, here or in the weights", do="Give --data.")
    if len(set(names.values())) > 1:
        said = ", ".join(f"{name} on {data}" for name, data in names.items())
        raise OptionError(asked, f"they were trained on different data ({said})", do="Give --data.")
    return str(names[members[0].name])
