"""The catalogue of published weights for our networks: where they are, and what was published of them.

``published.yaml`` holds the facts and says how to read it. Nothing in it is measured by us.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from senet.errors import OptionError


@dataclass(frozen=True, kw_only=True)
class PublishedWeights:
    """One set of weights for ImageNet-1k that fits a network of ours exactly.

    Args:
        name: what ``weights=`` takes, such as "timm:seresnet50.ra2_in1k"; a file of "caffe:", which nothing
            can fetch, is given by its path instead.
        network: a name of the registry.
        architecture: the other library's name of it.
        file_layout: how its tensors are named and shaped: "timm", "cadene" or "caffe".
        layout: of the network, "modern" or "original".
        where: a repository of the Hugging Face hub, a URL, or None for a file to be fetched by hand.
        revision: of the repository, where the library that reads it pins one.
        licence: of the weights, as their publisher states it, else "not stated".
        preprocessing: of the evaluation that gave the accuracies, as a header of ours has it.
        top1: the published accuracy in percent, with its digits.
        top5: the same.
        source: where the accuracies are from.
        note: what else one should know, or an empty text.
    """

    name: str
    network: str
    architecture: str
    file_layout: str
    layout: str
    where: str | None
    revision: str | None = None
    licence: str
    preprocessing: Mapping[str, Any] = field(hash=False)
    top1: str
    top5: str
    source: str
    note: str = ""

    @property
    def url(self) -> str | None:
        """Where the file itself is, None if it is in a repository of the hub or fetched by hand."""
        return self.where if self.where is not None and "://" in self.where else None

    @property
    def hub(self) -> str | None:
        """The repository of the Hugging Face hub, if it is in one."""
        return self.where if self.url is None else None


@cache
def all_published() -> tuple[PublishedWeights, ...]:
    """All of the catalogue; the SE authors' own release comes first."""
    return tuple(weights for each in _read()["sets"] for weights in _set(**each))


def published_weights(network: str) -> tuple[PublishedWeights, ...]:
    """The weights for a network, by its name in the registry; one that has none has none."""
    return tuple(weights for weights in all_published() if weights.network == network)


def find(name: str) -> PublishedWeights | None:
    """The weights of that name, None if the catalogue lacks them.

    Args:
        name: as ``weights=`` takes it; "timm:NAME" without a tag if there is only one.

    Raises:
        OptionError: there are several tags, or these weights fit no network of ours.
    """
    library, _, architecture = name.partition(":")
    reason = _read()["refused"].get(name.partition(".")[0])
    if reason is not None:
        raise OptionError(
            f"weights {name!r}",
            found=f"they fit no network of senet: {reason}",
            do=f"Use them in {library} itself.",
        )
    # Only timm has tags.
    tagged = [
        weights
        for weights in all_published()
        if weights.name == name or weights.name.partition(".")[0] == name == f"timm:{architecture}"
    ]
    if len(tagged) > 1:
        raise OptionError(
            f"weights {name!r}",
            found=f"there are {len(tagged)} of that name, told apart by a tag",
            allowed=", ".join(weights.name for weights in tagged),
        )
    return tagged[0] if tagged else None


def _set(columns: Any, rows: Any, *, name: Any, where: Any, **shared: Any) -> Iterator[PublishedWeights]:
    for key, values in rows.items():
        row = dict(zip(columns, values, strict=True))
        file = row.pop("file", "")
        preprocessing = _read()["preprocessing"][row.pop("preprocessing")]
        yield PublishedWeights(
            name=name.format(key=key),
            architecture=key.partition(".")[0],
            where=where and where.format(key=key, file=file),
            preprocessing=preprocessing,
            **shared,
            **row,
        )


@cache
def _read() -> dict[str, Any]:
    text = Path(__file__).with_name("published.yaml").read_text(encoding="utf-8")
    read: dict[str, Any] = yaml.safe_load(text)
    return read
