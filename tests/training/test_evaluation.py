import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import senet
from senet.data import open_data
from senet.data.preprocessing import Preprocessing, preprocessing_for
from senet.errors import OptionError, WeightsError
from senet.training.evaluation import Evaluation, batches_of, evaluate, evaluate_named

CPU = torch.device("cpu")
PREPROCESSING = Preprocessing(1, 2, 2, (0.0,), (1.0,))


class Scores(nn.Module):
    """Gives the images' pixels as scores, and refuses to run in training mode."""

    def forward(self, x: Tensor) -> Tensor:
        assert not self.training
        return x.flatten(1) * 255


def _count_by_hand(scores: Tensor, labels: Tensor, k: int) -> int:
    correct = 0
    for row, label in zip(scores.tolist(), labels.tolist(), strict=True):
        correct += sorted(range(len(row)), key=lambda i: -row[i]).index(label) < k
    return correct


@pytest.mark.parametrize("side", [1, 2, 3])
def test_counts_are_exact_for_any_batches(side: int) -> None:
    classes = side * side
    # All scores of an image differ, so that there is one right order.
    images = torch.stack([torch.randperm(200)[:classes] for _ in range(53)]).to(torch.uint8)
    images = images.view(53, 1, side, side)
    labels = torch.randint(classes, (53,))
    found = []
    for batch in (1, 7, 53):

        def batches(batch: int = batch) -> Iterator[tuple[Tensor, Tensor]]:
            yield from zip(images.split(batch), labels.split(batch), strict=True)

        found.append(evaluate(Scores(), batches(), PREPROCESSING, device=CPU))
    scores = images.flatten(1).float()
    assert {(e.images, e.correct1, e.correct5) for e in found} == {
        (53, _count_by_hand(scores, labels, 1), _count_by_hand(scores, labels, 5))
    }
    loss = torch.nn.functional.cross_entropy(scores.double(), labels).item()
    assert all(math.isclose(e.loss, loss, rel_tol=1e-5) for e in found)


def test_the_mode_comes_back_even_after_an_error() -> None:
    model = Scores().train()
    with pytest.raises(ZeroDivisionError):
        evaluate(model, (1 // 0 for _ in range(1)), PREPROCESSING, device=CPU)  # type: ignore[misc]
    assert model.training
    part = nn.Sequential(model, nn.Dropout()).train()
    model.eval()
    evaluate(part, [(torch.zeros(1, 1, 2, 2), torch.zeros(1).long())], PREPROCESSING, device=CPU)
    assert (part.training, model.training) == (True, False), "a part that was frozen stays so"


def test_per_cent() -> None:
    found = Evaluation(images=200, correct1=150, correct5=199, loss=0.5).to_dict()
    assert (found["top1"], found["top5"]) == (75.0, 99.5)


def test_weights_bring_their_preprocessing_and_data(tmp_path: Path) -> None:
    data = open_data("digits")
    preprocessing = preprocessing_for(data.train, 1, image_size=16, network_size=32)
    model = senet.build("se_resnet20", num_classes=10, in_channels=1)
    model.to(memory_format=torch.channels_last)
    path = tmp_path / "w.safetensors"
    header: dict[str, Any] = {
        "preprocessing": preprocessing.to_dict(),
        "classes": list(data.classes),
        "data": "digits",
    }
    senet.weights.save(model, path, header=header)
    wanted = evaluate(model, batches_of(data.test, preprocessing), preprocessing, device=CPU)
    assert evaluate_named(str(path)) == {"model": str(path), "data": "digits"} | wanted.to_dict()

    def refused(words: str, **changes: Any) -> None:
        senet.weights.save(model, path, header=header | changes)
        with pytest.raises(WeightsError, match=words):
            evaluate_named(str(path))

    refused(r"the weights know 3 classes \(a, b, c", classes=["a", "b", "c"])
    refused("the same classes in the same order", classes=list(reversed(data.classes)))
    refused("preprocessing is unreadable", preprocessing={"size": 8})
    colour = preprocessing.to_dict() | {"channels": 3, "mean": (0.5,) * 3, "std": (0.5,) * 3}
    refused("images of 3 channels, the data has 1", preprocessing=colour)


def test_a_name_needs_weights_and_weights_need_data(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="Give --weights"):
        evaluate_named("se_resnet20", data="digits")
    path = tmp_path / "w.safetensors"
    senet.weights.save(senet.build("se_resnet20", num_classes=10, in_channels=1), path)
    with pytest.raises(OptionError, match="Give --data"):
        evaluate_named("se_resnet20", weights=str(path))
    with pytest.raises(WeightsError, match="Give --preprocessing: data"):
        evaluate_named("se_resnet20", weights=str(path), data="digits")
    found = evaluate_named("se_resnet20", weights=str(path), data="digits", preprocessing="data")
    assert found["images"] == 360
    with pytest.raises(WeightsError, match="images of 3 channels, the data has 1"):
        evaluate_named("se_resnet20", weights=str(path), data="digits", preprocessing="imagenet")
    with pytest.raises(WeightsError, match="the weights are of se_resnet20"):
        evaluate_named("resnet20", weights=str(path), data="digits", preprocessing="data")
