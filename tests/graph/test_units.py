from collections import Counter

import pytest
import torch
import torchvision

from senet.graph.trace import trace
from senet.graph.units import find_units

# By hand, from the papers' tables: units per network.
EXPECTED = {
    "resnet18": {"residual": 8},
    "resnet50": {"residual": 16},
    "vgg16_bn": {"plain": 13},
    "alexnet": {"plain": 5},
    "googlenet": {"inception": 9},
    "inception_v3": {"inception": 11},
    "squeezenet1_1": {"inception": 8},
    "mobilenet_v2": {"inverted": 17},
    "mobilenet_v3_small": {"inverted": 11},
    "mnasnet1_0": {"inverted": 17},
    "densenet121": {"dense": 6 + 12 + 24 + 16},
    "shufflenet_v2_x1_0": {"inception": 3, "dense": 13},
    "convnext_tiny": {"residual": 18},
    "regnet_x_400mf": {"residual": 1 + 2 + 7 + 12},
    "vit_b_16": {},
}


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("name", EXPECTED)
def test_units_of_known_networks(name: str) -> None:
    model = torchvision.models.get_model(name, weights=None)
    found = find_units(trace(model, torch.empty(2, 3, 224, 224)))
    assert Counter(unit.kind for unit in found.units) == EXPECTED[name]
    assert sum(unit.gate is not None for unit in found.units) == (9 if name == "mobilenet_v3_small" else 0)
    assert [unit.leaving for unit in found.units] == sorted(unit.leaving for unit in found.units)
