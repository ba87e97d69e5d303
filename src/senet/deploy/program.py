"""The file of ``torch.export``: written, and read so that nothing in it runs that is not a network's.

PyTorch's own reader unpickles what a file asks it to, calls any function of PyTorch that a node names, and
evaluates sizes and guards as Python. What a network of images needs of it is little: all else is refused, and
PyTorch is given an archive made anew of what was looked at.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.export.passes import move_to_device_pass
from torch.fx import Interpreter
from torch.utils._pytree import tree_leaves

from senet.deploy import header
from senet.deploy.quiet import quiet
from senet.errors import DeploymentError, WeightsError, first_line

# In the archive, below its folder.
_FILES = re.compile(
    r"data/weights/weight_\d+|data/weights/model_weights_config\.json|data/constants/tensor_\d+"
    r"|data/constants/model_constants_config\.json|models/model\.json|data/sample_inputs/model\.pt"
    rf"|extra/{header.KEY}|archive_format|archive_version|byteorder|\.data/(version|serialization_id)"
)
# Of PyTorch's operators those that networks of images have; others read files, or memory that is not theirs.
_ATEN = (
    "_assert_tensor_metadata|(_native_)?(batch|group|instance|layer|rms)_norm|abs_?|adaptive_(avg|max)_pool[123]d|add_?"
    "|alias|amax|amin|arange|argmax|avg_pool[123]d|baddbmm|addmm|bmm|broadcast_to|cat|ceil|celu_?|channel_shuffle"
    "|chunk|clamp(_max|_min)?_?|clone|concat|constant_pad_nd|contiguous|conv(_transpose)?[123]d|convolution"
    "|cumsum|detach_?|div_?|dropout_?|einsum|elu_?|eq|exp|expand(_as)?|feature_dropout|fill_?|flatten|flip"
    "|floor(_divide)?|full(_like)?|gather|ge|gelu|glu|gt|hardsigmoid_?|hardswish_?|hardtanh_?|index|index_select"
    "|le|leaky_relu_?|lerp|lift_fresh_copy|linalg_vector_norm|linear|log|logical_(and|not|or)|log_softmax|lt|masked_fill_?"
    "|matmul|max|max_pool[123]d|maximum|mean|meshgrid|min|minimum|mish_?|mm|movedim|mul_?|narrow|ne|neg|new_(full|ones"
    "|zeros)|norm|numpy_T|ones(_like)?|pad|permute|pixel_(un)?shuffle|pow|prelu|prod|reciprocal|relu6?_?|repeat"
    "|repeat_interleave|reshape(_as)?|roll|rsqrt|rsub|scalar_tensor|scaled_dot_product_attention|select|selu_?"
    "|sigmoid_?|sign|silu_?|slice|softmax|softplus|split(_with_sizes)?|sqrt|squeeze|stack|std|sub_?|sum|swapaxes"
    "|sym_(size|numel|stride)|t|tanh_?|tile|to|topk|transpose|tril|triu|true_divide|type_as|unbind|unflatten|unfold"
    "|unsqueeze_?|upsample_(bicubic2d|bilinear2d|nearest[123]d|_nearest_exact[123]d)|var(_mean)?|view(_as)?|where"
    "|zeros(_like)?"
)
_OPERATORS = re.compile(
    rf"torch\.ops\.aten\.({_ATEN})\.\w+|torch\.sym_(max|min|not|float|int)|math\.(floor|ceil|trunc)"
    r"|_operator\.(add|sub|mul|floordiv|mod|pow|neg|getitem|[gl]e|[gl]t|eq|ne|and_|or_|not_)"
)
# Sizes are symbols, numbers and what is computed of them; nothing has an attribute, and no power a large one.
_SIZES = re.compile(
    r"(?:\b(?:Symbol|Integer|Add|Mul|Pow(?=\(Symbol)|Mod|Min|Max|Eq|Ne|Le|Lt|Ge|Gt|StrictLessThan"
    r"|StrictGreaterThan|LessThan|GreaterThan|Equality|Unequality|And|Or|Not|FloorDiv|CleanDiv|CeilDiv"
    r"|PythonMod|positive|nonnegative|integer|True|False|oo|int_oo|[su]\d{1,9}|\d{1,19})\b"
    r"|(?<!\*)\*(?!\*)|[\s()'=,/+<>-])*"
)
_GUARDS = re.compile(
    r"(?:L\['\w+'\]|\.size\(\)|\[\d\]|torch\.sym_(?:max|min)|\b(?:and|or|not|Max|Min|\d{1,19})\b"
    r"|(?<!\*)\*(?!\*)|[\s()=!,/%+<>-])*"
)
_TREES = re.compile(
    r'(?:"(?:builtins\.(?:tuple|list|dict)|type|context|children_spec|null|\[\]|\w*)"|null|\d+|[\s\[\]{}:,])*'
)
# Of one file: beyond all networks.
_MOST_BYTES = 2**34
_RULES = {
    "target": _OPERATORS,
    "as_operator": _OPERATORS,
    "expr_str": _SIZES,
    "guards_code": _GUARDS,
    "in_spec": _TREES,
    "out_spec": _TREES,
}


def traced(network: nn.Module, example: Tensor, free: list[int]) -> ExportedProgram:
    """The network as a graph of PyTorch's operators.

    Args:
        network: in evaluation mode.
        example: images of the sizes that are fixed.
        free: the dimensions of any size.
    """
    # A batch of one is told apart from others where that is not ruled out.
    shapes: dict[int, Any] = dict.fromkeys(free, Dim.DYNAMIC)
    if 0 in free:
        shapes[0] = Dim("batch", min=1)
    with quiet():
        program = torch.export.export(network, (example,), dynamic_shapes=(shapes,) if free else None)
    for module in program.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, torch.fx.GraphModule) else ():
            # It names the folders of this machine.
            node.meta.pop("stack_trace", None)
    return program


def save(program: ExportedProgram, path: Path, said: str) -> None:
    """Writes the file, with what it says of itself."""
    with path.open("wb") as file:
        torch.export.save(program, file, extra_files={header.KEY: said})


def read(path: Path, *, trusted: bool = False) -> tuple[ExportedProgram, str | None]:
    """The program in a file of ``save``, and what the file says of itself.

    Args:
        path: of the file.
        trusted: whether this process wrote it: what is not looked at may be any operator.

    Raises:
        WeightsError: it is unreadable, or holds what no network of images needs.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = _members(archive)
        if not trusted:
            _check(members)
        said = members.get(f"extra/{header.KEY}")
        with quiet():
            return torch.export.load(_archive(members)), None if said is None else said.decode()
    except Exception as error:  # of damaged files PyTorch raises whatever it stumbles over
        raise WeightsError(
            f"reading {str(path)!r}",
            found=f"this is no whole program of an image network ({first_line(error)})",
            allowed="a .pt2 file that senet.export wrote, of operators that networks of images have",
            do="Export it again, with this version of PyTorch. torch.export.load reads what you trust.",
        ) from error


