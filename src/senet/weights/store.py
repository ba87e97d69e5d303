"""Our weights file: safetensors, with a header that rebuilds the network.

The header is one JSON text under the metadata key ``senet``: ``network`` (the fields of
NetworkConfig), and what the writer adds (``preprocessing``, ``classes``, ...).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor, nn

from senet.errors import OptionError, WeightsError
from senet.files import replacing

LAST = "last.safetensors"
BEST = "best.safetensors"

_KEY = "senet"


def save(
    model: nn.Module, path: str | Path, layout: str = "senet", *, header: Mapping[str, Any] | None = None
) -> None:
    """Writes a network's weights, whole or not at all.

    Args:
        model: any network; one of ours can be rebuilt from the file, unless SE was inserted into it.
        path: of the file, conventionally ``.safetensors``.
        layout: "senet", the only one so far.
        header: what else the file shall carry, as JSON can hold it.

    Raises:
        OptionError: the layout is unknown.
        WeightsError: the file cannot be written.
    """
    if layout != "senet":
        raise OptionError(f"weights.save(layout={layout!r})", "it is unknown", "senet")
    model = getattr(model, "_orig_mod", model)  # of a compiled model
    content = dict(header or {})
    config = getattr(model, "config", None)
    # A network that SE was put into is no longer the one that its config builds.
    inserted = any(getattr(module, "inserted", False) for module in model.modules())
    if config is not None and hasattr(config, "to_dict") and not inserted:
        content["network"] = config.to_dict()
    # safetensors refuses strides, and channels_last is one of memory, not of the weights.
    tensors = _apart({key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()})
    try:
        with replacing(path) as temporary:
            safetensors.torch.save_file(tensors, temporary, {_KEY: json.dumps(content)})
    except (OSError, safetensors.SafetensorError) as error:
        raise WeightsError(
            f"weights.save({str(path)!r})",
            found=f"the file cannot be written ({error})",
            do="What stood there before is unchanged.",
        ) from error


def read(path: str | Path, *, tensors: bool = True) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The header and the tensors of a weights file.

    Args:
        path: a ``.safetensors`` file, or a run folder (its last epoch's weights).
        tensors: whether to read them; False gives an empty mapping.

    Returns:
        The header (empty if the file is not of senet), and the tensors by key, on the CPU.

    Raises:
        WeightsError: there is no such file, or it is no whole safetensors file.
    """
    path = Path(path)
    file = path / LAST if path.is_dir() else path
    asked = f"weights.read({str(path)!r})"
    try:
        with safetensors.safe_open(file, framework="pt") as opened:
            header = json.loads((opened.metadata() or {}).get(_KEY, "{}"))
            found = {key: opened.get_tensor(key) for key in opened.keys()} if tensors else {}  # noqa: SIM118
    except FileNotFoundError as error:
        raise WeightsError(
            asked,
            found=f"there is no file {file.name}" + (" in the folder" if path.is_dir() else ""),
            allowed="a .safetensors file, or a run folder that has written its weights",
        ) from error
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise WeightsError(
            asked,
            found=f"this is no whole safetensors file ({error})",
            allowed="safetensors",
            do="Fetch or write the file again.",
        ) from error
    return header if isinstance(header, dict) else {}, found


def load(model: nn.Module, path: str | Path) -> None:
    """Loads weights into a network: every key and every shape fits, or nothing is changed.

    Args:
        model: the network.
        path: a ``.safetensors`` file, or a run folder (its last epoch's weights).

    Raises:
        WeightsError: the file is unreadable, or keys or shapes do not fit.
    """
    header, tensors = read(path)
    model = getattr(model, "_orig_mod", model)  # of a compiled model
    _check_function(model, path, header)
    state = model.state_dict()
    misfits = {
        "missing in the file": sorted(state.keys() - tensors.keys()),
        "unknown to the network": sorted(tensors.keys() - state.keys()),
        "of another shape": [
            f"{key} {tuple(tensors[key].shape)}, not {tuple(state[key].shape)}"
            for key in state.keys() & tensors.keys()
            if tensors[key].shape != state[key].shape
        ],
        "of another kind of number": [
            f"{key} {tensors[key].dtype}, not {state[key].dtype}"
            for key in state.keys() & tensors.keys()
            if tensors[key].is_floating_point() != state[key].is_floating_point()
        ],
    }
    found = "; ".join(
        f"{len(keys)} {what} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"
        for what, keys in misfits.items()
        if keys
    )
    if found:
        raise WeightsError(
            f"weights.load(model, {str(path)!r})",
            found=f"the tensors do not fit: {found}",
            allowed="every key of the network, each in its shape and kind",
            do="Build the network as it was when it was saved, or use senet.load(path).",
        )
    # A network on "meta" has no memory to copy into: it takes the file's tensors as its own.
    tensors = {key: tensor.to(state[key].dtype) for key, tensor in tensors.items()}
    model.load_state_dict(tensors, assign=any(tensor.is_meta for tensor in state.values()))


def _check_function(model: nn.Module, path: str | Path, header: Mapping[str, Any]) -> None:
    """Raises WeightsError where the file's network computes something else of the same tensors."""
    config: Any = getattr(model, "config", None)
    theirs = header.get("network")
    if not isinstance(theirs, dict) or not hasattr(config, "to_dict"):
        return

    def function(network: Mapping[str, Any]) -> dict[str, Any]:
        # What neither keys nor shapes show; where SE stands and what it does only if there is any.
        se = network.get("se")
        said = {**network, **se} if isinstance(se, dict) else {"layout": network.get("layout", "modern")}
        return {key: said[key] for key in ("layout", "placement", "squeeze", "gate") if key in said}

    ours, saved = function(config.to_dict()), function(theirs)
    differing = [
        f"{key} {saved[key]}, not {ours[key]}"
        for key in ours.keys() & saved.keys()
        if saved[key] != ours[key]
    ]
    if differing:
        raise WeightsError(
            f"weights.load(model, {str(path)!r})",
            found=f"the weights are of a network with {'; '.join(differing)}",
            allowed="the network they were saved from: others take the tensors and compute other things",
            do="Use senet.load(path), or build the network like that.",
        )


def _apart(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, those that share memory copied: the format has no word for sharing."""
    seen: set[int] = set()
    apart = {}
    for key, tensor in tensors.items():
        place = tensor.untyped_storage().data_ptr()
        apart[key] = tensor.clone() if place in seen else tensor
        seen.add(place)
    return apart
