"""Our weights file: safetensors, with a header that rebuilds the network and a checksum of all bytes.

The header is one JSON text under the metadata key ``senet``: ``network`` (the fields of NetworkConfig), and
what the writer adds (``preprocessing``, ``classes``, ...). It begins with ``senet.sha256``, that of the whole
file with zeros in its own place: safetensors itself notices no bit that turned over.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from senet.acceleration.pointwise import Gates
from senet.block import SqueezeExcitation
from senet.errors import OptionError, WeightsError
from senet.files import replacing
from senet.insertion.surgery import is_simplified

LAST = "last.safetensors"
BEST = "best.safetensors"

# One key, as safetensors writes several in any order, and the same weights shall be the same bytes.
_KEY = "senet"
# In its place in a file that senet wrote for another library.
_NOTE = "senet.note"
_SUM = "senet.sha256"
# Says that there has to be a sum: files from before there were any do not have it.
_VERSION = "senet.version"
_BLANK = "0" * 64
# Where the sum stands: the header is a JSON text in a JSON text.
_MARKER = json.dumps(f'"{_SUM}": "')[1:-1].encode()
# Of the format: https://github.com/huggingface/safetensors#format
_MOST_HEADER = 100_000_000
_CHUNK = 1 << 20


def save(model: nn.Module, path: str | Path, *, header: Mapping[str, Any] | None = None) -> None:
    """Writes a network's weights, whole or not at all.

    Args:
        model: any network; one of ours can be rebuilt from the file, unless SE was inserted into it.
        path: of the file, conventionally ``.safetensors``.
        header: what else the file shall carry, as JSON can hold it.

    Raises:
        WeightsError: the file cannot be written.
    """
    write(path, state_of(model), {**(header or {}), **header_of(model)})


def read(path: str | Path, *, tensors: bool = True) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The header and the tensors of a weights file of ours.

    Args:
        path: a ``.safetensors`` file, or a run folder (its last epoch's weights).
        tensors: whether to read them; False gives an empty mapping.

    Returns:
        The header (empty if the file is not of senet), and the tensors by key, on the CPU.

    Raises:
        WeightsError: there is no such file, or it is no whole safetensors file.
    """
    header, _, found = read_safetensors(file_of(path), tensors=tensors)
    return header or {}, found


def file_of(path: str | Path) -> Path:
    """The weights file that a path means: itself, or that of the last epoch in a run folder.

    Raises:
        WeightsError: there is none.
    """
    path = Path(path)
    try:
        file = path / LAST if path.is_dir() else path
        there = file.is_file()
    except (OSError, ValueError):  # no name that a file can have
        file, there = path, False
    if not there:
        raise WeightsError(
            f"weights {str(path)!r}",
            found=f"there is no file {file.name[:200]}" + (" in the folder" if file != path else ""),
            allowed="a weights file, or a run folder that has written its weights",
        )
    return file


def write(
    path: str | Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any], *, ours: bool = True
) -> None:
    """Writes a weights file, whole or not at all.

    Args:
        path: of the file.
        tensors: by key.
        header: what the file says beside them, as JSON can hold it.
        ours: whether it is a file of ours; one for another library has the header as a note, which
            only senet reads.

    Raises:
        OptionError: JSON cannot hold the header.
        WeightsError: the file cannot be written, or the tensors are none.
    """
    if any(tensor.is_meta for tensor in tensors.values()):
        raise WeightsError(f"weights.save({str(path)!r})", "the network is on meta: it has no weights")
    try:
        if {_SUM, _VERSION} & header.keys():
            raise ValueError(f"{_SUM} and {_VERSION} are not for others to set")
        text = json.dumps({_SUM: _BLANK, _VERSION: 2, **header})
    except (TypeError, ValueError) as error:
        raise OptionError(
            f"weights.save({str(path)!r}, header=...)", f"JSON cannot hold it ({error})", "what JSON can hold"
        ) from error
    try:
        with replacing(path) as temporary:
            safetensors.torch.save_file(_apart(tensors), temporary, {_KEY if ours else _NOTE: text})
            _seal(temporary)
    except (OSError, safetensors.SafetensorError) as error:
        size = sum(tensor.nbytes for tensor in tensors.values())
        raise WeightsError(
            f"weights.save({str(path)!r})",
            found=f"its {size:,} bytes cannot be written ({error})",
            do="Make room, or choose another place; what stood there before is unchanged.",
        ) from error


class Read(NamedTuple):
    """What a safetensors file holds: our header, or our note in a file for another library, and tensors."""

    header: dict[str, Any] | None
    note: dict[str, Any] | None
    tensors: dict[str, Tensor]


