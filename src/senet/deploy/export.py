"""``senet.export``: a network as a file for other engines, compared with the network before it is there."""

from __future__ import annotations

import copy
import dataclasses
import importlib
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from senet.acceleration.accelerate import decelerated
from senet.acceleration.rewriting import NORM, SQUEEZE, Left, counted
from senet.acceleration.simplify import rewritten
from senet.data.preprocessing import Preprocessing
from senet.deploy import header as headers
from senet.deploy.artefact import check_place
from senet.deploy.blocks import deploy
from senet.deploy.checking import Comparison, noise
from senet.deploy.engines import ENGINES, PYTORCH, opened
from senet.deploy.forms import FromPixels
from senet.errors import (
    AccelerationError,
    DeploymentError,
    MissingExtraError,
    OptionError,
    check_choice,
    first_line,
    require,
)
from senet.evaluation.members import said_preprocessing
from senet.files import replacing
from senet.graph.examples import trace_with
from senet.insertion.plan import check_unwrapped, copied
from senet.insertion.surgery import is_simplified
from senet.models.registry import NetworkConfig, info
from senet.tables import Table

Batch = int | Literal["any"]
Size = int | tuple[int, int] | Literal["any"] | None

FORMATS = ("onnx", "pt2")

# Of an ONNX file: beyond, PyTorch writes the weights beside it, under a name that is not the file's.
_MOST_BYTES = 3 * 2**29


