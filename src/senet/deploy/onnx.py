"""``senet.export``: a network as an ONNX file, compared with the network before it is there."""

from __future__ import annotations

import contextlib
import copy
import importlib
import logging
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from senet.acceleration.accelerate import decelerated
from senet.acceleration.comparison import relative_change
from senet.acceleration.rewriting import NORM, SQUEEZE, Left, counted
from senet.acceleration.simplify import rewritten
from senet.deploy.blocks import deploy
from senet.deploy.engines import ENGINES, opened
from senet.errors import DeploymentError, MissingExtraError, check_choice, require
from senet.files import replacing
from senet.graph.examples import trace_with
from senet.insertion.plan import check_unwrapped
from senet.insertion.surgery import outputs
from senet.models.registry import NetworkConfig, info
from senet.tables import Table

Batch = int | Literal["any"]
Size = int | tuple[int, int] | Literal["any"] | None

# ONNX Runtime 1.14 and OpenVINO 2023 read it, and all of its operators are here.
_OPSET = 18
# Bar for an artefact: of the largest number of an output, in float32.
_BOUND = 1e-5
# Where rounding grows from layer to layer, PyTorch's own is the measure. Engines sum in another order: of the
# 24 bits of float32 they may lose four more, where PyTorch itself keeps 13.
_WORSE, _ROUNDED = 16, 2**-13
_BATCHES = (1, 2, 5)


@dataclass(frozen=True)
class ExportReport:
    """What ``export`` wrote.

    Args:
        network: the class of the network.
        path: the file.
        engine: whose form SE has, None for the canonical one.
        input: the sizes that it takes, -1 for any: (N, C, H, W).
        blocks: how many SE blocks have that form.
        left: the blocks that do not, with the reason.
        nodes: how many of each operator.
        checks: a row a comparison with the network: the engine, the input, the difference in parts of the
            largest number of an output.
    """

    network: str
    path: Path
    engine: str | None
    input: tuple[int, ...]
    blocks: int
    left: tuple[Left, ...]
    nodes: Counter[str]
    checks: tuple[dict[str, Any], ...]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """A row a comparison."""
        return [dict(check) for check in self.checks]

    def __str__(self) -> str:
        form = "canonical form" if self.engine is None else f"form for {self.engine}"
        sizes = " x ".join("any" if size < 0 else str(size) for size in self.input)
        lines = [
            f"{self.network}: {self.path}",
            f"  input of {sizes}, {self.nodes.total()} nodes, {self.blocks} SE blocks in the {form}",
            *counted(self.left),
            str(Table(self.rows)),
        ]
        return "\n".join(lines)

    def save(self, path: str | Path) -> None:
        """Writes the rows as .csv, .json or .md."""
        Table(self.rows).save(path)


