import pytest

pytest.importorskip("torchvision")

from senet.detection.catalogue import catalogue
from senet.detection.detector import faster_rcnn
from senet.models import build


def test_a_row_counts_what_is_built_and_names_where_a_precision_is_printed() -> None:
    trunks = ("resnet18", "se_resnet50")
    plain, printed = catalogue(f"fasterrcnn_{name}_fpn" for name in trunks).rows
    built = faster_rcnn(build("resnet18"))
    assert plain == {
        "detector": "fasterrcnn_resnet18_fpn",
        "classes": 80,
        "parameters": sum(each.numel() for each in built.parameters()),
        "AP, as published": None,
    }
    assert printed["AP, as published"] == "40.4 (Table 7)"
