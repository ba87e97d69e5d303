"""The texts of the seven released Caffe networks, made from what is known of them.

Names, order and options of the layers are those of the released ``.prototxt`` files of
hujie-frank/SENet; options that are Caffe's defaults are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

RESIDUAL_UNITS = {
    "SE-ResNet-50": (3, 4, 6, 3),
    "SE-ResNet-101": (3, 4, 23, 3),
    "SE-ResNet-152": (3, 8, 36, 3),
    "SE-ResNeXt-50": (3, 4, 6, 3),
    "SE-ResNeXt-101": (3, 4, 23, 3),
    "SENet-154": (3, 8, 36, 3),
}
NAMES = (*RESIDUAL_UNITS, "SE-BN-Inception")


class _Family(NamedTuple):
    """What the units of a residual network have in common; widths are the second stage's."""

    reduce: int
    three: int
    groups: int
    stride_on: str
    project: int  # Its kernel, where the map is halved.


_FAMILIES = {
    "SE-ResNet": _Family(64, 64, 1, "1x1_reduce", 1),
    "SE-ResNeXt": _Family(128, 128, 32, "3x3", 1),
    "SENet": _Family(128, 256, 64, "3x3", 3),
}

# The modules of SE-BN-Inception: 1×1, 3×3 (reduced, full), double 3×3 (reduced, full), pooling and its
# projection. Those without a 1×1 have a stride of 2.
_MODULES: dict[str, tuple[int, tuple[int, int], tuple[int, int], str, int]] = {
    "3a": (64, (64, 64), (64, 96), "AVE", 32),
    "3b": (64, (64, 96), (64, 96), "AVE", 64),
    "3c": (0, (128, 160), (64, 96), "MAX", 0),
    "4a": (224, (64, 96), (96, 128), "AVE", 128),
    "4b": (192, (96, 128), (96, 128), "AVE", 128),
    "4c": (160, (128, 160), (128, 160), "AVE", 128),
    "4d": (96, (128, 192), (160, 192), "AVE", 128),
    "4e": (0, (128, 192), (192, 256), "MAX", 0),
    "5a": (352, (192, 320), (160, 224), "AVE", 128),
    "5b": (352, (192, 320), (192, 224), "MAX", 128),
}


