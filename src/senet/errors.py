"""One family of exceptions, and the four things each message says.

A message tells what was asked, what was found, what is allowed and what to do.
Every class also derives from the built-in exception that fits, so code that
knows nothing of senet can still catch it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SenetError(Exception):
    """Base of every error that senet raises on purpose.

    Args:
        asked: what was asked, as the caller would write it.
        found: what is there instead.
        allowed: what would be accepted.
        do: the next step, as a sentence.
    """

    def __init__(self, asked: str, found: str = "", allowed: str = "", do: str = "") -> None:
        self.found = found
        # One string in ``args``: the error then survives pickling between processes.
        message = f"{asked}: {found}." if found else asked
        if allowed:
            message += f" Allowed: {allowed}."
        if do:
            message += f" {do}"
        super().__init__(message)


class OptionError(SenetError, ValueError):
    """An argument has a value, or a name, that is not allowed."""


class UndefinedError(OptionError):
    """A combination of options is not defined, such as a reduction of 32 for 16 channels."""


class ShapeError(SenetError, ValueError):
    """A tensor's rank or sizes do not fit."""


class DtypeError(SenetError, TypeError):
    """A tensor's dtype does not fit."""


class WeightsError(SenetError, RuntimeError):
    """A weights file is unreadable, or its tensors do not fit the network."""


class DataError(SenetError, RuntimeError):
    """Images or labels are missing, unreadable or contradictory."""


class RunError(SenetError, RuntimeError):
    """A run folder cannot be used, or a run cannot go on."""


class InUseError(RunError):
    """Another process writes this run folder."""


class StoppedError(SenetError, RuntimeError):
    """A signal asked a run to stop, and it is saved."""


class BackendError(SenetError, RuntimeError):
    """A backend cannot serve the call that asks for it by name."""


class RecordingError(SenetError, RuntimeError):
    """A recording saw nothing."""


class TraceError(SenetError, RuntimeError):
    """A network could not be followed."""


class InsertionError(SenetError, ValueError):
    """SE cannot be put into this network, or removed from it."""


class AccelerationError(SenetError, ValueError):
    """There is nothing in this network to accelerate."""


class DeploymentError(SenetError, RuntimeError):
    """A network cannot be written for other engines, or the file computes something else."""


class MissingExtraError(SenetError, ImportError):
    """An optional package is needed and not installed."""

    @classmethod
    def of(cls, package: str, *, extra: str, need: str) -> MissingExtraError:
        """The error for ``package``, which the extra ``extra`` would have installed."""
        return cls(
            need,
            found=f"the package {package} is not installed",
            do=f"Install it with: pip install 'senet[{extra}]'",
        )


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """The nearest of ``known`` as a question, or an empty string."""
    nearest = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.5)
    return f"Did you mean {nearest[0]!r}?" if nearest else ""


def check_choice(asked: str, value: object, allowed: Iterable[str]) -> None:
    """Raises OptionError, naming the nearest, unless ``value`` is one of ``allowed``."""
    names = list(allowed)
    if not isinstance(value, str) or value not in names:
        raise OptionError(
            asked,
            found=f"{value!r} is unknown",
            allowed=", ".join(names),
            do=did_you_mean(value, names),
        )


def check_options(asked: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Raises OptionError, naming the nearest, unless every name of ``given`` is ``known``."""
    names = list(known)
    for name in given:
        if name not in names:
            raise OptionError(
                f"{asked}({name}=...)",
                found=f"there is no option {name!r}",
                allowed=", ".join(names),
                do=did_you_mean(name, names),
            )


def require_count(name: str, value: object) -> None:
    """Raises OptionError unless ``value`` is an integer of at least 1."""
    whole = isinstance(value, int) and not isinstance(value, bool) and value >= 1
    require(name, value, whole, "an integer of at least 1")


def require(name: str, value: object, holds: bool, allowed: str) -> None:
    """Raises OptionError for the argument ``name`` unless ``holds``."""
    if not holds:
        raise OptionError(f"{name}={value!r}", found="the value is not possible", allowed=allowed)


def first_line(error: BaseException) -> str:
    """What another library says of what went wrong in the first place."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).strip().partition("\n")[0]
