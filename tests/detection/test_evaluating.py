import dataclasses
from pathlib import Path
from typing import Any

import pytest
from tests.detection.small import config

import senet
from senet import detection
from senet.detection.coco import open_coco
from senet.detection.evaluating import evaluate_detector
from senet.detection.job import prepare
from senet.errors import OptionError, WeightsError


@pytest.fixture
def weights(coco_folder: Path, tmp_path: Path) -> Path:
    job = prepare(config(coco_folder))
    senet.weights.save(job.state.model, tmp_path / "w.safetensors", header=job.header())
    return tmp_path / "w.safetensors"


def test_the_weights_say_their_data(weights: Path, coco_folder: Path) -> None:
    job = prepare(config(coco_folder))
    name, found = evaluate_detector(weights, workers=0)
    assert name == f"coco:{coco_folder}"
    assert found.to_dict() == job.evaluate().to_dict()
    name, found = evaluate_detector(weights, data=f"coco:{coco_folder},images=2", batch_size=1, workers=0)
    assert (name, found.images) == (f"coco:{coco_folder},images=2", 2)


def test_weights_of_other_data(coco_folder: Path, tmp_path: Path) -> None:
    job = prepare(config(coco_folder))
    header = {**job.header(), "classes": ["blue", "red"]}
    senet.weights.save(job.state.model, tmp_path / "w.safetensors", header=header)
    with pytest.raises(WeightsError, match=r"the weights know 2 categories \(blue, red"):
        evaluate_detector(tmp_path / "w.safetensors")
    seven: Any = job.state.model.config
    seven = dataclasses.replace(seven, num_classes=7).build()
    detection.save(seven, tmp_path / "w.safetensors", header={"data": header["data"]})
    with pytest.raises(WeightsError, match="the weights know 7 categories, the data has 2"):
        evaluate_detector(tmp_path / "w.safetensors")
    del header["data"]
    senet.weights.save(job.state.model, tmp_path / "w.safetensors", header=header)
    with pytest.raises(OptionError, match="Give --data coco:DIR"):
        evaluate_detector(tmp_path / "w.safetensors")


def test_no_batch(weights: Path, coco_folder: Path) -> None:
    assert len(open_coco(f"coco:{coco_folder}").test) == 3
    with pytest.raises(OptionError, match="batch_size"):
        evaluate_detector(weights, batch_size=0)
