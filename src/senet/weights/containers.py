"""The kinds of file that weights come in, told apart by their first bytes: safetensors, PyTorch's, Caffe's.

Nothing in a file is executed: PyTorch's pickles are read with ``weights_only=True``.
"""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from senet.errors import WeightsError
from senet.weights.caffemodel import CaffeLayer, read_caffemodel
from senet.weights.keys import Tensors
from senet.weights.store import file_of, read_safetensors

KINDS = "a .safetensors file, a run folder, a .pth file of a state dict, a .caffemodel file"

# In what PyTorch says of a pickle that it refuses, and of one that would call something.
_REFUSED = "WeightsUnpickler error:"
_CODE = re.compile(r"GLOBAL (\S+)")

# Under what training programs put the state dict beside other things, the first that is there.
_WRAPPED = (
    "state_dict",
    "model_state_dict",
    "model",
    "network",
    "net",
    "weights",
    "state_dict_ema",
    "params",
)
# What wrappers put before every key.
_PREFIXES = ("module.", "_orig_mod.", "model.")

_ZIP = b"PK\x03\x04"
_MOST_TENSORS = 100_000

# The layers of Caffe that may have blobs, and how many dimensions those have.
_RANKS = {"Convolution": (4, 1), "InnerProduct": (2, 1), "Scale": (1, 1), "BatchNorm": (1, 1, 1)}


@dataclass(frozen=True)
class Contents:
    """What a file holds, in its own names.

    Args:
        path: of the file.
        kind: "safetensors", "pytorch" or "caffe".
        tensors: by key; they stay on the disk until they are used, where the kind allows it.
        header: ours; None where the file is not of senet.
        note: what senet noted in a file that it wrote for another library; None where it did not.
    """

    path: Path
    kind: str
    tensors: Tensors
    header: dict[str, Any] | None = None
    note: dict[str, Any] | None = None


def open_weights(path: str | Path) -> Contents:
    """Opens a weights file of any kind.

    Args:
        path: of the file, or of a run folder (its last epoch's weights).

    Raises:
        WeightsError: there is no such file, or it is of no known kind, broken, or hostile.
    """
    file = file_of(path)
    try:
        with file.open("rb") as opened:
            start = opened.read(16)
        size = file.stat().st_size
    except OSError as error:
        raise WeightsError(f"weights {str(path)!r}", f"the file cannot be read ({error})") from error
    kind = _kind(file, start, size)
    header = note = None
    if kind == "safetensors":
        header, note, tensors = read_safetensors(file)
    elif kind == "caffe":
        tensors = _of_caffe(file, read_caffemodel(file))
    else:
        tensors = _of_pytorch(file, zipped=start.startswith(_ZIP))
    if len(tensors) > _MOST_TENSORS or not (tensors or header is not None):
        raise WeightsError(
            f"weights {str(path)!r}",
            found=f"it holds {len(tensors):,} tensors",
            allowed=f"1 to {_MOST_TENSORS:,}",
        )
    return Contents(file, kind, tensors if header is not None else _bare(tensors), header, note)


def _bare(tensors: Tensors) -> Tensors:
    """The tensors without what wrappers put before every key."""

    def common() -> str | None:
        return next((each for each in _PREFIXES if all(key.startswith(each) for key in tensors)), None)

    while tensors and (found := common()):
        tensors = {key.removeprefix(found): tensor for key, tensor in tensors.items()}
    return tensors


def _kind(path: Path, start: bytes, size: int) -> str:
    if start.startswith(_ZIP):
        return "pytorch"
    # Safetensors begin with the length of a JSON mapping.
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= size:
        return "safetensors"
    if start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "pytorch"
    if path.suffix == ".safetensors":
        return "safetensors"
    # A message of protobuf has no mark of its own; this one begins with its name.
    if path.suffix == ".caffemodel" or start[:1] == b"\n":
        return "caffe"
    text = start.lstrip()[:1] in (b"<", b"{") or start.startswith(b"version https")
    raise WeightsError(
        f"weights {str(path)!r}",
        found="the file is empty"
        if not size
        else f"it begins with {start!r}, as no weights do"
        + (": it looks like a page or a pointer that was saved in place of the file" if text else ""),
        allowed=KINDS,
        do="Fetch the file again.",
    )


