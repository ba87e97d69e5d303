import math
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from senet.data.preprocessing import Preprocessing
from senet.errors import WeightsError
from senet.evaluation.predicting import class_names, predict
from senet.weights.classes import devkit_numbers

PREPARED = Preprocessing(3, 4, 4, (0.0,) * 3, (1.0,) * 3)
NAMES = ["red", "green", "blue"]


class Means(nn.Module):
    """Scores each channel by its mean, in the upper half of the image."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, :2].mean((2, 3))


def pictures(folder: Path) -> list[Path]:
    paths = []
    for place, name in enumerate(NAMES * 2):
        colour = [0, 0, 0]
        colour[place % 3] = 255
        paths.append(folder / f"{place}-{name}.png")
        Image.new("RGB", (8, 8), tuple(colour)).save(paths[-1])
    return paths


@pytest.mark.parametrize("batch_size", [1, 4, 100])
@pytest.mark.parametrize("workers", [0, 2])
def test_each_image_once_and_in_order(batch_size: int, workers: int, tmp_path: Path) -> None:
    paths = pictures(tmp_path)
    found = list(predict(Means(), paths, PREPARED, NAMES, top=2, batch_size=batch_size, workers=workers))
    assert [each.image for each in found] == paths
    assert [each.guesses[0].label for each in found] == NAMES * 2
    assert all(each.guesses[0].number == place % 3 for place, each in enumerate(found))
    for each in found:
        first, second = each.guesses
        assert first.probability == pytest.approx(math.e / (math.e + 2))
        assert second.probability == pytest.approx(1 / (math.e + 2))


def test_broken_images_stand_where_they_were(tmp_path: Path) -> None:
    paths = pictures(tmp_path)
    paths[2].write_bytes(b"no image")
    paths.insert(0, tmp_path / "none.png")
    model = Means().train()
    found = list(predict(model, paths, PREPARED, NAMES, batch_size=2))
    assert [each.broken is not None for each in found] == [True, False, False, True, False, False, False]
    assert "none.png" in str(found[0].broken)
    assert [len(each.guesses) for each in found] == [0, 3, 3, 0, 3, 3, 3]
    assert model.training
    assert not list(predict(model, [], PREPARED, NAMES))
    assert [each.guesses for each in predict(model, paths[:1], PREPARED, NAMES)] == [()]


def test_images_are_turned_as_the_camera_was_held(tmp_path: Path) -> None:
    image = Image.new("RGB", (4, 4), (0, 0, 255))
    image.paste((255, 0, 0), (0, 2, 4, 4))
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    image.save(tmp_path / "held.png", exif=exif)
    (found,) = predict(Means(), [tmp_path / "held.png"], PREPARED, NAMES)
    assert found.guesses[0].label == "red"


def test_names_of_classes() -> None:
    assert class_names({"classes": ["a", "b"]}, 2) == ["a", "b"]
    assert class_names({}, 3) == ["0", "1", "2"]
    with pytest.raises(WeightsError, match="the weights name 2 classes, and the network has 3"):
        class_names({"classes": ["a", "b"]}, 3)
    names = class_names({}, 1000)
    assert (names[0], names[-1]) == ("tench", "toilet tissue")
    of_the_devkit = class_names({"class_order": "devkit"}, 1000)
    assert [of_the_devkit[number - 1] for number in devkit_numbers()] == names


def test_scores_of_other_classes(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"gives \(3,\) for an image, and there are 2 names"):
        list(predict(Means(), pictures(tmp_path), PREPARED, NAMES[:2]))
    assert torch.is_grad_enabled()
