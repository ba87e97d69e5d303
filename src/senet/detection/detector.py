"""Faster R-CNN with a feature pyramid (Lin et al. 2017, arXiv 1612.03144) on any trunk."""

from __future__ import annotations

import dataclasses
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from senet import weights as weight_files
from senet.block import SEConfig
from senet.data.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from senet.detection.trunk import Trunk
from senet.errors import MissingExtraError, OptionError, WeightsError, did_you_mean, require, require_count
from senet.insertion.surgery import insert
from senet.models import NetworkConfig, info, list_models
from senet.models.foreign import is_foreign, load_foreign
from senet.normalisation import learns_statistics
from senet.weights import Weights
from senet.weights.sources import locate
from senet.weights.store import header_of, read

# What a file may name and have built: the user's own code is not imported because weights say so.
_KNOWN_LIBRARIES = ("timm", "torchvision")
_FORM = re.compile(r"fasterrcnn_(?P<backbone>.+)_fpn")


@dataclass(frozen=True)
class ForeignBackbone:
    """A network of another library, with SE inserted where there is a config for it.

    Args:
        name: ``timm:NAME``, ``torchvision:NAME`` or ``package.module:factory``.
        se: of the blocks to insert; None inserts none.
    """

    name: str
    se: SEConfig | None = None

    def build(self, weights: Weights | None = None) -> nn.Module:
        """The network, fresh or with weights of its library; what is inserted is always fresh."""
        network = load_foreign(self.name)
        if weights is not None:
            weight_files.load(network, weights)
        if self.se is not None:
            insert(network, **{**dataclasses.asdict(self.se), "init": "identity"})
        return network


@dataclass(frozen=True)
class DetectorConfig:
    """Everything that decides a detector but its weights.

    Args:
        backbone: the network under the pyramid; its classes are of no account.
        num_classes: of the objects, without the background.
        min_size: what the shorter edge of an image is resized to, in pixels.
        max_size: what the longer edge may be at most.
        sampled_boxes: how many proposals of an image the head is trained on.
        mean: of the images' channels, RGB, of values from 0 to 1.
        std: their deviation.

    Raises:
        OptionError: a value is not possible.
    """

    backbone: NetworkConfig | ForeignBackbone
    num_classes: int = 80
    min_size: int = 800
    max_size: int = 1333
    sampled_boxes: int = 512
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = field(default=IMAGENET_STD)

    def __post_init__(self) -> None:
        for name in ("num_classes", "min_size", "max_size", "sampled_boxes"):
            require_count(name, getattr(self, name))
        for name in ("mean", "std"):
            value = getattr(self, name)
            numbers = len(value) == 3 and all(isinstance(each, int | float) for each in value)
            require(name, value, numbers, "three numbers")
        require("std", self.std, all(each > 0 for each in self.std), "above 0")
        require("max_size", self.max_size, self.max_size >= self.min_size, f"at least {self.min_size}")

    @property
    def name(self) -> str:
        """As ``detector_named`` takes it."""
        return f"fasterrcnn_{self.backbone.name}_fpn"

    def build(self) -> Detector:
        """The detector, freshly initialised."""
        return Detector(self.backbone.build(), self)

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON can hold them."""
        values = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        if isinstance(self.backbone, NetworkConfig):
            backbone = self.backbone.to_dict()
        else:
            se = self.backbone.se
            backbone = {"foreign": self.backbone.name, "se": None if se is None else dataclasses.asdict(se)}
        return {**values, "backbone": backbone, "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The config that ``to_dict`` gave.

        Raises:
            OptionError: the backbone is of a module that only its user can have imported.
        """
        given = values["backbone"]
        backbone: NetworkConfig | ForeignBackbone
        if "foreign" in given:
            if given["foreign"].partition(":")[0] not in _KNOWN_LIBRARIES:
                raise OptionError(
                    f"a detector on {given['foreign']!r}",
                    found="a file names code of yours, which is not run because a file says so",
                    do="Build it with senet.detection.faster_rcnn, then call senet.weights.load.",
                )
            se = None if given["se"] is None else SEConfig.from_dict(given["se"])
            backbone = ForeignBackbone(given["foreign"], se)
        else:
            backbone = NetworkConfig.from_dict(given)
        tuples = {name: tuple(values[name]) for name in ("mean", "std")}
        return cls(**{**values, **tuples, "backbone": backbone})


