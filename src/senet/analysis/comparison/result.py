"""What one finished run gave, as its run folder keeps it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from senet.errors import OptionError, check_options


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """One run, at its end.

    Args:
        test_top1: accuracy of the last epoch's weights on the test images, in per cent.
        test_top5: the same among the first five classes.
        test_loss: mean cross-entropy on them.
        test_images: how many they are.
        train_top1: accuracy of the same weights on training images, evaluated as the test images are: without
            augmentation, batch norm with its running statistics. In per cent.
        train_loss: mean cross-entropy on them.
        train_images: how many of them were looked at.
        best_top1: the highest ``test_top1`` of all epochs. It is chosen on the test images: never compared.
        epochs: how many.
        steps: how many in all of them.
        parameters: of the network.
        macs: multiply-adds of one image.
        seconds_per_step: median over the epochs.
        saved_bytes: what autograd keeps for the backward pass, an image; None where it was not measured.
        peak_bytes: the most that was allocated on the GPU; None without one.
        seconds: that the training steps of all epochs took; testing is not in them.
        device: that it ran on.
        processes: how many of them trained it together.
    """

    test_top1: float
    test_top5: float
    test_loss: float
    test_images: int
    train_top1: float
    train_loss: float
    train_images: int
    best_top1: float
    epochs: int
    steps: int
    parameters: int
    macs: int
    seconds_per_step: float
    saved_bytes: int | None
    peak_bytes: int | None
    seconds: float
    device: str
    processes: int

    @property
    def test_error(self) -> float:
        """Top-1, in per cent."""
        return 100 - self.test_top1

    @property
    def test_error5(self) -> float:
        """Top-5, in per cent."""
        return 100 - self.test_top5

    @property
    def train_error(self) -> float:
        """Top-1 on the training images, in per cent."""
        return 100 - self.train_top1

    def to_dict(self) -> dict[str, Any]:
        """All fields, as JSON can hold them."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The result that ``to_dict`` wrote.

        Raises:
            OptionError: a field is missing, unknown, or of a value that no run gives.
        """
        fields = dataclasses.fields(cls)
        check_options(cls.__name__, values, [field.name for field in fields])
        for field in fields:
            kind, value = str(field.type), values.get(field.name)
            if field.name not in values or not _possible(field.name, kind, value):
                found = repr(value) if field.name in values else "it is missing"
                raise OptionError(
                    f"the {field.name} of a result", found, allowed=_ALLOWED[kind] + _least(field.name)
                )
        return cls(**values)


_KINDS: dict[str, tuple[type, ...]] = {
    "float": (float, int),
    "int": (int,),
    "int | None": (int, type(None)),
    "str": (str,),
}
_ALLOWED = {
    "float": "a finite number",
    "int": "a whole number",
    "int | None": "a whole number, or null",
    "str": "text",
}
# What at least one is counted of.
_COUNTED = ("test_images", "train_images", "processes")


def _least(name: str) -> str:
    if name == "device":
        return ""
    return " from 0 to 100" if "_top" in name else f" of at least {int(name in _COUNTED)}"


def _possible(name: str, kind: str, value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, _KINDS[kind]):
        return False
    if isinstance(value, int | float):
        most = 100 if "_top" in name else math.inf
        return math.isfinite(value) and int(name in _COUNTED) <= value <= most
    return True
