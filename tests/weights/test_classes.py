import pytest
import torch

from senet.errors import OptionError, WeightsError
from senet.weights.classes import devkit_numbers, in_synset_order, reorder


def test_the_order_is_a_permutation_with_the_known_classes() -> None:
    numbers = devkit_numbers()
    assert sorted(numbers) == list(range(1, 1001))
    # The first image for validation is of class 65 of the sorted synsets, and of number 490 in the devkit.
    assert numbers[65] == 490


def test_scores_come_in_the_order_of_the_synsets() -> None:
    devkit = torch.arange(1, 1001)  # a score that says the number of its class
    assert in_synset_order(devkit).tolist() == list(devkit_numbers())


def test_a_classifier_is_reordered_or_kept() -> None:
    tensors = {"fc.weight": torch.randn(1000, 4), "fc.bias": torch.randn(1000), "conv1.weight": torch.ones(1)}
    asked = {"classifier": "fc", "asked": "w"}
    x = torch.randn(3, 4)
    scores = x @ tensors["fc.weight"].T + tensors["fc.bias"]
    ours = reorder(tensors, "synset", **asked)
    expected = scores[:, torch.tensor(devkit_numbers()) - 1]
    torch.testing.assert_close(x @ ours["fc.weight"].T + ours["fc.bias"], expected)
    assert ours["conv1.weight"] is tensors["conv1.weight"]
    assert reorder(tensors, "devkit", **asked) is tensors


def test_what_cannot_be_reordered() -> None:
    with pytest.raises(WeightsError, match=r"\(10, 4\), not of ImageNet's 1000"):
        reorder({"fc.weight": torch.ones(10, 4)}, "synset", classifier="fc", asked="w")
    with pytest.raises(OptionError, match="Did you mean 'devkit'"):
        reorder({}, "devkits", classifier="fc", asked="w")
