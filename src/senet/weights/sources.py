"""From what a user calls weights to a file on this machine."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from senet.errors import OptionError, WeightsError
from senet.weights.containers import KINDS
from senet.weights.hub import Located, download, download_url
from senet.weights.published import find

FORMS = f"{KINDS}, timm:TAG, hf:ORG/NAME, hf:ORG/NAME@REVISION"

# A description is small; what is larger is something else of the same name.
_MOST_CONFIG = 1_000_000


def is_remote(weights: str | Path) -> bool:
    """Whether this names weights that are published, not a file of this machine."""
    named = isinstance(weights, str) and weights.startswith(("hf:", "timm:"))
    return named and not _exists(Path(weights))


def locate(weights: str | Path) -> Located:
    """The file, fetched if it is published and not here yet.

    Args:
        weights: a path, a run folder, ``timm:TAG`` such as ``timm:seresnet50.ra2_in1k``,
            ``hf:ORG/NAME[/FILE][@REVISION]``.

    Raises:
        OptionError: it is neither a path nor a name of one of these forms.
        WeightsError: there is no such file or repository, or it cannot be fetched.
    """
    if is_remote(weights):
        return _published(str(weights))
    path = Path(weights)
    if not _exists(path) and ":" in str(weights):
        known = find(str(weights))
        raise OptionError(
            f"weights {str(weights)!r}",
            found="nothing can fetch them" if known else "there is no such file, and no such form",
            allowed=FORMS,
            do=f"Name the path of the file once you have it: {known.note}." if known else "",
        )
    return Located(str(weights), path, {})


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # no name that a file can have
        return False


def config_beside(path: Path) -> Mapping[str, Any]:
    """The config.json beside a file, as repositories of the hub have it; empty if there is none."""
    config = path.parent / "config.json"
    try:
        if not config.is_file() or config.stat().st_size > _MOST_CONFIG:
            return {}
        found = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(
            f"weights {str(path)!r}",
            found=f"{config.name} beside it cannot be read ({error})",
            do="Repair it or take it away: it may say how the weights are to be used.",
        ) from error
    return found if isinstance(found, dict) else {}


def _published(name: str) -> Located:
    known = find(name)
    if known is None:
        return download(name if name.startswith("hf:") else f"hf:timm/{name.removeprefix('timm:')}")
    if known.url is not None:
        return download_url(known.url)
    return download(f"hf:{known.hub}" + (f"@{known.revision}" if known.revision else ""))
