"""A detector that is built and trained in a moment."""

from pathlib import Path
from typing import Any

from senet.training.config import Recipe, TrainConfig

NAME = "fasterrcnn_se_mobilenet_v1_fpn"
OPTIONS = {"width": 0.25, "min_size": 48, "max_size": 64, "sampled_boxes": 16}


def config(folder: Path, **values: Any) -> TrainConfig:
    """Two epochs of two steps on the images in ``folder``."""
    recipe = {"epochs": 2, "batch_size": 3, "lr": 0.01, "flip": True, **values.pop("recipe", {})}
    return TrainConfig(
        **{
            "model": NAME,
            "data": f"coco:{folder}",
            "recipe": Recipe(**recipe),
            "options": OPTIONS,
            "workers": 0,
            **values,
        }
    )
