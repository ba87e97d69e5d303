"""The detectors in a table: what they cost, counted here, beside what the paper prints of their trunks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from senet.block import SEConfig
from senet.detection.detector import DetectorConfig, backbone_of
from senet.models import NetworkConfig, info
from senet.tables import Table


def catalogue(names: Iterable[str]) -> Table:
    """A row a detector.

    Args:
        names: of ``list_detectors()``.
    """
    return Table([_row(name) for name in names])


def _row(name: str) -> dict[str, Any]:
    trunk = info(backbone_of(name))
    config = DetectorConfig(NetworkConfig(trunk.name, se=SEConfig() if trunk.se else None))
    with torch.device("meta"):
        parameters = sum(each.numel() for each in config.build().parameters())
    printed = [each for each in trunk.published if each.data == "COCO" and each.column == "ap"]
    return {
        "detector": name,
        "classes": config.num_classes,
        "parameters": parameters,
        "AP, as published": f"{printed[0]} ({printed[0].where})" if printed else None,
    }
