"""The ONNX file: written in operators of the standard alone, and what it says of itself."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from senet.deploy import header
from senet.deploy.quiet import quiet

# ONNX Runtime 1.14 and OpenVINO 2023 read it, and all of the operators here are in it.
OPSET = 18
_SCOPES = "pkg.torch.onnx.name_scopes"


def traced(network: nn.Module, example: Tensor, free: list[int]) -> Any:
    """The network as a graph of ONNX's operators.

    Args:
        network: in evaluation mode.
        example: images of the sizes that are fixed.
        free: the dimensions of any size.
    """
    names = {0: "batch", 2: "height", 3: "width"}
    shapes = ({at: names[at] for at in free},) if free else None
    with quiet(), torch.no_grad():
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            dynamic_shapes=shapes,
            input_names=["images"],
            output_names=["scores"],  # and of several the first
        )
    return program


def save(program: Any, path: Path, said: str) -> None:
    """Writes the file, with what it says of itself, and without what the exporter noted on its way."""
    program.model.metadata_props[header.KEY] = said
    graph = program.model.graph
    # They name the folders of this machine, and are half of a small file.
    for each in (
        graph,
        *graph,
        *graph.inputs,
        *graph.outputs,
        *(out for node in graph for out in node.outputs),
    ):
        each.metadata_props.clear()
    program.save(str(path))


def ends(program: Any) -> dict[str, str]:
    """For the path of each module the name of the last value that is computed in it."""
    return {
        scope: node.outputs[0].name
        for node in program.model.graph
        for scope in ast.literal_eval(node.metadata_props.get(_SCOPES, "[]"))[:-1]
    }


def with_outputs(path: Path, names: list[str], to: Path) -> list[str]:
    """Writes the file again with more outputs, values by their names; the names of all, in their order."""
    import onnx

    model = onnx.load(path)
    known = {each.name for each in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in known)
    onnx.save(model, to)
    return [each.name for each in model.graph.output]