class Program:
    """A file of ``torch.export``, run by PyTorch.

    Args:
        path: a .pt2 file that ``senet.export`` wrote.
        device: where it runs.
        trusted: see ``read``.

    Raises:
        WeightsError: it is unreadable, or holds what no network of images needs.
    """

    def __init__(
        self, path: str | Path, device: str | torch.device = "cpu", *, trusted: bool = False
    ) -> None:
        self.path = Path(path)
        exported, said = read(self.path, trusted=trusted)
        self.header = header.read(path, said)
        self.device = torch.device(device)
        try:
            images = [node.meta["val"] for node in exported.graph.nodes if node.op == "placeholder"][-1]
            self.input = tuple(size if isinstance(size, int) else -1 for size in images.shape)
            self.pixels = images.dtype == torch.uint8
            if self.device.type != "cpu":
                exported = move_to_device_pass(exported, self.device)
            self.module: Any = exported.module()
        except Exception as error:
            found = f"PyTorch cannot run it ({first_line(error)})"
            raise WeightsError(f"reading {str(path)!r}", found, do="Export it again.") from error
        if len(self.input) != 4:
            raise WeightsError(f"reading {str(path)!r}", "it takes no images", "(N, C, H, W)")

    def __call__(self, images: Any) -> list[Any]:
        """What the network gives for images (N, C, H, W); DeploymentError where it takes others."""
        try:
            with torch.inference_mode():
                given = self.module(torch.from_numpy(images).to(self.device))
        except Exception as error:  # as AssertionError, of a guard that PyTorch wrote
            found = f"PyTorch cannot run it on images {images.shape} ({first_line(error)})"
            raise DeploymentError(f"{str(self.path)!r}", found) from error
        return [each.cpu().numpy() for each in tree_leaves(given) if isinstance(each, Tensor)]


def values(module: torch.fx.GraphModule, images: Tensor) -> dict[str, Tensor]:
    """What each module of the network gave in the end, by its path."""
    found: dict[str, Tensor] = {}

    class Recorder(Interpreter):
        def run_node(self, node: Any) -> Any:
            result = super().run_node(node)
            if isinstance(result, Tensor):
                for path, _ in (node.meta.get("nn_module_stack") or {}).values():
                    found[path] = result.clone()
            return result

    with torch.inference_mode():
        Recorder(module).run(images)
    return found


def _members(archive: zipfile.ZipFile) -> dict[str, bytes]:
    """What is in the archive, by the names below its one folder; ValueError where it is of another kind."""
    found: dict[str, bytes] = {}
    for info in archive.infolist():
        name = info.filename.partition("/")[2]
        if not _FILES.fullmatch(name) or name in found or info.file_size > _MOST_BYTES:
            raise ValueError(f"it holds {info.filename[:100]!r}")
        found[name] = archive.read(info)
    return found


def _archive(members: Mapping[str, bytes]) -> io.BytesIO:
    """An archive of these: readers differ in what they see in one that is made to mislead them."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"archive/{name}", content)
    file.seek(0)
    return file


def _check(members: Mapping[str, bytes]) -> None:
    """Raises ValueError, or another error, where PyTorch would run what no network of images has."""
    for name, content in members.items():
        if name.endswith(".json"):
            _check_values(json.loads(content), name)
        elif name.endswith(".pt"):
            # Where this fails PyTorch would unpickle it.
            torch.load(io.BytesIO(content), weights_only=True)


def _check_values(tree: Any, where: str) -> None:
    """Raises ValueError for a value in a JSON file that PyTorch would run, and that is not a network's."""
    if isinstance(tree, list):
        for each in tree:
            _check_values(each, where)
    elif isinstance(tree, dict):
        for key, value in tree.items():
            rule = _RULES.get(key)
            texts = value if isinstance(value, list) else [value]
            if rule and any(isinstance(text, str) and not rule.fullmatch(text) for text in texts):
                raise ValueError(f"in {where} {key} is {str(value)[:100]!r}")
            if key == "use_pickle" and value is not False:
                raise ValueError(f"{where} asks for pickle")
            _check_values(value, where)
