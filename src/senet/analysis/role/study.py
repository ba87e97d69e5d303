"""The gates of a network over labelled images: run once, kept, saved and read back.

The folder holds ``gates.safetensors`` (everything, exactly), ``blocks.csv`` (a row a block: its measures with
intervals), ``classes.csv`` (a row a block, class and channel), ``claims.csv`` and ``claims.json``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from tqdm import tqdm

from senet.analysis.role.claims import Finding, findings
from senet.analysis.role.measures import BlockMeasures, measures_of
from senet.analysis.role.profiles import BlockProfile, groups_for, merged
from senet.analysis.sites import find_gates
from senet.analysis.watching import unwrapped, watching
from senet.data.preprocessing import Preprocessing
from senet.data.source import Source, evenly_spaced
from senet.data.stream import Batch, BatchesInOrder, SampleKey
from senet.errors import DataError, OptionError, RecordingError, WeightsError, require_count
from senet.evaluation.classification import Evaluation, batches_of, evaluate
from senet.files import filling
from senet.graph.trace import Example
from senet.passport import passport
from senet.runtime.processes import ALONE, Processes
from senet.tables import Table
from senet.weights import store

GATES = "gates.safetensors"
ALL = "all"


@dataclass(frozen=True)
class GateStudy:
    """The gates of a network's blocks over labelled images.

    Args:
        network: as the user named it.
        weights: where they came from; None for those that the network had.
        data: as the user named it.
        classes: their names, in the order of the labels.
        blocks: by name, in the order in which they run.
        evaluation: how many of these images the network classifies rightly: whether it was trained.
        split: "test" or "train": which images of the data.
        random: whether the weights are fresh, so that only the mechanics are seen.
        fingerprint: of the weights, "" if it is not known.
        passport: what it was measured with.
    """

    network: str
    weights: str | None
    data: str
    classes: tuple[str, ...]
    blocks: dict[str, BlockProfile]
    evaluation: Evaluation
    split: str = "test"
    random: bool = False
    fingerprint: str = ""
    passport: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def measures(self) -> list[BlockMeasures]:
        """Of each block."""
        return [measures_of(profile) for profile in self.blocks.values()]

    @cached_property
    def claims(self) -> list[Finding]:
        """What has been said about the role of excitation, on this network."""
        return findings(self.measures, random=self.random)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """A row a block: its measures."""
        return [each.row for each in self.measures]

    def __str__(self) -> str:
        return str(Table(self.rows))

    def save(self, folder: str | Path, *, shown: Sequence[int] = ()) -> None:
        """Writes all files, or none: they appear when all are whole, ``gates.safetensors`` last.

        Args:
            folder: made if it is not there; other files in it stay.
            shown: the classes in ``classes.csv``, beside "all".

        Raises:
            OptionError: there is no such class.
            DataError: the folder cannot be written.
        """
        for label in shown:
            if not 0 <= label < len(self.classes):
                raise OptionError(
                    f"shown={list(shown)}", f"there is no class {label}", f"0 to {len(self.classes) - 1}"
                )
        tables = {
            "blocks.csv": [each.full_row for each in self.measures],
            "classes.csv": list(self._class_rows(shown)),
            "claims.csv": [each.row for each in self.claims],
            "claims.json": [each.row for each in self.claims],
        }
        try:
            with filling(folder, last=GATES) as staged:
                for file, rows in tables.items():
                    Table(rows).save(staged / file)
                store.write(staged / GATES, self._tensors(), {"gates": self._header()})
        except WeightsError as error:
            raise DataError(
                f"saving gates in {str(folder)!r}",
                f"it cannot be written ({error})",
                do="Choose another place.",
            ) from error

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Reads back what ``save`` wrote.

        Raises:
            DataError: the folder holds no such study, or a broken one.
        """
        path = Path(folder) / GATES
        found = f"there is no {GATES} in it"
        if path.is_file():
            try:
                header, tensors = store.read(path)
                facts = dict(header["gates"])
                blocks = {
                    name: BlockProfile.of_tensors(name, size, _of_block(name, tensors))
                    for name, size in facts.pop("blocks").items()
                }
                seen = facts.pop("evaluation")
                evaluation = Evaluation(**(seen | {"broken": tuple(seen["broken"])}))
                classes = tuple(facts.pop("classes"))
                return cls(classes=classes, blocks=blocks, evaluation=evaluation, **facts)
            except (WeightsError, KeyError, TypeError, ValueError, AttributeError) as error:
                found = f"{GATES} is not whole, or of something else ({error})"
        raise DataError(
            f"gates in {str(folder)!r}",
            found,
            allowed="a folder that a study of gates was saved in",
            do="Make it with: senet gates MODEL --data DATA --out FOLDER",
        )

    def _header(self) -> dict[str, Any]:
        return {
            "network": self.network,
            "weights": self.weights,
            "data": self.data,
            "split": self.split,
            "classes": self.classes,
            "blocks": {name: profile.size for name, profile in self.blocks.items()},
            "evaluation": dataclasses.asdict(self.evaluation),
            "random": self.random,
            "fingerprint": self.fingerprint,
            "passport": self.passport,
        }

    def _tensors(self) -> dict[str, Tensor]:
        return {
            f"{block}/{name}": tensor
            for block, profile in self.blocks.items()
            for name, tensor in profile.tensors.items()
        }

    def _class_rows(self, shown: Sequence[int]) -> Iterator[dict[str, Any]]:
        for block, profile in self.blocks.items():
            images, mean, std = profile.images, profile.class_mean, profile.class_std
            some = [(self.classes[k], int(images[k]), mean[k], std[k]) for k in shown]
            every = (ALL, int(images.sum()), profile.overall_mean, profile.overall_std)
            for name, count, means, stds in [every, *some]:
                for channel, (m, d) in enumerate(zip(means.tolist(), stds.tolist(), strict=True)):
                    yield {
                        "block": block,
                        "class": name,
                        "channel": channel,
                        "images": count,
                        "mean": m,
                        "std": d,
                    }