def read_safetensors(path: Path, *, tensors: bool = True) -> Read:
    """Reads a safetensors file of any library; its tensors stay on the disk until they are used.

    Raises:
        WeightsError: it is no whole safetensors file, or one of ours that is not as it was written.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as opened:
            metadata = opened.metadata() or {}
            found = {key: opened.get_tensor(key) for key in opened.keys()} if tensors else {}  # noqa: SIM118
        sealed = _MARKER in _head(path)
        if not sealed and not metadata.keys() & {_KEY, _NOTE}:
            return Read(None, None, found)
        said = json.loads(metadata.get(_KEY, metadata.get(_NOTE, "{}")))
        if not isinstance(said, dict):
            raise ValueError("its header is no mapping")
        # A bit may have turned over in the mark, the sum or the key of the metadata, but not in all.
        if (sealed or _VERSION in said) and said.pop(_SUM, None) != _sum(path):
            raise ValueError("its bytes are not those that were written: the checksum differs")
        said.pop(_VERSION, None)
    except (OSError, ValueError, RecursionError, safetensors.SafetensorError) as error:
        raise WeightsError(
            f"weights {str(path)!r}",
            found=f"this is no whole safetensors file ({error})",
            allowed="safetensors",
            do="Fetch or write the file again.",
        ) from error
    return Read(said, None, found) if _KEY in metadata else Read(None, said, found)


def unwrapped(model: nn.Module) -> nn.Module:
    """The network in what compiles, distributes or averages it."""
    while True:
        inner = getattr(model, "_orig_mod", None)  # of a compiled model
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel | AveragedModel):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def fingerprint(model: nn.Module) -> str:
    """The SHA-256 of all tensors of a network and their names: equal for equal weights, wherever they lie."""
    found = hashlib.sha256()
    for name, tensor in sorted(unwrapped(model).state_dict().items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return found.hexdigest()


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """The network's tensors as a file holds them; those on "meta" stay there."""
    state = unwrapped(model).state_dict().items()
    for key, value in state:
        if not isinstance(value, Tensor):
            raise WeightsError(
                f"the weights of a {type(model).__name__}",
                found=f"{key} is a {type(value).__name__}",
                allowed="tensors, which are all that a file of weights holds",
            )
    # safetensors refuses strides, and channels_last is one of memory, not of the weights.
    return {
        key: value.detach() if value.is_meta else value.detach().cpu().contiguous() for key, value in state
    }


def config_of(model: nn.Module) -> dict[str, Any] | None:
    """The config of a network of ours; None for others."""
    config: Any = getattr(unwrapped(model), "config", None)
    found = config.to_dict() if hasattr(config, "to_dict") else None
    # Other libraries' networks have a config too.
    return (
        found if isinstance(found, dict) and {"name", "layout", "placement", "se"} <= found.keys() else None
    )


def header_of(model: nn.Module) -> dict[str, Any]:
    """What the network says of itself: what rebuilds it, or what its inserted SE blocks do."""
    network = config_of(model)
    # A network that SE was put into, or that was simplified, is no longer the one that its config builds.
    inserted = any(getattr(module, "inserted", False) for module in model.modules())
    if network is not None and not inserted and not is_simplified(model):
        return {"network": network}
    kinds = functions_in(model)
    return {"function": kinds[0]} if kinds and all(kind == kinds[0] for kind in kinds) else {}


def functions_in(model: nn.Module) -> list[dict[str, str]]:
    """Of each SE block what no tensor shows: its squeeze and its gate."""
    blocks = [module.config for module in model.modules() if isinstance(module, SqueezeExcitation)]
    beside = [module.kind for module in model.modules() if isinstance(module, Gates)]
    return [{"squeeze": each.squeeze, "gate": each.gate} for each in blocks] + [
        {"squeeze": "avg", "gate": gate} for gate in beside
    ]


def _seal(path: Path) -> None:
    """Puts the checksum into its place."""
    total = _sum(path)
    with path.open("r+b") as file:
        file.seek(_place(_head(path)))
        file.write(total.encode())


def _sum(path: Path) -> str:
    """The SHA-256 of the file with zeros for the checksum."""
    head = _head(path)
    place = _place(head)
    digest = hashlib.sha256(head[:place] + _BLANK.encode() + head[place + len(_BLANK) :])
    with path.open("rb") as file:
        file.seek(len(head))
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _head(path: Path) -> bytes:
    """Safetensors' own header, and its length before it."""
    with path.open("rb") as file:
        length = file.read(8)
        return length + file.read(min(int.from_bytes(length, "little"), _MOST_HEADER))


def _place(head: bytes) -> int:
    """Where the checksum stands."""
    place = head.find(_MARKER)
    if place < 0:
        raise ValueError("its checksum is damaged")
    return place + len(_MARKER)


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, those that share memory copied: the format has no word for sharing."""
    seen: set[int] = set()
    apart = {}
    for key, tensor in tensors.items():
        place = tensor.untyped_storage().data_ptr()
        apart[key] = tensor.clone() if place in seen or not tensor.is_contiguous() else tensor
        seen.add(place)
    return apart
