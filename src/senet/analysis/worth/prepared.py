"""The images of a data set as a network takes them, as often as they are asked for."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from senet.analysis.role.study import Chosen
from senet.data.preprocessing import Preprocessing
from senet.data.source import Source, evenly_spaced
from senet.data.stream import BatchesInOrder
from senet.errors import require_count
from senet.evaluation.classification import batches_of
from senet.runtime.processes import ALONE, Processes


class Prepared:
    """Batches of images (N, C, H, W), float32 and normalised, and labels (N,); broken images are left out.

    Args:
        source: the images.
        preprocessing: what the network expects.
        most: so many of them, evenly spaced; None for all.
        batch_size: images at once.
        workers: processes that prepare images; 0 does it in this one.
        device: where they are normalised.
        processes: among which the batches are shared out.

    Raises:
        OptionError: ``most`` is no count.
    """

    def __init__(
        self,
        source: Source,
        preprocessing: Preprocessing,
        *,
        most: int | None = None,
        batch_size: int = 256,
        workers: int = 0,
        device: torch.device | None = None,
        processes: Processes = ALONE,
    ) -> None:
        if most is not None:
            require_count("images", most)
            source = Chosen(source, np.array(evenly_spaced(len(source), most), np.int64))
        self.preprocessing = preprocessing
        self.device = device
        self.count = len(BatchesInOrder(len(source), batch_size, processes))
        # As evaluation wants them: uint8.
        self.batches = batches_of(
            source, preprocessing, batch_size=batch_size, workers=workers, processes=processes
        )

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in self.batches:
            if len(batch.labels):
                yield self.preprocessing.normalise(batch.images.to(self.device)), batch.labels
