"""From what a user names to a network that can be looked at on images, with weights of any origin or none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from senet import weights as weight_files
from senet.data import Splits, open_data
from senet.data.preprocessing import Preprocessing, preprocessing_for, preprocessing_named
from senet.errors import OptionError
from senet.evaluation.members import check_scores, check_size, declared_size, member_named
from senet.models import build, info, list_models, load, weights_named
from senet.models.foreign import is_foreign
from senet.runtime.device import device_named


@dataclass(frozen=True)
class Subject:
    """A network with the images to look at it on.

    Args:
        name: as the user calls it.
        network: in evaluation mode, channels-last, on the device.
        splits: the images.
        preprocessing: how they are prepared for it.
        device: where it is.
        weights: where its weights are from, None for fresh ones.
    """

    name: str
    network: nn.Module
    splits: Splits
    preprocessing: Preprocessing
    device: torch.device
    weights: str | None

    @property
    def random(self) -> bool:
        """Whether its weights are fresh, so that what is seen says nothing of a trained network."""
        return self.weights is None


def subject_named(
    model: str,
    *,
    data: str | None = None,
    weights: str | None = None,
    preprocessing: str | None = None,
    device: str = "auto",
) -> Subject:
    """The network that a user names, with weights if there are any, and its images.

    Args:
        model: a run folder, weights of any origin, a name of ``senet models``, ``timm:NAME``,
            ``torchvision:NAME`` or ``package.module:factory``.
        data: see ``open_data``; None takes what the weights were trained on.
        weights: for a name; None leaves them random.
        preprocessing: "data", decided by the images, or as ``preprocessing_named`` takes it; None: what the
            weights say, and for those that say nothing "data".
        device: auto, cpu, cuda, ...

    Raises:
        OptionError: no data is named, or a value is not allowed.
        WeightsError: the weights cannot be read, or do not fit the network, the images or the classes.
        DataError: the data is missing.
        MissingExtraError: the library that the name is of is not installed.
    """
    place = device_named(device)
    foreign = is_foreign(model)
    named = weights if foreign or weights is not None else weights_named(model)
    if foreign:
        splits = _opened(model, data)
        network = load(model)
        header = {} if weights is None else weight_files.load(network, weights).header
        prepared = _prepared(model, network, splits, preprocessing, header.get("preprocessing"))
    elif named is not None:
        member = member_named(model, weights)
        splits = _opened(model, data or member.header.get("data"))
        prepared = member.preprocessing(splits, preprocessing)
        member.check_classes(splits)
        network = member.network(splits)
    else:
        splits = _opened(model, data)
        network = build(model, num_classes=len(splits.classes), in_channels=splits.channels)
        prepared = _prepared(model, network, splits, preprocessing)
    network.eval().to(place, memory_format=torch.channels_last)  # type: ignore[call-overload]
    scores = check_size(network, prepared, model, option="--preprocessing")
    if named is not None:
        check_scores(scores, model, splits)
    return Subject(model, network, splits, prepared, place, None if named is None else str(named))


def _opened(model: str, data: str | None) -> Splits:
    if data is None:
        raise OptionError(f"{model!r}", "no data is named, here or in the weights", do="Give --data.")
    return open_data(data)


def _prepared(
    model: str,
    network: nn.Module,
    splits: Splits,
    words: str | None,
    said: Mapping[str, Any] | None = None,
) -> Preprocessing:
    """The preprocessing by the user's words, or by what the weights say, or by the images."""
    if words not in (None, "data") or (words is None and said is not None):
        found = (
            Preprocessing.from_dict(said)
            if said is not None and words is None
            else preprocessing_named(str(words))
        )
        if found.channels == splits.channels:
            return found
        raise OptionError(
            f"--preprocessing {words}",
            found=f"it is for images of {found.channels} channels, the data has {splits.channels}",
            do="Say data, or name other images.",
        )
    size = info(model).input_size[1] if model in list_models() else declared_size(network)
    return preprocessing_for(splits.train, splits.channels, image_size=None, network_size=size)