def export(
    model: nn.Module,
    path: str | Path,
    *,
    to: str = "onnx",
    engine: str | None = None,
    batch: Batch = "any",
    size: Size = None,
    simplify: bool = True,
) -> ExportReport:
    """Writes a network of images as a file that other engines run, in operators of the standard alone.

    The file is opened in ONNX Runtime, and in the engine that it is for, and compared with the network before
    it appears: for several batches and sizes where these are free, to 1e-5 of an output's largest number.

    Args:
        model: any CNN in float32, with SE or without, accelerated, simplified or neither; it stays as it is.
        path: of the file, .onnx; what is there is replaced.
        to: "onnx".
        engine: None writes each SE block in one canonical form, six nodes with a sigmoid gate; "openvino" the
            same, as it runs that best; "onnxruntime" in one that keeps the memory layout of its convolutions
            on a CPU, for images of one size.
        batch: how many images at a time, or "any".
        size: the height and width of the images, one number for both, or "any"; None: what the network is
            made for.
        simplify: fold batch norms, and take the squeeze before the convolution where it can be; see
            ``senet.simplify``. Gates are never put into weights: engines have their own forms of constant
            ones.

    Returns:
        The report: sizes, nodes, SE blocks, comparisons.

    Raises:
        DeploymentError: it cannot be written, or the file computes something else.
        InsertionError: the network is wrapped, compiled or scripted.
        MissingExtraError: a package of the extra ``onnx`` or ``openvino`` is not installed.
        OptionError: an option is not possible.
        TraceError: the network does not run on images of that size.

    Example:
        >>> senet.export(senet.build("se_resnet50").eval(), "se_resnet50.onnx", engine="onnxruntime")
    """
    asked = f"export({type(model).__name__}, {str(path)!r})"
    check_choice(f"{asked}: to={to!r}", to, ["onnx"])
    if engine is not None:
        check_choice(f"{asked}: engine={engine!r}", engine, ENGINES)
    require("batch", batch, batch == "any" or _is_count(batch), 'a number of at least 1, or "any"')
    pair: Any = (size, size) if _is_count(size) else size
    fits = pair in (None, "any") or (isinstance(pair, tuple) and len(pair) == 2 and all(map(_is_count, pair)))
    require("size", size, fits, 'a number of at least 1, two of them, "any" or None')
    require("size", size, (size, engine) != ("any", "onnxruntime"), 'one size, for engine="onnxruntime"')
    for package in ("onnx", "onnxscript", "onnxruntime", engine or "onnx"):
        _require_package(package)
    check_unwrapped(model)
    path = Path(path)
    if path.is_dir() or not path.parent.is_dir():
        found = (
            "there is a folder of that name" if path.is_dir() else f"there is no folder {str(path.parent)!r}"
        )
        raise DeploymentError(asked, found, allowed="a new file in a folder that exists, or one to replace")

    reference = _reference(asked, model)
    example = _example(reference, pair)
    network, blocks, left = _network(asked, reference, example, simplify, blocked=engine == "onnxruntime")
    free = ([0] if batch == "any" else []) + ([2, 3] if size == "any" else [])
    if batch != "any":
        example = example[:1].expand(batch, *example.shape[1:])
    program = _program(asked, network, example, free)
    # Small convolutions are several times as fast so on a CPU.
    reference.to(memory_format=torch.channels_last)
    engines = dict.fromkeys(("onnxruntime", engine or "onnxruntime"))
    try:
        with replacing(path) as temporary:
            program.save(str(temporary))
            checks = [
                row for each in engines for row in _checks(asked, reference, temporary, each, example, free)
            ]
    except (OSError, ValueError) as error:
        raise DeploymentError(asked, found=f"it cannot be written ({_first_line(error)})") from error
    sizes = tuple(-1 if at in free else size for at, size in enumerate(example.shape))
    nodes = Counter(node.op_type for node in program.model.graph)
    return ExportReport(type(model).__name__, path, engine, sizes, blocks, tuple(left), nodes, tuple(checks))


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _require_package(package: str) -> None:
    try:
        importlib.import_module(package)
    except ImportError as error:
        extra = "openvino" if package == "openvino" else "onnx"
        raise MissingExtraError.of(package, extra=extra, need="export(...) to ONNX") from error


def _reference(asked: str, model: nn.Module) -> nn.Module:
    """What the file shall compute: the network on the CPU as it evaluates."""
    dtypes = {each.dtype for each in model.parameters()} - {torch.float32}
    if dtypes:
        raise DeploymentError(
            asked,
            found=f"it has parameters of {min(map(str, dtypes))}",
            allowed="networks in float32",
            do="Convert it with .float().",
        )
    reference = copy.deepcopy(model).cpu().eval()
    decelerated(reference)
    return reference


def _example(model: nn.Module, size: tuple[int, int] | str | None) -> Tensor:
    """Two images of noise, of the size that is asked for, or else that which the network is made for."""
    config = getattr(model, "config", None)
    if isinstance(config, NetworkConfig):
        found: Any = torch.empty(2, config.in_channels, *info(config.name).input_size[1:])
    else:
        _, found = trace_with(model, None)
    if not isinstance(found, Tensor) or found.ndim != 4:
        raise DeploymentError(
            f"export({type(model).__name__})", found="it takes no images", allowed="networks of (N, C, H, W)"
        )
    height, width = size if isinstance(size, tuple) else found.shape[2:]
    # Not of zeros: in what is the same everywhere a wrong sum over positions is right.
    return torch.randn(2, found.shape[1], height, width, generator=torch.Generator().manual_seed(0))


