"""For the layouts of libraries that no test installs: facts recorded from them, and files such as theirs."""

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from senet import SEConfig
from senet.models.registry import NetworkConfig, info
from senet.weights import Weights, recognise
from senet.weights.keys import Tensors, to_theirs
from senet.weights.layout import Layout
from senet.weights.layouts import LAYOUTS


def deep_ones_slow(names: Iterable[str]) -> list[Any]:
    """The names for pytest; networks of 100 layers and more are left to ``--slow``."""
    return [pytest.param(name, marks=pytest.mark.slow if re.search(r"1\d\d", name) else ()) for name in names]


def layouts(library: str, name: str) -> list[Layout]:
    """Those of a library that have our network ``name``."""
    return [layout for layout in LAYOUTS if layout.library == library and name in layout.networks]


def theirs(layout: Layout, name: str) -> Tensors:
    """The tensors of the library's network, without memory, by the library's names."""
    tensors, unknown = to_theirs(layout.rows, _ours(layout, name))
    assert not unknown
    return tensors


def fingerprint(tensors: Tensors) -> tuple[int, str]:
    """How many tensors, and the start of the SHA-256 of lines such as "fc.bias 10", sorted."""
    lines = sorted(f"{key} {'x'.join(map(str, tensor.shape))}" for key, tensor in tensors.items())
    return len(lines), hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]


def recognised(layout: Layout, name: str, folder: Path) -> Weights:
    """What is made of a file in the library's names; asserts that every tensor comes back as it was.

    The tensors are small ones of the right rank, each other than the rest.
    """
    ours = {key: _small(tensor, index) for index, (key, tensor) in enumerate(_ours(layout, name).items())}
    tensors, unknown = to_theirs(layout.rows, ours)
    assert not unknown
    save_file(tensors, folder / "theirs.safetensors")
    found = recognise(folder / "theirs.safetensors")
    assert found.tensors.keys() == ours.keys()
    assert all(torch.equal(found.tensors[key], tensor) for key, tensor in ours.items())
    return found


def _ours(layout: Layout, name: str) -> Tensors:
    se = SEConfig(width_rule=layout.width_rule, hidden=layout.hidden, bias=layout.bias)
    known = info(name)
    config = NetworkConfig(
        name,
        known.classes,
        se=se if known.se else None,
        layout=layout.sits,
        options=layout.options,
    )
    with torch.device("meta"):
        return dict(config.build().state_dict())


def _small(tensor: Tensor, index: int) -> Tensor:
    if tensor.ndim == 0:
        return torch.tensor(index)
    shape = [min(size, 2) for size in tensor.shape[:2]] + list(tensor.shape[2:])
    generator = torch.Generator().manual_seed(index)
    return torch.randn(shape, generator=generator)
