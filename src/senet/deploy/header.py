"""What a file for other engines says of itself: classes, how images are prepared, where it comes from.

It is one JSON text under the key ``senet``, in the metadata of an ONNX file and among the extra files of a
PyTorch one, with the same names as in the header of a weights file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from senet import __version__
from senet.errors import OptionError, WeightsError

KEY = "senet"
_KINDS = {"classes": list, "class_order": str, "data": str, "preprocessing": dict}


def written(asked: str, header: Mapping[str, Any], **more: Any) -> str:
    """The header as text; OptionError where JSON cannot hold it."""
    try:
        return json.dumps({"version": __version__, **header, **more})
    except (TypeError, ValueError) as error:
        raise OptionError(
            f"{asked}: header", f"JSON cannot hold it ({error})", "what JSON can hold"
        ) from error


def read(path: object, text: str | None) -> dict[str, Any]:
    """The header in a file, empty where it is not of senet; WeightsError where it is none."""
    if not text:
        return {}
    try:
        found = json.loads(text)
        if not isinstance(found, dict):
            raise ValueError("it is no mapping")
        for name, kind in _KINDS.items():
            if name in found and not isinstance(found[name], kind):
                raise ValueError(f"{name} is no {kind.__name__}")
    except (ValueError, RecursionError) as error:
        raise WeightsError(
            f"{str(path)!r}", f"what the file says of itself is unreadable ({error})", do="Export it again."
        ) from error
    return found
