from pathlib import Path
from typing import Any

import pytest
import torch

from senet import SqueezeExcitation, weights
from senet.errors import OptionError, WeightsError
from senet.training.classification import prepare
from senet.training.config import Recipe, TrainConfig


def config(**values: Any) -> TrainConfig:
    return TrainConfig(**{"recipe": Recipe(epochs=2, batch_size=100, crop="pad", pad=1), **values})


def test_network_and_data_fit() -> None:
    job = prepare(config(se={"reduction": 8, "gate": "tanh"}, stages=(3, 4), placement="post"))
    model = job.state.model
    (batch,) = next(job.steps())
    x, labels = job.inputs(batch, 0)
    assert (x.shape, labels.shape) == ((100, 1, 8, 8), (100,))
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
    assert job.batch_size == 6, "fewer images than a batch make one batch"
    assert prepare(config(data=f"shards:{shard_folder}")).preprocessing.size == 8


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"model": "se_resnet2O"}, "Did you mean"),
        ({"se": {"gait": "tanh"}}, "Did you mean 'gate'"),
        ({"device": "cuda:99"}, "it cannot be used"),
        ({"data": "digit"}, "Did you mean 'digits'"),
        ({"stages": (7,)}, "there is no stage 7"),
        ({"options": {"dropuot": 0.1}}, "Allowed: shortcut, dropout, unit. Did you mean 'dropout'"),
        ({"options": {"num_classes": 5}}, "there is no option 'num_classes'"),
        ({"recipe": Recipe(batch_size=4, accumulate=5)}, "batch_size=4.*at least 5, processes times"),
        ({"recipe": Recipe(train_size=176)}, "train_size=176.*at most the size of the images, 8"),
        ({"recipe": Recipe(resize=256)}, "resize=256.*at most twice"),
        ({"recipe": Recipe(repeats=5000)}, "repeats=5000.*at most the number of images, 1437"),
        ({"image_size": 2, "model": "vgg16_bn"}, "Set another --image_size"),
    ],
)
def test_what_is_wrong_shows_before_the_run(values: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        prepare(config(**values))


def test_it_starts_from_weights_of_the_same_classes_or_with_a_new_head(tmp_path: Path) -> None:
    first = prepare(config(seed=5))
    weights.save(first.state.model, tmp_path / "w.safetensors", header=first.header())
    again = prepare(config(weights=str(tmp_path / "w.safetensors")))
    for key, tensor in first.state.model.state_dict().items():
        assert torch.equal(again.state.model.state_dict()[key], tensor)
    other = first.header() | {"classes": [f"the {name}" for name in first.data.classes]}
    weights.save(first.state.model, tmp_path / "other.safetensors", header=other)
    with pytest.raises(WeightsError, match=r"the weights know 10 classes.*Add --new_head true"):
        prepare(config(weights=str(tmp_path / "other.safetensors")))
    fresh = prepare(config(weights=str(tmp_path / "other.safetensors"), new_head=True)).state.model
    changed = {
        key
        for key, tensor in first.state.model.state_dict().items()
        if not torch.equal(fresh.state_dict()[key], tensor)
    }
    assert changed == {"fc.weight", "fc.bias"}


def test_balanced_and_repeated_orders_follow_the_recipe() -> None:
    balanced = prepare(config(recipe=Recipe(batch_size=100, balanced=True)))
    (batch,) = next(balanced.steps())
    assert torch.bincount(batch.labels).tolist() == [10] * 10
    repeated = prepare(config(recipe=Recipe(batch_size=100, repeats=4)))
    keys = next(iter(repeated.order()))
    assert len({key.image for key in keys}) == 25
