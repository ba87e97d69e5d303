"""An exported file, opened: what it says of itself, and a module that runs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from senet.deploy import header
from senet.deploy.engines import ENGINES, PYTORCH, Session, opened
from senet.errors import DeploymentError, MissingExtraError, ShapeError, WeightsError, check_choice
from senet.files import require_writable

ENDINGS = (".onnx", ".pt2")


@dataclass(frozen=True)
class Artefact:
    """A file that an engine runs.

    Args:
        path: of the file.
        header: what it says of itself, empty where senet did not write it.
        input: the sizes that it takes, -1 for any: (N, C, H, W).
        pixels: whether it takes uint8 pixels and normalises them itself.
        session: the engine that runs it.
    """

    path: Path
    header: Mapping[str, Any]
    input: tuple[int, ...]
    pixels: bool
    session: Session


def is_artefact(name: str | Path) -> bool:
    """Whether a name is that of an exported file."""
    return Path(name).suffix.lower() in ENDINGS


def takes_engine(name: str | Path) -> bool:
    """Whether it is a file that several engines can run."""
    return Path(name).suffix.lower() == ".onnx"


def check_place(asked: str, path: Path) -> None:
    """Raises DeploymentError where no file can be put, DataError where the folder cannot be written."""
    if path.is_dir() or not path.parent.is_dir():
        found = (
            "there is a folder of that name" if path.is_dir() else f"there is no folder {str(path.parent)!r}"
        )
        raise DeploymentError(asked, found, allowed="a new file in a folder that exists, or one to replace")
    require_writable(asked, path.parent)


def opened_artefact(
    path: str | Path, engine: str | None = None, *, device: torch.device | str = "cpu"
) -> Artefact:
    """An exported file, of senet or of others, opened.

    Args:
        path: an .onnx or .pt2 file.
        engine: for ONNX "onnxruntime", the default, or "openvino"; PyTorch runs .pt2.
        device: where PyTorch runs a .pt2 file; other engines run on the CPU, wherever images come from.

    Raises:
        DeploymentError: the engine cannot run it.
        MissingExtraError: a package of the extra ``onnx`` or ``openvino`` is not installed.
        OptionError: the engine is not one for the file.
        WeightsError: there is no such file, or it is damaged.
    """
    path, asked = Path(path), f"opening {str(path)!r}"
    if not path.is_file():
        raise WeightsError(asked, "there is no such file", allowed="a file of `senet export`")
    if path.suffix.lower() == ".pt2":
        check_choice(f"{asked}: engine={engine!r}", engine or PYTORCH, [PYTORCH])
        from senet.deploy.program import Program

        program = Program(path, device)
        return Artefact(path, program.header, program.input, program.pixels, program)
    check_choice(f"{asked}: engine={engine!r}", engine or "onnxruntime", ENGINES)
    said, sizes, pixels = _described(asked, path)
    return Artefact(path, said, sizes, pixels, opened(path, engine or "onnxruntime"))


def _described(asked: str, path: Path) -> tuple[dict[str, Any], tuple[int, ...], bool]:
    """What an ONNX file says of itself, the sizes of its images, and whether these are pixels."""
    try:
        import onnx
    except ImportError as error:
        raise MissingExtraError.of("onnx", extra="onnx", need="reading ONNX files") from error
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # of damaged files protobuf has errors of its own
        raise WeightsError(asked, f"this is no whole ONNX file ({error})", do="Export it again.") from error
    weights = {each.name for each in model.graph.initializer}
    inputs = [each.type.tensor_type for each in model.graph.input if each.name not in weights]
    if len(inputs) != 1 or len(inputs[0].shape.dim) != 4:
        raise WeightsError(asked, "it takes no images", "a network with one input, (N, C, H, W)")
    sizes = tuple(each.dim_value or -1 for each in inputs[0].shape.dim)
    said = next((each.value for each in model.metadata_props if each.key == header.KEY), None)
    return header.read(path, said), sizes, inputs[0].elem_type == onnx.TensorProto.UINT8


class ExportedNetwork(nn.Module):
    """A module that an engine computes; scores (N, classes) of images (N, C, H, W).

    Args:
        artefact: the opened file. Where it takes a fixed number of images, batches are cut and filled up.
    """

    def __init__(self, artefact: Artefact) -> None:
        super().__init__()
        self.artefact = artefact

    def forward(self, images: Tensor) -> Tensor:
        """The first of what the file gives, on the device of the images."""
        session, batch = self.artefact.session, self.artefact.input[0]
        self._check(images)
        wanted = np.uint8 if self.artefact.pixels else np.float32
        given = np.ascontiguousarray(images.cpu().numpy().astype(wanted, copy=False))
        parts = [given] if batch < 0 else np.split(given, range(batch, len(given), batch))
        scores = []
        for part in parts:
            missing = 0 if batch < 0 else batch - len(part)
            whole = np.concatenate([part, np.zeros((missing, *part.shape[1:]), wanted)]) if missing else part
            scores.append(session(whole)[0][: len(part)])
        return torch.from_numpy(np.concatenate(scores)).to(images.device)

    def _check(self, images: Tensor) -> None:
        fixed = zip(images.shape[1:], self.artefact.input[1:], strict=True)
        if any(wanted not in (-1, found) for found, wanted in fixed):
            sizes = " x ".join("any" if size < 0 else str(size) for size in self.artefact.input[1:])
            raise ShapeError(
                f"running {str(self.artefact.path)!r} on images {tuple(images.shape)}",
                found=f"it takes images of {sizes}",
                do="Export it for this size, or for any.",
            )