@dataclass(frozen=True)
class ExportReport:
    """What ``export`` wrote.

    Args:
        network: the class of the network.
        path: the file.
        to: "onnx" or "pt2".
        engine: whose form SE has, None for the canonical one.
        input: the sizes that it takes, -1 for any: (N, C, H, W).
        pixels: whether it takes uint8 pixels and normalises them itself.
        blocks: how many SE blocks have that form.
        left: the blocks that do not, with the reason.
        nodes: how many of each operator.
        checks: a row a comparison with the network: the engine, the input, the difference in parts of the
            largest number of an output.
    """

    network: str
    path: Path
    to: str
    engine: str | None
    input: tuple[int, ...]
    pixels: bool
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
            f"  input of {sizes}{' pixels' if self.pixels else ''}, {self.nodes.total()} nodes, "
            f"{self.blocks} SE blocks in the {form}",
            *counted(self.left),
            str(Table(self.rows)),
        ]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """All of it, as JSON can hold it."""
        left = [dataclasses.asdict(each) for each in self.left]
        return {**vars(self), "path": str(self.path), "left": left, "checks": self.rows}

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
    header: Mapping[str, Any] | None = None,
    pixels: bool = False,
) -> ExportReport:
    """Writes a network of images as a file that other engines run, in operators of the standard alone.

    The file is opened in ONNX Runtime, and in the engine that it is for, or in PyTorch, and compared with the
    network before it appears: for several batches and sizes where these are free, to 1e-5 of an output's
    largest number.

    Args:
        model: any CNN in float32, with SE or without, accelerated, simplified or neither; it stays as it is.
        path: of the file; what is there is replaced.
        to: "onnx", or "pt2" for the format of ``torch.export``, which AOTInductor compiles.
        engine: of ONNX: None writes each SE block in one canonical form, six nodes with a sigmoid gate;
            "openvino" the same, as it runs that best; "onnxruntime" in one that keeps the memory layout of
            its convolutions on a CPU, for images of one size.
        batch: how many images at a time, or "any".
        size: the height and width of the images, one number for both, or "any"; None: what the header's
            preprocessing says, or else what the network is made for.
        simplify: fold batch norms, and take the squeeze before the convolution where it can be; see
            ``senet.simplify``. Gates are never put into weights: engines have their own forms of constant
            ones.
        header: what the file shall say of itself, as a weights file does: ``classes``, ``preprocessing``
            (as ``Preprocessing.to_dict`` gives it), ``data``, ...; the command line has it from the weights.
        pixels: whether the file takes uint8 pixels and normalises them itself, as the preprocessing says.
            Resizing stays outside: an engine's own differs from that of training.

    Returns:
        The report: sizes, nodes, SE blocks, comparisons.

    Raises:
        DeploymentError: it cannot be written, or the file computes something else; where that begins is said.
        InsertionError: the network is wrapped, compiled or scripted.
        MissingExtraError: a package of the extra ``onnx`` or ``openvino`` is not installed.
        OptionError: an option is not possible.
        TraceError: the network does not run on images of that size.

    Example:
        >>> senet.export(senet.build("se_resnet50").eval(), "se_resnet50.onnx", engine="onnxruntime")
    """
    asked = f"export({type(model).__name__}, {str(path)!r})"
    path = Path(path)
    check_choice(f"{asked}: to={to!r}", to, FORMATS)
    pair: Any = (size, size) if _is_count(size) else size
    _check_options(asked, to, engine, batch, pair, size)
    for package in ("onnx", "onnxscript", "onnxruntime", engine or "onnx") if to == "onnx" else ():
        _require_package(package)
    check_unwrapped(model)
    check_place(asked, path)
    said = dict(header or {})
    prepared = _preprocessing(asked, said, pixels)
    made_for = pair
    if prepared is not None:
        prepared = _for_size(prepared, pair)
        said["preprocessing"] = prepared.to_dict()
        if isinstance(pair, tuple) and pair[0] != pair[1]:
            # It has no words for what is no square: then images are the caller's business.
            del said["preprocessing"]
        # Of free sizes, too, that which will come is compared.
        made_for = pair if isinstance(pair, tuple) else (prepared.size, prepared.size)

    reference = _reference(asked, model)
    example = _example(reference, made_for)
    if prepared is not None and prepared.channels != example.shape[1]:
        raise OptionError(
            asked,
            found=f"the preprocessing is for images of {prepared.channels} channels, the network takes "
            f"{example.shape[1]}",
            do="Give the preprocessing that it was trained with.",
        )
    network, blocks, left = _network(asked, reference, example, simplify, blocked=engine == "onnxruntime")
    if pixels and prepared is not None:
        reference, network = (
            FromPixels(each, prepared.mean, prepared.std).eval() for each in (reference, network)
        )
        example = noise(tuple(example.shape), torch.uint8, torch.Generator().manual_seed(0))
    free = ([0] if batch == "any" else []) + ([2, 3] if size == "any" else [])
    if batch != "any":
        example = example[:1].expand(batch, *example.shape[1:])
    text = headers.written(asked, said, network=_name(model), simplified=simplify, engine=engine)
    # Small convolutions are several times as fast so on a CPU.
    reference.to(memory_format=torch.channels_last)
    if to == "onnx":
        _check_one_file(asked, network)
    compared = Comparison(asked, reference, network, example, free)
    write = _onnx if to == "onnx" else _pt2
    try:
        with replacing(path) as temporary:
            nodes, checks = write(compared, temporary, text, engine)
    except (OSError, ValueError) as error:
        raise DeploymentError(asked, found=f"it cannot be written ({first_line(error)})") from error
    sizes = tuple(-1 if at in free else size for at, size in enumerate(example.shape))
    return ExportReport(
        type(model).__name__, path, to, engine, sizes, pixels, blocks, tuple(left), nodes, tuple(checks)
    )


def _onnx(
    compared: Comparison, path: Path, said: str, engine: str | None
) -> tuple[Counter[str], list[dict[str, Any]]]:
    """Writes the ONNX file; its nodes, and the rows of its comparison."""
    from senet.deploy import onnx

    program = _made(compared, lambda: onnx.traced(compared.written, compared.example, compared.free))
    ends = onnx.ends(program)
    onnx.save(program, path, said)
    rows: list[dict[str, Any]] = []
    for each in dict.fromkeys(("onnxruntime", engine or "onnxruntime")):
        rows += compared.rows(each, opened(path, each), partial(_values, path, ends, each))
    return Counter(node.op_type for node in program.model.graph), rows


def _pt2(
    compared: Comparison, path: Path, said: str, engine: str | None
) -> tuple[Counter[str], list[dict[str, Any]]]:
    """Writes the file of ``torch.export``; its nodes, and the rows of its comparison."""
    from senet.deploy import program

    exported = _made(compared, lambda: program.traced(compared.written, compared.example, compared.free))
    _made(compared, lambda: program.save(exported, path, said))
    session: Any = program.Program(path, trusted=True)
    rows = list(compared.rows(PYTORCH, session, partial(program.values, session.module)))
    calls = (node for node in exported.graph.nodes if node.op == "call_function")
    return Counter(str(node.target).removeprefix("aten.").partition(".")[0] for node in calls), rows