def _of_block(block: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What ``_tensors`` has named, by the names that the profile knows."""
    split = ((*key.rpartition("/"), tensor) for key, tensor in tensors.items())
    return {name: tensor for where, _, name, tensor in split if where == block}


class Chosen:
    """Some images of a source.

    Args:
        source: all of them.
        numbers: which, (n,).
    """

    def __init__(self, source: Source, numbers: npt.NDArray[np.int64]) -> None:
        self.source = source
        self.numbers = numbers
        self.labels = source.labels[numbers]

    def __len__(self) -> int:
        return len(self.numbers)

    def read(self, index: int) -> tuple[Any, int]:
        """The image (PIL) and its class."""
        return self.source.read(int(self.numbers[index]))


def study_gates(
    model: nn.Module,
    source: Source,
    preprocessing: Preprocessing,
    classes: Sequence[str],
    *,
    network: str = "",
    weights: str | None = None,
    data: str = "",
    split: str = "test",
    random: bool = False,
    blocks: Sequence[str] = (),
    example: Example | None = None,
    per_class: int | None = None,
    batch_size: int = 256,
    workers: int = 0,
    device: torch.device | None = None,
    processes: Processes = ALONE,
) -> GateStudy:
    """Runs a network over labelled images, in float32 and evaluation mode, and keeps its gates' statistics.

    The network is left as it was. A block that runs several times a forward gives several samples an image.

    Args:
        model: a network with SE of any form.
        source: the images.
        preprocessing: what the network expects.
        classes: their names, in the order of the labels.
        network: what the study shall say of these, as for ``weights``, ``data``, ``split`` and ``random``.
        weights: where they came from.
        data: as the user named it.
        split: which images of the data they are.
        random: whether the weights are fresh.
        blocks: only those; see ``find_gates``.
        example: what the network is followed with; None: an image of the preprocessing's size.
        per_class: only so many images of each class, evenly spaced among them; None for all.
        batch_size: images at once.
        workers: processes that prepare images; 0 does it in this one.
        device: where the model is; None: where its first parameter is.
        processes: all that study, each with its share of the batches; all get the same study.

    Raises:
        OptionError: the network has no SE block, or none of this name.
        DataError: no image can be read. Some that cannot are in the study's ``evaluation.broken``.
        RecordingError: a block did not run, or not once for each image.
    """
    numbers = chosen_images(source.labels, per_class)
    chosen = Chosen(source, numbers)
    if device is None:
        device = next((each.device for each in model.parameters()), torch.device("cpu"))
    if example is None:
        example = torch.zeros(2, preprocessing.channels, *2 * [preprocessing.size], device=device)
    recorder = _Recorder()
    sites = find_gates(unwrapped(model), blocks=blocks, example=example)
    with watching(model, recorder.seen, sites=sites):
        groups = groups_for(len(classes), sum(site.channels for site in sites))
        for site in sites:
            profile = BlockProfile.new(site.name, site.channels, site.size, len(classes), groups)
            recorder.profiles[site.name] = profile
        batches = batches_of(
            chosen, preprocessing, batch_size=batch_size, workers=workers, processes=processes
        )
        keys = BatchesInOrder(len(chosen), batch_size, processes)
        numbered = zip(keys, batches, strict=True)
        bar = tqdm(numbered, "gates", len(keys), unit="batch", disable=None if processes.leads else True)
        evaluation = evaluate(
            model,
            recorder.told(bar, numbers, balanced_groups(chosen.labels, groups)),
            preprocessing,
            device=device,
            processes=processes,
        )
    # A block at a time: of all together there may be gigabytes.
    profiles = {name: merged(processes.gather(profile)) for name, profile in recorder.profiles.items()}
    silent = [name for name, profile in profiles.items() if not profile.count.any()]
    if silent:
        raise RecordingError(
            f"the gates of {network or type(model).__name__}",
            found=f"{len(silent)} of {len(profiles)} blocks did not run: {', '.join(silent[:8])}",
            do="Name those that run: blocks=[...]",
        )
    return GateStudy(
        network=network,
        weights=weights,
        data=data,
        classes=tuple(classes),
        blocks=profiles,
        evaluation=evaluation,
        split=split,
        random=random,
        fingerprint=store.fingerprint(model),
        passport=passport(),
    )


def chosen_images(labels: npt.NDArray[np.int64], per_class: int | None) -> npt.NDArray[np.int64]:
    """The numbers of the images, in order: of each class at most ``per_class``, evenly spaced among them."""
    if per_class is None:
        return np.arange(len(labels))
    require_count("per_class", per_class)
    by_class = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    return np.sort(np.concatenate([each[evenly_spaced(len(each), per_class)] for each in by_class]))


def balanced_groups(labels: npt.NDArray[np.int64], groups: int) -> npt.NDArray[np.int64]:
    """The jackknife group of each image: every class is dealt out evenly, and no group gets all the rest.

    Not the image's number modulo the groups, as numbers often tell the class.
    """
    order = np.argsort(labels, kind="stable")
    _, first, inverse = np.unique(labels[order], return_index=True, return_inverse=True)
    place = np.empty_like(order)
    place[order] = np.arange(len(labels)) - first[inverse]
    return (place + labels) % groups


class _Recorder:
    """Brings together gates, which the network shows, and what is known of the images in it."""

    def __init__(self) -> None:
        self.profiles: dict[str, BlockProfile] = {}
        self.batch = (torch.empty(0), torch.empty(0), torch.empty(0))

    def told(
        self,
        batches: Iterable[tuple[list[SampleKey], Batch]],
        numbers: npt.NDArray[np.int64],
        groups: npt.NDArray[np.int64],
    ) -> Iterator[Batch]:
        """The batches; whose images a network then sees is known."""
        for keys, batch in batches:
            broken = {each.image for each in batch.broken}
            read = [key.image for key in keys if key.image not in broken]
            self.batch = batch.labels, torch.from_numpy(numbers[read]), torch.from_numpy(groups[read])
            yield batch

    def seen(self, name: str, s: Tensor) -> None:
        labels, images, groups = self.batch
        if len(s) != len(labels):
            raise RecordingError(
                f"the gates of {name!r}",
                found=f"they are of {len(s)} samples, and the network was given {len(labels)} images",
                allowed="one sample an image, each time the block runs",
                do="Leave the block out: name the others with blocks=[...]",
            )
        self.profiles[name].update(s, labels, images, groups)
