"""Training that finds objects in images; what is wrong in a configuration shows up here, before any step."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from senet import weights as weight_files
from senet.block import SEConfig
from senet.data.augmentation import Augmentation
from senet.data.stream import Batch, Images, Loader
from senet.detection.boxes import WithBoxes, batches_of, collated
from senet.detection.coco import CocoData, is_coco, open_coco
from senet.detection.detector import Detector, DetectorConfig, ForeignBackbone, backbone_of, config_of
from senet.detection.precision import Precision, evaluate
from senet.errors import DataError, OptionError, WeightsError, check_options, require
from senet.evaluation.classification import Batches
from senet.models import NetworkConfig, info, list_models
from senet.runtime.device import device_named, worker_count
from senet.runtime.processes import ALONE, Processes
from senet.training.config import Recipe, TrainConfig
from senet.training.job import Job, check_shares, memory_format_of, trained
from senet.training.loop import TrainResult, run
from senet.weights import Weights

# Options of a detector; all others are its backbone's.
_OF_IMAGES = ("mean", "std")
_OWN = ("min_size", "max_size", "sampled_boxes", *_OF_IMAGES)
# What a recipe says that means nothing here: images are mirrored, and no more.
_OF_CLASSIFIERS = (
    *(each.name for each in dataclasses.fields(Augmentation) if each.name != "flip"),
    *("label_smoothing", "balanced", "squash", "resize"),
)
_MOST_NAMED = 20


@dataclass(frozen=True)
class Detection(Job[Precision]):
    """A detector that is to learn the boxes in images.

    Args:
        data: the images.
    """

    data: CocoData

    def steps(self) -> Generator[list[Batch]]:
        """The batches of each step that is still to be done, in their parts."""
        transform = WithBoxes(flip=self.config.recipe.flip)
        images = Images(self.data.train, transform, self.config.seed, replace=True)
        yield from self.in_parts(
            Loader(
                images,
                self.order(self.state.step),
                workers=self.workers,
                pin_memory=self.device.type == "cuda",
                collate=collated,
            )
        )

    def inputs(self, batch: Batch, part: int) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
        """A batch as the detector takes it: images of values from 0 to 1, targets, on its device."""
        self.seed(part)
        images = [image.to(self.device, non_blocking=True) / 255 for image in batch.images]
        keys = ("boxes", "labels")
        targets = [
            {key: target[key].to(self.device, non_blocking=True) for key in keys} for target in batch.labels
        ]
        return images, targets

    def loss(self, batch: Batch, part: int, network: nn.Module) -> Tensor:
        """The four losses of a batch, which are means over its images, as sums over them."""
        images, targets = self.inputs(batch, part)
        with self.autocast():
            losses = network(images, targets)
        total: Tensor = sum(loss.float() for loss in losses.values())
        return total * len(images)

    def test_batches(self) -> Batches:
        """Every test image once, over all processes."""
        return batches_of(self.data.test, workers=self.workers, processes=self.processes)

    def test(self, batches: Batches) -> Precision:
        """The precision of the tested detector on these batches."""
        return evaluate(self.state.tested, batches, self.data, device=self.device, processes=self.processes)

    def header(self) -> dict[str, Any]:
        """What the weights of this run say beside the tensors: the detector, its classes, the data."""
        config: Any = self.state.model.config
        categories = list(self.data.categories)
        return {"detector": config.to_dict(), "categories": categories, **super().header()}

    def resolved(self) -> dict[str, Any]:
        """What the configuration left open, as it was decided: detector, device; and faults in the data."""
        faults = [*self.data.faults, *(f"{path} is missing" for path in self.data.missing)]
        return {**super().resolved(), **({"faults": faults} if faults else {})}

    def description(self) -> Iterable[str]:
        """The run in a few lines, for people, and what is wrong in the data."""
        yield from super().description()
        for what, found in (("faults", self.data.faults), ("missing", self.data.missing)):
            if found:
                left_out = "annotations, left out" if what == "faults" else "images without a file"
                yield f"{what:8} {len(found):,} {left_out}:"
                yield from (f"         {each}" for each in found[:_MOST_NAMED])
                if len(found) > _MOST_NAMED:
                    yield f"         ... and {len(found) - _MOST_NAMED:,} more, all in the run's passport"


def prepare(
    config: TrainConfig, processes: Processes = ALONE, *, backbone: nn.Module | None = None
) -> Detection:
    """Builds all that a run needs and writes nothing.

    Args:
        config: what decides the run; its model is fasterrcnn_BACKBONE_fpn, its data coco:DIR.
        processes: which of them this is.
        backbone: a network in place of the one that the name says, such as one with SE inserted by hand.

    Raises:
        OptionError: a name or a value is not allowed, or is for classifiers.
        DataError: annotations or images are missing or broken.
        WeightsError: the weights to start from cannot be read, or do not fit.
    """
    recipe = config.recipe
    device = device_named(config.device)
    _check(config)
    data = open_coco(config.data)
    if len(data.missing) > config.broken_images:
        raise DataError(
            f"data {config.data!r}",
            found=f"{len(data.missing):,} images have no file, such as {data.missing[0]}",
            allowed=f"--broken_images {config.broken_images}",
        )
    check_shares(config, len(data.train), processes)
    torch.manual_seed(config.seed)
    model, config = _detector(config, data, backbone)
    model.freeze(stages=recipe.frozen_stages, norms=recipe.frozen_norms)
    memory_format = memory_format_of(config)
    model.to(device, memory_format=memory_format)  # type: ignore[call-overload]
    state, called = trained(model, config, processes)
    return Detection(
        config=config,
        processes=processes,
        device=device,
        memory_format=memory_format,
        data=data,
        state=state,
        network=called,
        workers=worker_count(config.workers, device),
    )


def train(
    config: TrainConfig, *, backbone: nn.Module | None = None, **how: Any
) -> TrainResult[Detection, Precision]:
    """Trains a detector and writes its run folder, as ``senet.training.loop.train`` does a classifier's.

    Args:
        config: what decides the run; see ``prepare``.
        backbone: a network in place of the one that the name says.
        **how: resume, say, watch and bar, as there.
    """
    return run(functools.partial(prepare, backbone=backbone), config, **how)


def _check(config: TrainConfig) -> None:
    """Raises OptionError for what is no detector's."""
    backbone = backbone_of(config.model)
    if not is_coco(config.data):
        raise OptionError(
            f"{config.model} on {config.data!r}", "these images have no boxes", "coco:DIR, for a detector"
        )
    known = [*_OWN, *(info(backbone).options if backbone in list_models() else ())]
    check_options(f"--options of {config.model}", config.options, known)
    for name in _OF_CLASSIFIERS:
        value, default = getattr(config.recipe, name), getattr(Recipe(), name)
        require(name, value, value == default, f"{default}: a detector's images are mirrored, and no more")
    plateau = config.recipe.schedule == "plateau"
    require("schedule", config.recipe.schedule, not plateau, "cosine or step: its test gives no loss")
    size = config.image_size
    require("image_size", size, size is None, "none: a detector has --options.min_size and max_size")