def _network(
    asked: str, model: nn.Module, example: Tensor, simplify: bool, *, blocked: bool
) -> tuple[nn.Module, int, list[Left]]:
    """A copy of the network as it is written, how many SE blocks have their form, and those that do not."""
    if simplify:
        network, _ = rewritten(asked, model, (NORM, SQUEEZE), example)
    else:
        network = copy.deepcopy(model)
    placed, left = deploy(network, example, blocked=blocked)
    return network, placed, left


def _program(asked: str, network: nn.Module, example: Tensor, free: list[int]) -> Any:
    names = {0: "batch", 2: "height", 3: "width"}
    shapes = ({at: names[at] for at in free},) if free else None
    try:
        with _quiet(), torch.no_grad():
            return torch.onnx.export(
                network,
                (example,),
                dynamo=True,
                verbose=False,
                opset_version=_OPSET,
                dynamic_shapes=shapes,
                input_names=["images"],
            )
    except Exception as error:
        raise DeploymentError(
            asked,
            found=f"PyTorch cannot write it as ONNX ({_first_line(error)})",
            do="Ask for one batch and one size, if the network depends on them.",
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter says what it does, and what will change in PyTorch; here only its errors are of use."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            for kind in (FutureWarning, DeprecationWarning):
                warnings.simplefilter("ignore", kind)
            yield
    finally:
        logger.setLevel(level)


def _checks(
    asked: str, model: nn.Module, path: Path, engine: str, example: Tensor, free: list[int]
) -> Iterator[dict[str, Any]]:
    """A row a comparison; raises DeploymentError at the first that fails."""
    session = opened(path, engine)
    batches = _BATCHES if 0 in free else (len(example),)
    height, width = example.shape[2:]
    sizes = [(height, width), (height + 32, width + 64)] if 2 in free else [(height, width)]
    generator = torch.Generator().manual_seed(0)
    for batch, spatial in product(batches, sizes):
        images = torch.randn(batch, example.shape[1], *spatial, generator=generator)
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            wanted = outputs(model, images)
        given = [torch.from_numpy(each) for each in session(images.contiguous().numpy())]
        error = _difference(wanted, given)
        if not error <= _BOUND:
            _judge(asked, model, images, wanted, given, f"in {engine}, for images of {tuple(images.shape)},")
        yield {"engine": engine, "images": " x ".join(map(str, images.shape)), "difference": error}


def _judge(
    asked: str, model: nn.Module, images: Tensor, wanted: list[Tensor], given: list[Tensor], where: str
) -> None:
    """Raises DeploymentError unless what differs is rounding, as much as the network itself has of it."""
    with torch.no_grad():
        exact = outputs(copy.deepcopy(model).double(), images.double())
    own, error = _difference(exact, wanted), _difference(exact, given)
    if own > _ROUNDED:
        raise DeploymentError(
            asked,
            found=f"in float32 PyTorch itself is wrong by {own:g} of the largest number, and nothing can be "
            "compared: nothing is written",
            do="Load trained weights: those of a deep network without training make rounding grow.",
        )
    if not error <= max(_BOUND, _WORSE * own):
        raise DeploymentError(
            asked,
            found=f"{where} it is wrong by {error:g} of the largest number, PyTorch by {own:g}: "
            "nothing is written",
            allowed=f"{_BOUND:g}, or {_WORSE} times as much as PyTorch",
        )


def _difference(wanted: list[Tensor], given: list[Tensor]) -> float:
    """The largest of all outputs, each in parts of its largest number; infinite where they do not fit."""
    return max(map(relative_change, wanted, given)) if len(wanted) == len(given) else float("inf")


def _first_line(error: BaseException) -> str:
    """Of what went wrong in the first place."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).strip().partition("\n")[0]
