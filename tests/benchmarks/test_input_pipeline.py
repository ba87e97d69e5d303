"""The stages that the benchmark times are those that the loader goes through, and it leaves no trace."""

import sys
from pathlib import Path

import pytest
import torch

from senet.data.source import decode
from senet.training.classification import prepare
from senet.training.config import Recipe, TrainConfig

# Scripts, that find each other beside them.
sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import input_pipeline


def test_the_stages_add_up(image_folder: Path) -> None:
    recipe = Recipe(batch_size=4, crop="pad", pad=2, flip=True)
    job = prepare(TrainConfig(model="se_resnet20", data=f"folder:{image_folder}", recipe=recipe, workers=0))
    threads = torch.get_num_threads()
    rows = input_pipeline.stages(job, count=6, turns=3)
    micros = {row["stage"]: row["us an image"] for row in rows}
    *parts, whole = micros.values()
    assert list(micros)[-1] == "all"
    assert min(parts) > 0
    # Medians need not add up to the median.
    assert sum(parts) == pytest.approx(whole, rel=0.5)
    assert {row["images"] for row in rows} == {6}
    assert torch.get_num_threads() == threads
    assert vars(sys.modules["senet.data.source"])["decode"] is decode
    assert "read" not in vars(job.data.train)


def test_a_run_trains_and_its_clock_does_not_run_while_it_warms_up(image_folder: Path) -> None:
    recipe = Recipe(batch_size=3, epochs=10)
    job = prepare(TrainConfig(model="se_resnet20", data=f"folder:{image_folder}", recipe=recipe, workers=0))
    before = [parameter.clone() for parameter in job.state.model.parameters()]
    done: list[int] = []
    seconds = input_pipeline.Run(job, job.steps, lambda job, batches: done.append(len(batches)), 2)()
    assert done == [1, 1, 1]
    assert 0 < seconds < 60
    input_pipeline.train(job, next(job.steps()))
    assert any(not torch.equal(*pair) for pair in zip(before, job.state.model.parameters(), strict=True))
