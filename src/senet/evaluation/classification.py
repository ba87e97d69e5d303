"""How many images a network classifies rightly, counted in integers, by any number of processes."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from senet.data.preprocessing import Preprocessing
from senet.data.source import Source
from senet.data.stream import Batch, BatchesInOrder, Broken, Images, Loader
from senet.errors import DataError
from senet.evaluation.averaging import log_mean_softmax
from senet.runtime.processes import ALONE, Processes

Batches = Iterable[Batch]


class Scored(NamedTuple):
    """The scores (B, classes) of a batch and its labels (B,), and the broken images that are not in it."""

    scores: Tensor
    labels: Tensor
    broken: list[Broken]


@dataclass(frozen=True)
class Evaluation:
    """Counts over a set of images.

    Args:
        images: how many there are; a broken one is never classified rightly.
        correct1: how many have the right class first.
        correct5: how many have it among the first five.
        loss: mean cross-entropy of those that are not broken, without label smoothing.
        broken: why, for each that cannot be read, in their order.
    """

    images: int
    correct1: int
    correct5: int
    loss: float
    broken: tuple[str, ...] = ()

    @property
    def top1(self) -> float:
        """Accuracy in per cent."""
        return 100 * self.correct1 / self.images

    @property
    def top5(self) -> float:
        """Accuracy among the first five, in per cent."""
        return 100 * self.correct5 / self.images

    @property
    def score(self) -> int:
        """What decides which epoch is best."""
        return self.correct1

    @property
    def measure(self) -> str:
        """The column that says the score to people."""
        return "test_top1"

    @property
    def summary(self) -> str:
        """The accuracy in a line."""
        return f"test accuracy {self.top1:.2f} % ({self.correct1:,} of {self.images:,} images)"

    def columns(self) -> dict[str, float]:
        """The columns of a run's metrics.csv that are the test's."""
        return {"test_loss": self.loss, "test_top1": self.top1, "test_top5": self.top5}

    def to_dict(self) -> dict[str, Any]:
        """Counts, accuracies in per cent, loss, and how many images are broken."""
        return {
            "images": self.images,
            "correct1": self.correct1,
            "correct5": self.correct5,
            "top1": self.top1,
            "top5": self.top5,
            "loss": self.loss,
            "broken": len(self.broken),
        }


def batches_of(
    source: Source,
    preprocessing: Preprocessing,
    *,
    batch_size: int = 256,
    workers: int = 0,
    processes: Processes = ALONE,
    scales: Sequence[int] = (),
    crops: int = 1,
) -> Batches:
    """Every image once, in order, shared out among the processes.

    Args:
        source: the images.
        preprocessing: resizes and crops.
        batch_size: what the network is given at once: images, or views of them.
        workers: processes that prepare images; 0 does it in this one.
        processes: among which the batches are shared out.
        scales: see ``Preprocessing.views``; none is that of the preprocessing.
        crops: see ``Preprocessing.views``.

    Returns:
        uint8 images (B, C, H, W), or with several views of each (B, V, C, H, W); labels (B,).
    """
    scales = scales or (preprocessing.resize,)
    if len(scales) * crops == 1:
        transform = dataclasses.replace(preprocessing, resize=scales[0]).evaluation()
    else:
        transform = preprocessing.views(scales, crops)
    order = BatchesInOrder(len(source), max(1, batch_size // (len(scales) * crops)), processes)
    return Loader(Images(source, transform, seed=0), order, workers=workers)


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    batches: Batches,
    preprocessing: Preprocessing,
    *,
    device: torch.device,
    memory_format: torch.memory_format = torch.channels_last,
    processes: Processes = ALONE,
    keep: list[Scored] | None = None,
) -> Evaluation:
    """Evaluates a network in float32 and leaves each module in the mode it was in.

    Args:
        model: scores (N, classes) from images (N, C, H, W).
        batches: see ``batches_of``. Of several views of an image, the softmax is averaged.
        preprocessing: normalises them.
        device: where the model is.
        memory_format: of the images.
        processes: all that evaluate, each with its share of the batches; all get the same evaluation.
        keep: takes this process's scores, on the CPU.

    Raises:
        DataError: all images are broken.
        RunError: a process that prepares images has died.
    """

    def scored() -> Iterator[Scored]:
        for batch in batches:
            found = _score(model, batch, preprocessing, device, memory_format)
            if keep is not None:
                keep.append(Scored(found.scores.cpu(), found.labels.cpu(), found.broken))
            yield found

    with evaluating(model):
        return count(scored(), device=device, processes=processes)


def count(scored: Iterable[Scored], *, device: torch.device, processes: Processes = ALONE) -> Evaluation:
    """Counts what is right, over all processes.

    Raises:
        DataError: all images are broken.
    """
    correct = torch.zeros(2, dtype=torch.int64, device=device)
    loss = torch.zeros((), dtype=torch.float64, device=device)
    images = 0
    broken: list[Broken] = []
    for scores, labels, unread in scored:
        top = scores.topk(min(5, scores.shape[1])).indices.eq(labels[:, None])
        correct += torch.stack([top[:, 0].sum(), top.sum()])
        loss += F.cross_entropy(scores, labels, reduction="sum")
        images += len(labels)
        broken += unread
    correct1, correct5, read = processes.total(torch.cat([correct, correct.new_tensor([images])])).tolist()
    every = sorted(each for share in processes.gather(broken) for each in share)
    if not read:
        raise DataError(
            "evaluating a network",
            found=f"none of the {len(every)} images can be read" + (f"; {every[0].why}" if every else ""),
        )
    why = tuple(each.why for each in every)
    return Evaluation(read + len(why), correct1, correct5, processes.total(loss).item() / read, why)


def _score(
    model: nn.Module,
    batch: Batch,
    preprocessing: Preprocessing,
    device: torch.device,
    memory_format: torch.memory_format,
) -> Scored:
    labels = batch.labels.to(device)
    if not len(labels):
        return Scored(torch.zeros(0, 1, device=device), labels, batch.broken)
    views = batch.images.flatten(0, -4).to(device)
    scores = model(preprocessing.normalise(views).contiguous(memory_format=memory_format)).float()
    if batch.images.ndim == 5:
        scores = log_mean_softmax(scores.unflatten(0, batch.images.shape[:2]), 1)
    return Scored(scores, labels, batch.broken)


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """All modules in evaluation mode, and each back in its own at the end."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