def _of_pytorch(path: Path, *, zipped: bool) -> Tensors:
    try:
        if zipped:
            _check_stored(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # A legacy file cannot be mapped into memory.
            found = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except MemoryError as error:
        raise _broken(path, "it asks for more memory than there is") from error
    except Exception as error:  # of many kinds, for a file that is not as PyTorch wrote it
        raise _broken(path, _said(error)) from error
    return _state(path, found)


def _said(error: Exception) -> str:
    """What PyTorch says, of its advice only what it is about."""
    words = str(error).strip() or "without words"
    code = _CODE.search(words)
    if code:
        return f"it holds {code[1]}, which is code and not tensors"
    # It begins with how to run a pickle nonetheless.
    words = words.partition(_REFUSED)[2].strip() or words
    return f"{type(error).__name__}: {words.splitlines()[0]}"


def _broken(path: Path, reason: str) -> WeightsError:
    return WeightsError(
        f"weights {str(path)!r}",
        found=f"PyTorch reads no weights from it ({reason[:200]})",
        allowed="what torch.save(model.state_dict(), path) writes; nothing in a file is executed",
        do="Fetch the file again; or, if it holds a whole pickled network of yours, save its state dict.",
    )


def _check_stored(path: Path) -> None:
    """Raises unless the archive is as PyTorch writes it: what is packed could be of any size."""
    with zipfile.ZipFile(path) as archive:
        packed = [each.filename for each in archive.infolist() if each.compress_type != zipfile.ZIP_STORED]
        total = sum(each.file_size for each in archive.infolist())
    if packed or total > path.stat().st_size:
        raise ValueError(f"the archive is compressed ({', '.join(packed[:3])})")


def _state(path: Path, found: Any) -> Tensors:
    """The state dict in what was unpickled."""
    for key in _WRAPPED:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
            break
    if not isinstance(found, Mapping) or not found or len(found) > _MOST_TENSORS:
        raise _broken(
            path, f"it holds a {type(found).__name__}, no mapping of up to {_MOST_TENSORS:,} tensors"
        )
    for key, tensor in found.items():
        reason = _unfit(key, tensor)
        if reason:
            raise _broken(path, f"{str(key)[:80]!r} {reason}")
    return {key: tensor.detach() for key, tensor in found.items()}


def _unfit(key: Any, tensor: Any) -> str:
    """Why this is no tensor of a state dict, or an empty string."""
    if not isinstance(key, str):
        return "is no name of a tensor"
    if not isinstance(tensor, Tensor):
        return f"is a {type(tensor).__name__}, not a tensor"
    if tensor.is_meta:
        return "has no data: it was saved from meta"
    if tensor.layout is not torch.strided or tensor.is_quantized:
        return "is sparse or quantized"
    # A tensor of stride 0 takes no room in the file, and all that there is when it is copied.
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        return "is larger than what is stored of it"
    return ""


def _of_caffe(path: Path, layers: Mapping[str, CaffeLayer]) -> Tensors:
    """The blobs of all layers as tensors by their names in PyTorch."""
    tensors: Tensors = {}
    for layer in layers.values():
        ranks = _RANKS.get(layer.type, ())
        if len(layer.blobs) > len(ranks):
            raise WeightsError(
                f"weights {str(path)!r}",
                found=f"the layer {layer.name!r} of type {layer.type!r} has {len(layer.blobs)} blobs",
                allowed=", ".join(f"{kind} with up to {len(ranks)}" for kind, ranks in _RANKS.items()),
            )
        blobs = [
            _shaped(torch.from_numpy(blob), rank) for blob, rank in zip(layer.blobs, ranks, strict=False)
        ]
        names = ("weight", "bias")
        if layer.type == "BatchNorm":
            names, blobs = ("running_mean", "running_var"), _statistics(path, layer.name, blobs)
        tensors |= {f"{layer.name}.{name}": blob for name, blob in zip(names, blobs, strict=False)}
    return tensors


def _shaped(blob: Tensor, rank: int) -> Tensor:
    """The blob with so many dimensions: in old files all have four, the first ones of size 1."""
    return blob.flatten(0, 4 - rank) if blob.ndim == 4 and set(blob.shape[: 4 - rank]) <= {1} else blob


def _statistics(path: Path, layer: str, blobs: list[Tensor]) -> list[Tensor]:
    """Mean and variance: Caffe's are sums that a third blob, the factor, divides."""
    if len(blobs) != 3 or blobs[2].numel() != 1:
        raise WeightsError(
            f"weights {str(path)!r}",
            found=f"the batch norm {layer!r} has blobs of {[tuple(blob.shape) for blob in blobs]}",
            allowed="mean, variance and one factor",
        )
    factor = blobs[2].item()
    # Caffe takes the statistics as zero then.
    return [blob / factor if factor else torch.zeros_like(blob) for blob in blobs[:2]]
