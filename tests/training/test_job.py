from pathlib import Path
from typing import Any

import pytest
import torch

from senet import SqueezeExcitation
from senet.errors import OptionError
from senet.training.config import Recipe, TrainConfig
from senet.training.job import prepare


def config(**values: Any) -> TrainConfig:
    return TrainConfig(**{"recipe": Recipe(epochs=2, batch_size=100, crop="pad", pad=1), **values})


def test_network_and_data_fit() -> None:
    job = prepare(config(se={"reduction": 8, "gate": "tanh"}, stages=(3, 4), placement="post"))
    model = job.state.model
    images, labels = next(iter(job.train_batches))
    x, labels = job.to_device(images, labels)
    assert x.shape == (100, 1, 8, 8)
    assert x.is_contiguous(memory_format=torch.channels_last)
    assert model(x).shape == (100, 10)
    blocks = [m for m in model.modules() if isinstance(m, SqueezeExcitation)]
    assert len(blocks) == 6
    assert {(b.config.gate, b.config.reduction) for b in blocks} == {("tanh", 8)}
    assert any("1,437 to train on" in line for line in job.description())
    assert any("6 SE blocks" in line for line in job.description())


def test_options_of_the_network() -> None:
    job = prepare(config(model="mobilenet_v1", options={"width": 0.25}, image_size=32))
    assert job.resolved()["network"]["options"] == {"width": 0.25}
    assert job.state.model(torch.zeros(2, 1, 32, 32)).shape == (2, 10)


def test_the_seed_decides_the_weights() -> None:
    def weight(seed: int) -> torch.Tensor:
        return next(prepare(config(seed=seed)).state.model.parameters())

    assert torch.equal(weight(0), weight(0))
    assert not torch.equal(weight(0), weight(1))


def test_folders_and_shards(image_folder: Path, shard_folder: Path) -> None:
    job = prepare(config(model="se_resnet18", data=f"folder:{image_folder}"))
    assert (job.preprocessing.size, job.preprocessing.channels) == (40, 3)
    assert job.order.batch_size == 6, "fewer images than a batch make one batch"
    assert prepare(config(data=f"shards:{shard_folder}")).preprocessing.size == 8


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"model": "se_resnet2O"}, "Did you mean"),
        ({"se": {"gait": "tanh"}}, "Did you mean 'gate'"),
        ({"device": "cuda:99"}, "it cannot be used"),
        ({"data": "digit"}, "Did you mean 'digits'"),
        ({"stages": (7,)}, "there is no stage 7"),
        ({"options": {"dropuot": 0.1}}, "Allowed: shortcut, dropout. Did you mean 'dropout'"),
        ({"options": {"num_classes": 5}}, "there is no option 'num_classes'"),
    ],
)
def test_what_is_wrong_shows_before_the_run(values: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        prepare(config(**values))