def prototxt(
    name: str, *, units: Iterable[int] | None = None, num_classes: int = 1000, size: int = 224
) -> str:
    """The text of a released network, or of a smaller one with the same layers.

    Args:
        name: one of ``NAMES``.
        units: of each stage of a residual network, such as (1, 1, 1, 1); the released ones by default.
        num_classes: of the classifier.
        size: height and width of the images, a multiple of 32; the last pooling covers the map.
    """
    net = _Net(name, size)
    if name == "SE-BN-Inception":
        last = _inception(net)
    else:
        last = _residual(net, _FAMILIES[name.rsplit("-", 1)[0]], tuple(units or RESIDUAL_UNITS[name]))
    top = net.add("pool5/7x7_s1", "Pooling", [last], pooling_param={"pool": "AVE", **_kernel(size // 32)})
    if name == "SENet-154":
        net.add("pool5/dropout_7x7_s1", "Dropout", [top], top, dropout_param={"dropout_ratio": 0.2})
    net.add("classifier", "InnerProduct", [top], inner_product_param={"num_output": num_classes})
    net.add("prob", "Softmax", ["classifier"])
    return "".join(net.lines)


class _Net:
    """The lines of a text; every method gives the top of what it adds."""

    def __init__(self, name: str, size: int) -> None:
        self.channels = {"data": 3}
        self.lines = [f'name: "{name}"\n# BGR, mean_value: 104, 117, 123\n']
        self.lines.append(
            'layer { name: "data" type: "Input" top: "data"\n'
            f"  input_param: {{ shape: {{ dim: 1 dim: 3 dim: {size} dim: {size} }} }}\n}}\n"
        )

    def add(
        self, name: str, kind: str, bottoms: list[str], top: str = "", **parameters: Mapping[str, object]
    ) -> str:
        top = top or name
        self.channels.setdefault(top, self.channels[bottoms[0]])
        self.lines.append(f'layer {{\n  name: "{name}"\n  type: "{kind}"\n')
        self.lines += [f'  bottom: "{bottom}"\n' for bottom in bottoms]
        self.lines.append(f'  top: "{top}"\n')
        for message, fields in parameters.items():
            written = "".join(f"    {field}: {value}\n" for field, value in fields.items())
            self.lines.append(f"  {message} {{\n{written}  }}\n")
        self.lines.append("}\n")
        return top

    def conv(
        self, name: str, bottom: str, width: int, kernel: int = 1, stride: int = 1, group: int = 1
    ) -> str:
        """A convolution without bias, padded by half its kernel, and its normalisation."""
        options: dict[str, object] = {"num_output": width, "bias_term": "false"}
        if kernel > 1:
            options["pad"] = kernel // 2
        options |= _kernel(kernel, stride)
        if group > 1:
            options["group"] = group
        self.channels[name] = width
        self.add(name, "Convolution", [bottom], convolution_param=options)
        self.add(f"{name}/bn", "BatchNorm", [name], name, batch_norm_param={"use_global_stats": "true"})
        return self.add(f"{name}/bn/scale", "Scale", [name], name, scale_param={"bias_term": "true"})

    def relu(self, name: str, top: str) -> str:
        return self.add(name, "ReLU", [top], top)

    def halve(self, name: str, bottom: str) -> str:
        """The maximum of 3×3 with a stride of 2, unpadded: Caffe counts windows that hang over."""
        return self.add(name, "Pooling", [bottom], pooling_param={"pool": "MAX", **_kernel(3, 2)})

    def gate(self, prefix: str, bottom: str) -> str:
        """SE up to its gate, of a sixteenth of the channels."""
        pool = {"pool": "AVE", "engine": "CAFFE", "global_pooling": "true"}
        top = self.add(f"{prefix}_global_pool", "Pooling", [bottom], pooling_param=pool)
        for name, width in (("down", self.channels[bottom] // 16), ("up", self.channels[bottom])):
            self.channels[f"{prefix}_1x1_{name}"] = width
            options = {"num_output": width, **_kernel(1)}
            top = self.add(f"{prefix}_1x1_{name}", "Convolution", [top], convolution_param=options)
            if name == "down":
                self.relu(f"{top}/relu", top)
        return self.add(f"{prefix}_prob", "Sigmoid", [top], top)


def _kernel(size: int, stride: int = 1) -> dict[str, object]:
    return {"kernel_size": size, "stride": stride}


def _residual(net: _Net, family: _Family, units: tuple[int, ...]) -> str:
    if family.groups == 64:
        top = "data"
        for name, width, stride in (("1_1/3x3_s2", 64, 2), ("1_2/3x3", 64, 1), ("1_3/3x3", 128, 1)):
            top = net.conv(f"conv{name}", top, width, 3, stride)
            net.relu(f"conv{name.replace('/', '/relu_')}", top)
    else:
        top = net.conv("conv1/7x7_s2", "data", 64, 7, 2)
        net.relu("conv1/relu_7x7_s2", top)
    top = net.halve("pool1/3x3_s2", top)
    for stage, count in enumerate(units, 2):
        for index in range(1, count + 1):
            top = _unit(net, family, f"conv{stage}_{index}", top, stage, index == 1)
    return top


def _unit(net: _Net, family: _Family, name: str, entering: str, stage: int, first: bool) -> str:
    times = 2 ** (stage - 2)
    stride = 2 if first and stage > 2 else 1
    strides = {family.stride_on: stride}
    top = entering
    for part, width, kernel, group in (
        ("1x1_reduce", family.reduce, 1, 1),
        ("3x3", family.three, 3, family.groups),
        ("1x1_increase", 256, 1, 1),
    ):
        top = net.conv(f"{name}_{part}", top, width * times, kernel, strides.get(part, 1), group)
        if part != "1x1_increase":
            net.relu(f"{top}/relu", top)
    gate, shortcut = net.gate(name, top), entering
    if first:
        kernel = family.project if stride == 2 else 1
        shortcut = net.conv(f"{name}_1x1_proj", entering, 256 * times, kernel, stride)
    net.channels[name] = 256 * times
    net.add(name, "Axpy", [gate, top, shortcut])
    return net.relu(f"{name}/relu", name)


def _inception(net: _Net) -> str:
    top = net.conv("conv1/7x7_s2", "data", 64, 7, 2)
    net.relu("conv1/relu_7x7", top)
    top = net.halve("pool1/3x3_s2", top)
    for part, width, kernel in (("3x3_reduce", 64, 1), ("3x3", 192, 3)):
        top = net.conv(f"conv2/{part}", top, width, kernel)
        net.relu(f"conv2/relu_{part}", top)
    top = net.halve("pool2/3x3_s2", top)
    for name in _MODULES:
        top = _module(net, name, top)
    return top


def _module(net: _Net, module: str, entering: str) -> str:
    one, three, double, pool, projected = _MODULES[module]
    name = f"inception_{module}"
    stride = 1 if one else 2

    def conv(part: str, bottom: str, width: int, kernel: int = 1, stride: int = 1) -> str:
        top = net.conv(f"{name}/{part}", bottom, width, kernel, stride)
        return net.relu(f"{name}/relu_{part}", top)

    branches = [conv("1x1", entering, one)] if one else []
    branches.append(conv("3x3", conv("3x3_reduce", entering, three[0]), three[1], 3, stride))
    top = conv("double3x3a", conv("double3x3_reduce", entering, double[0]), double[1], 3)
    branches.append(conv("double3x3b", top, double[1], 3, stride))
    if one:
        window = {"pool": pool, **_kernel(3), "pad": 1}
        top = net.add(f"{name}/pool", "Pooling", [entering], pooling_param=window)
        branches.append(conv("pool_proj", top, projected))
    else:
        branches.append(net.halve(f"{name}/pool/3x3_s2", entering))

    net.channels[f"{name}/concat"] = sum(net.channels[branch] for branch in branches)
    concat = net.add(f"{name}/concat", "Concat", branches)
    gate = net.gate(name, concat)
    flat = {"shape": "{ dim: 0 dim: 0 }"}
    gate = net.add(f"{name}_prob_reshape", "Reshape", [gate], reshape_param=flat)
    whole = {"axis": 0, "bias_term": "false"}
    return net.add(f"{name}_scale", "Scale", [concat, gate], f"{name}/output", scale_param=whole)