class Detector(nn.Module):
    """Faster R-CNN: torchvision's, on a pyramid of 256 channels over a ``Trunk``.

    Head, anchors and thresholds are torchvision's, which are those of Detectron's FPN baselines: two layers
    of 1,024, boxes of 7 by 7 by RoIAlign, anchors of 32 to 512 pixels.

    Args:
        backbone: any CNN; it is changed, see ``Trunk``.
        config: classes and sizes; what rebuilds the detector, if its backbone is that.

    Raises:
        MissingExtraError: torchvision is not installed.
        OptionError: the backbone has no maps of the strides 4 to 32.
    """

    def __init__(self, backbone: nn.Module, config: DetectorConfig) -> None:
        super().__init__()
        try:
            from torchvision.models.detection import FasterRCNN
        except ImportError as error:
            raise MissingExtraError.of("torchvision", extra="detection", need="a detector") from error
        self.config = config
        self.rcnn = FasterRCNN(
            _Pyramid(Trunk(backbone)),
            num_classes=config.num_classes + 1,
            min_size=config.min_size,
            max_size=config.max_size,
            image_mean=list(config.mean),
            image_std=list(config.std),
            box_batch_size_per_image=config.sampled_boxes,
        )

    @property
    def trunk(self) -> Trunk:
        """The network under the pyramid."""
        trunk: Trunk = self.rcnn.backbone.trunk
        return trunk

    def forward(self, images: Sequence[Tensor], targets: Sequence[Mapping[str, Tensor]] | None = None) -> Any:
        """Losses in training, boxes in evaluation.

        Args:
            images: each (3, H, W), of values from 0 to 1, at its own size.
            targets: in training, for each ``boxes`` (K, 4), as left, top, right, bottom in pixels, and
                ``labels`` (K,), from 1.

        Raises:
            OptionError: there is no image.

        Returns:
            In training the four losses by name, each a mean over the images; in evaluation, for each image
            ``boxes`` (K, 4) in its own pixels, ``labels`` (K,) and ``scores`` (K,), the highest first.
        """
        require("images", images, len(images) > 0, "one or more")
        return self.rcnn(list(images), targets)

    def freeze(self, *, stages: int, norms: bool) -> None:
        """Has parts of the trunk stay as they are, as Detectron does with trunks that are trained.

        Args:
            stages: see ``Trunk.freeze``.
            norms: whether its batch norms keep their parameters; in evaluation mode they keep the rest.
        """
        self.trunk.freeze(stages)
        if norms:
            for norm in self.norms:
                norm.requires_grad_(False)

    @property
    def norms(self) -> list[nn.Module]:
        """The batch norms of the trunk; there are none elsewhere."""
        return [module for module in self.trunk.modules() if learns_statistics(module)]


class _Pyramid(nn.Module):
    """The trunk's four maps, merged from the coarsest down, and a fifth of stride 64."""

    out_channels = 256

    def __init__(self, trunk: Trunk) -> None:
        super().__init__()
        from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool

        self.trunk = trunk
        self.fpn = FeaturePyramidNetwork(trunk.channels, self.out_channels, LastLevelMaxPool())

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        maps = OrderedDict((str(level), each) for level, each in enumerate(self.trunk(x)))
        merged: dict[str, Tensor] = self.fpn(maps)
        return merged


