"""The plain network that benchmarks compare with computes what the plain network does."""

import sys
from pathlib import Path

import torch

# Scripts, that find each other beside them.
sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import subjects


def test_a_plain_network_with_the_kernels_is_the_plain_network() -> None:
    x = torch.randn(4, 3, 16, 16, dtype=torch.float64)
    found = []
    for name in ("resnet20", "fused resnet20"):
        torch.manual_seed(0)
        model = subjects.load(name).double()
        model(x).square().sum().backward()
        found.append([*(each.grad for each in model.parameters()), *model.buffers(), model.eval()(x)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)
