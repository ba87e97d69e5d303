"""Whether a file computes what the network does, and where it begins to compute something else."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from senet.acceleration.comparison import relative_change
from senet.deploy.engines import Session
from senet.errors import DeploymentError, first_line
from senet.insertion.surgery import outputs

# Bar for an artefact: of the largest number of an output, in float32.
BOUND = 1e-5
# Where rounding grows from layer to layer, PyTorch's own is the measure. Engines sum in another order: of the
# 24 bits of float32 they may lose four more, where PyTorch itself keeps 13.
_WORSE, _ROUNDED = 16, 2**-13
_BATCHES = (1, 2, 5)

# The values of an engine for images, by the paths of the modules that give them.
Values = Callable[[Tensor], Mapping[str, Tensor]]


@dataclass(frozen=True)
class Comparison:
    """What a file is compared with.

    Args:
        asked: what was asked, for errors.
        reference: the network, as it was given.
        written: the network as it was written, rewritten in PyTorch.
        example: images of the sizes that are fixed.
        free: the dimensions of any size.
    """

    asked: str
    reference: nn.Module
    written: nn.Module
    example: Tensor
    free: list[int]

    def rows(self, engine: str, session: Session, values: Values) -> Iterator[dict[str, Any]]:
        """A row a comparison; raises DeploymentError at the first that fails."""
        for images, needed in self._images():
            wanted = self._wanted(images, needed)
            if wanted is None:
                continue
            try:
                given = [torch.from_numpy(each) for each in session(images.contiguous().numpy())]
            except DeploymentError:
                if needed:
                    raise
                continue  # who refuses an image gives no wrong number
            error = _difference(wanted, given)
            if not error <= BOUND:
                self._judge(engine, images, wanted, given, values)
            yield {"engine": engine, "images": " x ".join(map(str, images.shape)), "difference": error}

    def _wanted(self, images: Tensor, needed: bool) -> list[Tensor] | None:
        """What the network gives; None where it takes no such images, and need not."""
        try:
            with torch.no_grad():
                # Some networks write into their images.
                wanted = outputs(self.reference, images.clone())
        except Exception as error:  # of a network of others anything can be expected
            if not needed:
                return None
            shape = tuple(images.shape)
            raise DeploymentError(
                self.asked,
                found=f"the network does not run on images of {shape} ({first_line(error)})",
                do="Ask for one size, and one batch.",
            ) from error
        if not all(each.isfinite().any() for each in wanted):
            raise DeploymentError(
                self.asked,
                found="the network gives no finite number to compare with: nothing is written",
                do="Its weights may be lost: look whether they are finite.",
            )
        return wanted

    def _images(self) -> Iterator[tuple[Tensor, bool]]:
        """Images, and whether the network has to take them: of free sizes there are some that few do."""
        batches = _BATCHES if 0 in self.free else (len(self.example),)
        height, width = self.example.shape[2:]
        sizes = [(height, width)]
        others: list[tuple[int, int]] = []
        if 2 in self.free:
            sizes += [(height + 32, width + 64)]
            # What a network does with odd sizes and small ones alone, a file may have lost.
            others = [(height + 33, width + 31), (height // 2 | 1, width // 2 | 1)]
            others += [(max(1, height // part), max(1, width // part)) for part in (4, 8)]
        generator = torch.Generator().manual_seed(0)
        shapes = [(batch, *size, True) for batch, size in product(batches, sizes)]
        for batch, *size, needed in shapes + [(batches[0], *size, False) for size in others]:
            images = noise((batch, self.example.shape[1], *size), self.example.dtype, generator)
            yield images.contiguous(memory_format=torch.channels_last), needed

    def _judge(
        self, engine: str, images: Tensor, wanted: list[Tensor], given: list[Tensor], values: Values
    ) -> None:
        """Raises DeploymentError unless what differs is rounding, as much as the network itself has of it."""
        with torch.no_grad():
            wide = images.double() if images.is_floating_point() else images.clone()
            exact = outputs(copy.deepcopy(self.reference).double(), wide)
        own, error = _difference(exact, wanted), _difference(exact, given)
        if own > _ROUNDED:
            raise DeploymentError(
                self.asked,
                found=f"in float32 PyTorch itself is wrong by {own:g} of the largest number, and nothing can "
                "be compared: nothing is written",
                do="Load trained weights: those of a deep network without training make rounding grow.",
            )
        if not error <= max(BOUND, _WORSE * own):
            raise DeploymentError(
                self.asked,
                found=f"in {engine}, for images of {tuple(images.shape)}, it is wrong by {error:g} of the "
                f"largest number, PyTorch by {own:g}: nothing is written. "
                f"It begins {self._beginning(images, values)}",
                allowed=f"{BOUND:g}, or {_WORSE} times as much as PyTorch",
            )

    def _beginning(self, images: Tensor, values: Values) -> str:
        """Where the first number differs, in words."""
        ours = _values_in(self.reference, images)
        theirs = _values_in(self.written, images)
        # Layers are rewritten, but what holds several gives the same.
        units = [path for path in ours if any(self.reference.get_submodule(path).children())]
        found = _first(((path, ours[path]) for path in units), theirs)
        if found is not None:
            return f"before it is written, when it is rewritten, at the latest in {found}"
        try:
            found = _first(theirs.items(), values(images))
        except Exception as error:  # of an engine that is wrong anything can be expected
            return f"somewhere: its values between cannot be read ({error})"
        if found is None:
            return "nowhere when all values between are looked at: what the engine joins otherwise is wrong"
        return f"in {found}, what comes before it is right"


def noise(shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    """Images: numbers of a normal distribution, or pixels from 0 to 255."""
    if dtype == torch.uint8:
        return torch.randint(0, 256, shape, dtype=dtype, generator=generator)
    return torch.randn(shape, dtype=dtype, generator=generator)


def _first(wanted: Iterable[tuple[str, Tensor]], given: Mapping[str, Tensor]) -> str | None:
    """The first of the modules that gives something else, with how much; None where there is none."""
    for path, value in wanted:
        if path in given and not (change := relative_change(value, given[path])) <= BOUND:
            return f"{path or 'the last layer'} (wrong by {change:g} of its largest number)"
    return None


def _values_in(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """What each module gives that runs once, by its path, in the order in which they end."""
    found: dict[str, Tensor] = {}
    runs: dict[str, int] = {}

    def hook(path: str) -> Any:
        def keep(_module: nn.Module, _args: Any, result: Any) -> None:
            runs[path] = runs.get(path, 0) + 1
            if isinstance(result, Tensor):
                # The next layer may write into it.
                found[path] = result.clone()

        return keep

    handles = [module.register_forward_hook(hook(path)) for path, module in model.named_modules()]
    try:
        with torch.no_grad():
            outputs(model, images.clone())
    finally:
        for handle in handles:
            handle.remove()
    return {path: value for path, value in found.items() if runs[path] == 1}


def _difference(wanted: list[Tensor], given: list[Tensor]) -> float:
    """The largest of all outputs, each in parts of its largest number; infinite where they do not fit."""
    return max(map(relative_change, wanted, given)) if len(wanted) == len(given) else float("inf")
