"""What a network classifies with some gates held constant, beside what it classifies untouched.

Every batch is prepared once and runs through all variants, and each image is compared with itself: what
changes is known much better than either accuracy.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from math import sqrt
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from senet.analysis.sites import GateSite
from senet.analysis.watching import holding, watching
from senet.analysis.worth.paired import Paired, Z
from senet.errors import DataError, DtypeError, OptionError, RecordingError
from senet.evaluation.classification import Evaluation, evaluating
from senet.runtime.processes import Processes

# The gates of some blocks, by name: (C,), or one number for all channels.
Held = Mapping[str, Tensor | float]
# Gives batches each time that it is iterated: images (N, C, H, W) as the network takes them, labels (N,).
Images = Iterable[Any]

HALVES = 2


@dataclass(frozen=True)
class Outcome:
    """What changes when gates are held.

    Args:
        top1: images with the right class first.
        top5: images with the right class among the first five.
        loss: change of the mean cross-entropy.
        loss_interval: of it, 95 %.
    """

    top1: Paired
    top5: Paired
    loss: float
    loss_interval: tuple[float, float]

    @classmethod
    def of(cls, sums: Tensor) -> Outcome:
        """From the sums (7,) over images: 1, top-1 lost and gained, top-5 likewise, loss and its square."""
        images, lost1, gained1, lost5, gained5 = (int(each) for each in sums[:5])
        mean, square = (sums[5:] / max(images, 1)).tolist()
        half = Z * sqrt(max(square - mean**2, 0.0) / max(images, 1))
        top1, top5 = Paired(images, lost1, gained1), Paired(images, lost5, gained5)
        return cls(top1, top5, mean, (mean - half, mean + half))


@dataclass(frozen=True)
class Comparison:
    """Variants of a network on the same images.

    Args:
        classes: K, the number of scores.
        untouched: the network as it is.
        sums: (variants, 2, 7) float64, see ``Outcome.of``, over each of two halves of the images.
    """

    classes: int
    untouched: Evaluation
    sums: Tensor

    def outcome(self, variant: int) -> Outcome:
        """Of a variant, on all images."""
        return Outcome.of(self.sums[variant].sum(0))

    def half(self, variant: int, half: int) -> Outcome:
        """Of a variant, on half 0 or 1 of the images."""
        return Outcome.of(self.sums[variant, half])


@torch.inference_mode()
def compare(
    model: nn.Module,
    loader: Images,
    variants: Sequence[Held],
    sites: Sequence[GateSite],
    *,
    processes: Processes,
    what: str,
) -> Comparison:
    """Runs each batch through the network as it is and through each variant, in evaluation mode.

    Args:
        model: scores (N, K).
        loader: see ``Images``; of several processes each has its share of the batches in turn.
        variants: gates to hold.
        sites: where they are.
        processes: all that compare; all get the same.
        what: for the progress bar.

    Raises:
        DataError: there are fewer than two images, or labels do not fit the scores.
        DtypeError: the images are not floating point.
        RecordingError: scores are NaN or infinite, so that nothing can be compared.
    """
    device = next(model.parameters()).device
    sums = torch.zeros(len(variants), HALVES, 7, dtype=torch.float64, device=device)
    base = torch.zeros(4, dtype=torch.float64, device=device)
    classes = 0
    with evaluating(model), _bar(loader, 1 + len(variants), what, processes) as bar:
        for number, (images, labels) in enumerate(_batches(loader, device)):
            half = _halves(len(labels), number * processes.count + processes.rank).to(device)
            scores = model(images)
            _check(scores, labels)
            classes = scores.shape[1]
            before = _verdicts(scores, labels)
            _check_finite(before, "the network as it is")
            base += torch.stack([torch.ones_like(before[0]), *before]).sum(1)
            bar.update()
            for variant, held in enumerate(variants):
                with holding(model, held, sites=sites):
                    after = _verdicts(model(images), labels)
                sums[variant] += half @ _columns(before, after)
                bar.update()
    sums, base = processes.total(sums).cpu(), processes.total(base).cpu()
    for held, each in zip(variants, sums, strict=True):
        _check_finite(each, f"the network with constant gates in {', '.join(list(held)[:4])}")
    images_, correct1, correct5 = (int(each) for each in base[:3])
    if images_ < HALVES:
        raise DataError(
            "measuring what gates are worth",
            found="the loader gives a single image",
            allowed="two or more, some to choose with and some to measure with",
        )
    untouched = Evaluation(images_, correct1, correct5, base[3].item() / images_)
    return Comparison(classes, untouched, sums)


@torch.inference_mode()
def mean_gates(
    model: nn.Module, loader: Images, sites: Sequence[GateSite], *, processes: Processes
) -> dict[str, Tensor]:
    """The gates of each block, the mean over images: (C,) float64, on the CPU.

    Raises:
        RecordingError: a block did not run, or gives gates that are NaN.
    """
    sums = {site.name: torch.zeros(site.channels + 1, dtype=torch.float64) for site in sites}

    def seen(name: str, s: Tensor) -> None:
        # With a column of ones, whose mean is the number of samples.
        sums[name] += F.pad(s.detach().to("cpu", torch.float64), (0, 1), value=1.0).sum(0)

    device = next(model.parameters()).device
    with (
        evaluating(model),
        watching(model, seen, sites=sites),
        _bar(loader, 1, "recording", processes) as bar,
    ):
        for images, _ in _batches(loader, device):
            model(images)
            bar.update()
    for name, total in sums.items():
        total = processes.total(total)
        if not total[-1]:
            raise RecordingError(
                f"recording the gates of {name!r}",
                found="the block did not run",
                do="Give images, and blocks that the network runs on them.",
            )
        _check_finite(total, f"the block {name}")
    return {name: total[:-1] / total[-1] for name, total in sums.items()}


def first_images(loader: Images) -> Tensor:
    """A few images, to follow the network with.

    Raises:
        OptionError: the loader can be iterated only once.
        DataError: it is empty.
    """
    batches = iter(loader)
    if batches is loader:
        raise OptionError(
            f"loader={type(loader).__name__}",
            found="it can be iterated only once, and the images are needed several times",
            allowed="a list, a DataLoader, or another object whose iter() begins anew",
        )
    for images, _ in _batches(batches, torch.device("cpu")):
        return images[:2]
    raise DataError("measuring what gates are worth", "the loader gives no images")


def _halves(images: int, batch: int) -> Tensor:
    """(2, N) float64: which half each image is in.

    At random, as the order of images may tell their classes; by the number of the batch, the same each time,
    and alternating where batches hold one image.
    """
    order = torch.randperm(images, generator=torch.Generator().manual_seed(batch)) + batch
    return F.one_hot(order % HALVES, HALVES).double().T


def _batches(loader: Images, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    for batch in loader:
        if not (isinstance(batch, Sequence) and len(batch) >= 2):
            raise DataError(
                "measuring what gates are worth",
                found=f"the loader gives {type(batch).__name__}",
                allowed="pairs of images (N, C, H, W) and labels (N,)",
            )
        images, labels = batch[:2]
        if not len(images):
            continue
        if not images.is_floating_point():
            raise DtypeError(
                "measuring what gates are worth",
                found=f"the images are {images.dtype}",
                allowed="floating point, as the network takes them",
                do="Normalise them, such as by senet's Preprocessing.normalise.",
            )
        layout = torch.channels_last if images.ndim == 4 else torch.contiguous_format
        yield images.to(device, memory_format=layout), labels.to(device)


def _check(scores: Tensor, labels: Tensor) -> None:
    fits = scores.ndim == 2 and labels.shape == scores.shape[:1] and labels.dtype == torch.int64
    if not fits or not 0 <= int(labels.min()) <= int(labels.max()) < scores.shape[1]:
        seen = f"from {int(labels.min())} to {int(labels.max())}" if labels.numel() else "none"
        raise DataError(
            "measuring what gates are worth",
            found=f"labels {tuple(labels.shape)} of {labels.dtype}, {seen}, and scores {tuple(scores.shape)}",
            allowed="labels (N,) of torch.int64 from 0 to K - 1, and scores (N, K)",
            do="Give the images that the network was trained for, with their class numbers.",
        )


def _check_finite(values: Tensor, what: str) -> None:
    """Raises RecordingError for NaN and infinity: with these no change can be told from none."""
    if not values.isfinite().all():
        raise RecordingError(
            "measuring what gates are worth",
            found=f"{what} gives NaN or infinite numbers",
            do="Look at the weights and the images, or leave blocks out: name others.",
        )


def _verdicts(scores: Tensor, labels: Tensor) -> Tensor:
    """(3, N) float64: whether the label is first, whether it is among the first five, the loss."""
    scores = scores.float()
    top = scores.topk(min(5, scores.shape[1])).indices.eq(labels[:, None])
    loss = F.cross_entropy(scores, labels, reduction="none")
    return torch.stack([top[:, 0].double(), top.any(1).double(), loss.double()])


def _columns(before: Tensor, after: Tensor) -> Tensor:
    """(N, 7): what ``Outcome.of`` sums up."""
    change = after - before
    one, five, loss = change
    signs = [(-one).clamp(0), one.clamp(0), (-five).clamp(0), five.clamp(0)]
    return torch.stack([torch.ones_like(one), *signs, loss, loss.square()], 1)


def _bar(loader: Images, runs: int, what: str, processes: Processes) -> Any:
    total = len(loader) * runs if isinstance(loader, Sized) else None
    return tqdm(total=total, desc=what, unit="run", leave=False, disable=None if processes.leads else True)