def faster_rcnn(backbone: nn.Module, num_classes: int = 80, **values: Any) -> Detector:
    """A detector on a network that you have: of ours, timm's, torchvision's, with SE inserted or not.

    Args:
        backbone: any CNN with maps of the strides 4, 8, 16 and 32; its head is taken out.
        num_classes: of the objects, without the background.
        **values: min_size, max_size, sampled_boxes, mean, std; see ``DetectorConfig``.
    """
    return Detector(backbone, DetectorConfig(config_of(backbone), num_classes, **values))


def config_of(backbone: nn.Module) -> NetworkConfig | ForeignBackbone:
    """What a network is: what rebuilds it, or for one of others, and one that was changed, its class."""
    own = header_of(backbone).get("network")
    kind = type(backbone)
    return NetworkConfig.from_dict(own) if own else ForeignBackbone(f"{kind.__module__}:{kind.__name__}")


def is_detector(name: str) -> bool:
    """Whether a name is of the form fasterrcnn_BACKBONE_fpn."""
    return _FORM.fullmatch(name) is not None


def backbone_of(name: str) -> str:
    """BACKBONE of fasterrcnn_BACKBONE_fpn: a name of ``list_models()``, or of another library.

    Raises:
        OptionError: there is no such network.
    """
    found = _FORM.fullmatch(name)
    backbone = found["backbone"] if found else ""
    if backbone in list_models() or is_foreign(backbone):
        return backbone
    raise OptionError(
        f"a detector {name!r}",
        found=f"{backbone!r} is no network" if found else "it is not of the form",
        allowed="fasterrcnn_BACKBONE_fpn with a BACKBONE of senet.list_models(), timm:NAME, torchvision:NAME",
        do=did_you_mean(name, list_detectors()),
    )


def list_detectors() -> list[str]:
    """The detectors on networks of ours that were made for images of 224 pixels."""
    return [f"fasterrcnn_{name}_fpn" for name in list_models() if info(name).input_size[1] == 224]


def is_of_detector(model: str) -> bool:
    """Whether these are weights of a detector: a file, a run folder, or hf:ORG/NAME, which is fetched."""
    path = locate(model).path if model.startswith("hf:") else model
    try:
        header, _ = read(path, tensors=False)
    except WeightsError:  # whoever reads them says why
        return False
    return "detector" in header


def load(weights: str | Path | Weights) -> Detector:
    """The detector whose weights these are, in evaluation mode.

    Args:
        weights: a file that ``save`` or a run wrote, or a run folder.

    Raises:
        OptionError: its backbone is code of the user's.
        WeightsError: the file cannot be read, or is not of a detector.
    """
    found = weight_files.recognise(weights)
    asked = f"weights {found.source!r}"
    if "detector" not in found.header:
        raise WeightsError(asked, "they are of no detector", do="senet.load reads those of a classifier.")
    try:
        config = DetectorConfig.from_dict(found.header["detector"])
        with torch.device("meta"):
            claimed = {key: value.shape for key, value in config.build().state_dict().items()}
    except (AttributeError, KeyError, TypeError, RuntimeError) as error:
        raise WeightsError(
            asked,
            found=f"the detector that they name cannot be built ({error})",
            do="Load them with the version of senet that wrote them.",
        ) from error
    # Before there is memory for what they claim.
    if claimed != {key: value.shape for key, value in found.tensors.items()}:
        raise WeightsError(asked, f"their tensors are not those of the {config.name} that they name")
    classes = found.header.get("classes")
    if classes is not None and len(classes) != config.num_classes:
        raise WeightsError(asked, f"they name {len(classes)} classes and have {config.num_classes}")
    detector = config.build()
    weight_files.load(detector, found)
    return detector.eval()


def save(detector: Detector, path: str | Path, *, header: Mapping[str, Any] | None = None) -> None:
    """Writes a detector's weights, from which ``load`` makes it again.

    Args:
        detector: to be written.
        path: of the file, conventionally ``.safetensors``.
        header: what else the file shall say, such as ``classes``.

    Raises:
        WeightsError: the file cannot be written.
    """
    weight_files.save(detector, path, header={**(header or {}), "detector": detector.config.to_dict()})
