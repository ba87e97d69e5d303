from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import senet
from senet.errors import OptionError, SenetError, WeightsError
from senet.evaluation.subject import subject_named

FAKE = "fake:3x32x32,images=40,classes=5"


def test_a_fresh_network_of_ours_fits_the_images() -> None:
    subject = subject_named("se_resnet20", data="digits", device="cpu")
    assert subject.random
    assert subject.preprocessing.size == 8
    assert subject.network(torch.zeros(1, 1, 8, 8)).shape == (1, 10)
    assert not subject.network.training


def test_a_file_of_ours_says_what_it_is(tmp_path: Path) -> None:
    fresh = subject_named("se_resnet20", data=FAKE, device="cpu")
    header = {
        "preprocessing": fresh.preprocessing.to_dict(),
        "data": FAKE,
        "classes": list(fresh.splits.classes),
    }
    path = tmp_path / "w.safetensors"
    senet.weights.save(fresh.network, path, header=header)
    x = torch.randn(2, 3, 32, 32)
    for subject in (
        subject_named(str(path), device="cpu"),
        subject_named("se_resnet20", weights=str(path), device="cpu"),
    ):
        assert not subject.random
        assert subject.preprocessing == fresh.preprocessing
        torch.testing.assert_close(subject.network(x), fresh.network(x))
    with pytest.raises(WeightsError, match="classes"):
        subject_named(str(path), data="fake:3x32x32,images=40,classes=6")
    with pytest.raises(WeightsError):
        subject_named("se_resnet32", weights=str(path))


def test_networks_of_others_with_their_weights_and_without(tmp_path: Path) -> None:
    torchvision: Any = pytest.importorskip("torchvision")
    from safetensors.torch import save_file

    fresh = subject_named("torchvision:mobilenet_v3_small", data=FAKE, device="cpu")
    assert fresh.random
    assert fresh.preprocessing.size == 32
    # Scores that are no classes of the data matter where the weights mean something.
    model = torchvision.models.mobilenet_v3_small()
    path = tmp_path / "theirs.safetensors"
    save_file(model.state_dict(), path)
    with pytest.raises(WeightsError, match=r"\(1000,\), the data has 5 classes"):
        subject_named("torchvision:mobilenet_v3_small", data=FAKE, weights=str(path))
    thousand = "fake:3x32x32,images=2000,classes=1000"
    loaded = subject_named(
        "torchvision:mobilenet_v3_small",
        data=thousand,
        weights=str(path),
        preprocessing="imagenet,size=64,resize=64",
    )
    assert (loaded.random, loaded.preprocessing.size) == (False, 64)
    x = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(loaded.network(x), model.eval()(x))
    with pytest.raises(SenetError):
        subject_named("torchvision:mobilenet_v3_large", data=thousand, weights=str(path))


def test_what_is_missing_is_told() -> None:
    with pytest.raises(OptionError, match="Give --data"):
        subject_named("se_resnet20")
    with pytest.raises(OptionError, match="3 channels, the data has 1"):
        subject_named("se_resnet20", data="digits", preprocessing="imagenet")
    with pytest.raises(OptionError, match="Did you mean"):
        subject_named("se_resnet21", data="digits")
