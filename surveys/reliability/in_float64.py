"""Training in float64, where what is equal but for its rounding is easily told from what is not.

    python -m surveys.reliability.in_float64 PAUSE train ...

senet's command line; each image that is read for training takes PAUSE seconds longer.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import Any

import torch

from senet.cli import main
from senet.data.stream import Images, SampleKey


@dataclass(frozen=True)
class InFloat64:
    """Computes in float64.

    Args:
        notes: a file that gets a line for each image that is read for training; None for none.
        pause: seconds that each such image takes: of a run that is to last while hosts come and go.
    """

    notes: str | None = None
    pause: float = 0.0

    def __call__(self) -> None:
        """Changes this process."""
        torch.set_default_dtype(torch.float64)
        read = Images.__getitem__

        def noting(images: Images, key: SampleKey) -> Any:
            if images.replace:  # those to train on
                time.sleep(self.pause)
                if self.notes is not None:
                    with open(self.notes, "a", encoding="utf-8") as file:
                        file.write(f"{key.epoch} {key.image}\n")
            return read(images, key)

        Images.__getitem__ = noting  # type: ignore[method-assign]


if __name__ == "__main__":
    InFloat64(pause=float(sys.argv[1]))()
    sys.exit(main(sys.argv[2:]))
