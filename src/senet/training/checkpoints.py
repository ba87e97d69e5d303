"""The checkpoints of a run: written whole or not at all, sealed, and the last two kept."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from senet.errors import RunError, WeightsError
from senet.weights.store import read_safetensors, write

_KEPT = 2


class Checkpoints:
    """The checkpoints in a folder: a safetensors file each, named by its step, with a checksum of its bytes.

    Args:
        folder: where they are; it is there already.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def paths(self) -> list[Path]:
        """Their files, the newest first."""
        return sorted(self.folder.glob("step-*.safetensors"), reverse=True)

    def save(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Writes a checkpoint and drops those before the one before it.

        Raises:
            RunError: a tensor is not finite.
            WeightsError: the file cannot be written. What was there is unchanged, as in the other case.
        """
        path = self.folder / f"step-{facts['step']:010d}.safetensors"
        held = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
        check_finite(f"the checkpoint of step {facts['step']}", held)
        write(path, held, facts)
        # Those of later steps are damaged, or of a future that is done again.
        older = [each for each in self.paths() if each.name < path.name]
        for each in {*self.paths()} - {path, *older[: _KEPT - 1]}:
            each.unlink(missing_ok=True)

    def load(self, warn: Callable[[str], None]) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The newest checkpoint that is whole, None where none was ever written.

        Args:
            warn: takes a line for each that is not.

        Raises:
            RunError: there are some, and none is whole.
        """
        paths = self.paths()
        for path in paths:
            try:
                header, _, tensors = read_safetensors(path)
                if header is None:
                    raise WeightsError(f"the checkpoint {str(path)!r}", "it is no file of senet")
            except WeightsError as error:
                warn(f"WARNING  a checkpoint is damaged, the one before it is taken: {error}")
                continue
            # Out of the file, which is dropped after the next saves.
            return {key: tensor.clone() for key, tensor in tensors.items()}, header
        if paths:
            raise RunError(
                f"the checkpoints in {str(self.folder)!r}",
                found=f"none of the {len(paths)} is whole",
                do="Start the run again, in another folder.",
            )
        return None


def sweep(folder: Path) -> None:
    """Removes what a process that was killed while it wrote left behind."""
    for path in folder.glob(".*.tmp"):
        if path.is_file():
            os.unlink(path)


def check_finite(asked: str, tensors: Mapping[str, Tensor]) -> None:
    """Raises RunError for a tensor that is not to be kept."""
    for key, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise RunError(
                asked,
                found=f"{key} is not finite",
                do="Lower --lr or raise --warmup; what was written before is whole.",
            )