def _made(compared: Comparison, make: Callable[[], Any]) -> Any:
    """What PyTorch makes of the network; DeploymentError where it fails."""
    try:
        return make()
    except OSError:
        raise
    except Exception as error:  # PyTorch raises whatever its tracers stumble over
        raise DeploymentError(
            compared.asked,
            found=f"PyTorch cannot write it ({first_line(error)})",
            do="Ask for one batch and one size, if the network depends on them.",
        ) from error


def _values(path: Path, ends: Mapping[str, str], engine: str, images: Tensor) -> Mapping[str, Tensor]:
    """What an engine computes between, by the paths of modules."""
    from senet.deploy import onnx

    with tempfile.TemporaryDirectory() as folder:
        wider = Path(folder) / "wider.onnx"
        names = onnx.with_outputs(path, list(dict.fromkeys(ends.values())), wider)
        given = opened(wider, engine)(images.contiguous().numpy())
    found = dict(zip(names, given, strict=True))
    return {module: torch.from_numpy(found[name]) for module, name in ends.items() if name in found}


def _check_options(asked: str, to: str, engine: str | None, batch: Batch, pair: Any, size: Size) -> None:
    if engine is not None:
        check_choice(f"{asked}: engine={engine!r}", engine, ENGINES)
        require("engine", engine, to == "onnx", f"None, for to={to!r}")
    require("batch", batch, batch == "any" or _is_count(batch), 'a number of at least 1, or "any"')
    fits = pair in (None, "any") or (isinstance(pair, tuple) and len(pair) == 2 and all(map(_is_count, pair)))
    require("size", size, fits, 'a number of at least 1, two of them, "any" or None')
    require("size", size, (size, engine) != ("any", "onnxruntime"), 'one size, for engine="onnxruntime"')


def _preprocessing(asked: str, header: Mapping[str, Any], pixels: bool) -> Preprocessing | None:
    """How images are prepared, as the header says it; None where it says nothing and it is not needed."""
    if "preprocessing" in header:
        return said_preprocessing(asked, header)
    if pixels:
        raise DeploymentError(
            asked,
            found="pixels=True, and nothing says how they are normalised",
            allowed="header={'preprocessing': {...}}",
            do="Give Preprocessing(...).to_dict(), or weights that say it.",
        )
    return None


def _for_size(prepared: Preprocessing, size: Any) -> Preprocessing:
    """The preprocessing for images of this size; as it was where that is none, or no square."""
    if not isinstance(size, tuple) or size[0] != size[1]:
        return prepared
    resize = round(prepared.resize * size[0] / prepared.size)
    return dataclasses.replace(prepared, size=size[0], resize=resize)


def _check_one_file(asked: str, network: nn.Module) -> None:
    """Raises DeploymentError where the exporter would put the weights into a second file."""
    size = sum(each.nbytes for each in network.state_dict().values())
    if size > _MOST_BYTES:
        raise DeploymentError(
            asked,
            found=f"its weights take {size:,} bytes, and an ONNX file holds no more than {_MOST_BYTES:,}",
            do='Write it with to="pt2".',
        )


def _name(model: nn.Module) -> str:
    config = getattr(model, "config", None)
    named = isinstance(config, NetworkConfig) and not is_simplified(model)
    return config.name if named else type(model).__name__  # type: ignore[union-attr]


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
    reference = copied(model).cpu().eval()
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
    return noise((2, found.shape[1], height, width), torch.float32, torch.Generator().manual_seed(0))


def _network(
    asked: str, model: nn.Module, example: Tensor, simplify: bool, *, blocked: bool
) -> tuple[nn.Module, int, list[Left]]:
    """A copy of the network as it is written, how many SE blocks have their form, and those that do not."""
    if simplify:
        try:
            network, _ = rewritten(asked, model, (NORM, SQUEEZE), example)
        except AccelerationError as error:
            raise DeploymentError(
                asked, f"it cannot be simplified ({error})", do="Say simplify=False, or --simplify false."
            ) from error
    else:
        network = copy.deepcopy(model)
    placed, left = deploy(network, example, blocked=blocked)
    return network, placed, left