def _detector(config: TrainConfig, data: CocoData, given: nn.Module | None) -> tuple[Detector, TrainConfig]:
    """The detector that a run starts with, and the config with what the weights said about images."""
    name = backbone_of(config.model)
    ours = name in list_models()
    found = None
    if config.weights is not None:
        found = weight_files.recognise(config.weights) if ours else weight_files.as_they_are(config.weights)
    options = {**_images_of(found), **config.options}
    own: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in options.items()
        if key in _OWN
    }
    backbone = _backbone(config, name) if given is None else config_of(given)
    settings = DetectorConfig(backbone, len(data.classes), **own)
    whole = found is not None and "detector" in found.header
    trunk = None if whole else found
    if isinstance(backbone, ForeignBackbone) and given is None:
        network = backbone.build(trunk)
    else:
        network = backbone.build() if given is None else given
        if trunk is not None:
            # Before the head is taken out, which the weights have.
            weight_files.load(network, trunk, head=False)
    model = Detector(network, settings)
    if found is not None and whole:
        _start_from(model, found, config, data)
    return model, dataclasses.replace(config, options=options)


def _images_of(weights: Weights | None) -> dict[str, Any]:
    """What weights say of the images that they are for, as options of a detector."""
    said: Any = {} if weights is None else weights.header
    said = said.get("detector", said.get("preprocessing", {}))
    return {key: list(said[key]) for key in _OF_IMAGES if key in said}


def _backbone(config: TrainConfig, name: str) -> NetworkConfig | ForeignBackbone:
    se = SEConfig.from_dict(config.se) if config.se else None
    if name not in list_models():
        for option in ("placement", "stages", "layout"):
            value, default = getattr(config, option), getattr(TrainConfig(), option)
            require(option, value, value == default, f"{default}, for a network of another library")
        init = config.se.get("init", "identity")
        require("se.init", init, init == "identity", "identity, for blocks that are inserted")
        return ForeignBackbone(name, se)
    return NetworkConfig(
        name,
        se=(se or SEConfig()) if info(name).se or se else None,
        placement=config.placement,
        stages=config.stages,
        layout=config.layout,
        options={key: value for key, value in config.options.items() if key not in _OWN},
    )


def _start_from(model: Detector, found: Weights, config: TrainConfig, data: CocoData) -> None:
    """Loads the weights of a detector, without its last layers where these start afresh."""
    tensors = dict(found.tensors)
    classes = found.header.get("classes", list(data.classes))
    if config.new_head:
        last = "rcnn.roi_heads.box_predictor."
        state = model.state_dict()
        tensors = {key: state[key] if key.startswith(last) else value for key, value in tensors.items()}
    elif classes != list(data.classes):
        raise WeightsError(
            f"--weights {config.weights} for {config.data}",
            found=f"the weights know {len(classes)} classes, the data has {len(data.classes)}, or others",
            do="Add --new_head true to start the last layers afresh.",
        )
    weight_files.load(model, dataclasses.replace(found, tensors=tensors))
