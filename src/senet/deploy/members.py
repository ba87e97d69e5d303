"""Exported files among the networks to evaluate and to predict with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from senet.data import Splits
from senet.data.preprocessing import Preprocessing
from senet.deploy.artefact import Artefact, ExportedNetwork, is_artefact, opened_artefact
from senet.errors import OptionError, require
from senet.evaluation.members import Member, member_named, said_preprocessing
from senet.models import load, weights_named
from senet.models.foreign import is_foreign


class _Pixels(Preprocessing):
    """For a file that normalises by itself."""

    def normalise(self, images: Tensor) -> Tensor:
        """The pixels as they are."""
        return images


@dataclass(frozen=True)
class ExportedMember(Member):
    """An exported file.

    Args:
        artefact: the file, opened.
    """

    artefact: Artefact

    def network(self, splits: Splits | None = None) -> nn.Module:
        """A module that its engine computes."""
        return ExportedNetwork(self.artefact)

    def preprocessing(self, splits: Splits | None, words: str | None) -> Preprocessing:
        """How images are prepared, with pixels as they are where the file takes these."""
        found = super().preprocessing(splits, words)
        return _Pixels.from_dict(found.to_dict()) if self.artefact.pixels else found

    def _size_of_images(self) -> int:
        fixed = self.artefact.input[2]
        if fixed > 0:
            return fixed
        said = "preprocessing" in self.header
        return said_preprocessing(self.name, self.header).size if said else super()._size_of_images()


def network_named(name: str, weights: str | None = None) -> tuple[nn.Module, Mapping[str, Any] | None]:
    """What a user names, to be exported: the network, and the header of its weights.

    Args:
        name: a run folder, weights of any origin, a registry's name, or one of another library.
        weights: for a name; None leaves a fresh network.

    Returns:
        The network, and what its weights say of themselves; None where there are none.

    Raises:
        OptionError: there is no such network.
        WeightsError: the weights cannot be read, or are of another network.
    """
    if is_artefact(name):
        raise OptionError(f"export {name!r}", "it is exported already", "a network, or its weights")
    if weights is None and (is_foreign(name) or weights_named(name) is None):
        return load(name), None
    member = member_named(name, weights)
    return member.network(), member.header


def member_of(
    name: str, weights: str | None = None, *, engine: str | None = None, device: torch.device | str = "cpu"
) -> Member:
    """What a user names: an exported file, or what ``member_named`` takes.

    Args:
        name: a path of an exported file, or a network.
        weights: of a network given by name.
        engine: see ``opened_artefact``, for exported files alone.
        device: where PyTorch runs an exported file.

    Raises:
        OptionError: an option is not for what is named, or no weights are.
        WeightsError: a file cannot be read, or is of another network.
    """
    if not is_artefact(name):
        require("engine", engine, engine is None, "None, for a network that is not exported")
        return member_named(name, weights)
    require("weights", weights, weights is None, "None, for an exported file")
    return exported_member(name, engine, device=device)


def exported_member(
    path: str, engine: str | None = None, *, device: torch.device | str = "cpu"
) -> ExportedMember:
    """An exported file by its path; see ``opened_artefact`` for the arguments and the errors."""
    artefact = opened_artefact(path, engine, device=device)
    return ExportedMember(path, path, artefact.header, None, artefact)
