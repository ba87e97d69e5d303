"""What SE costs a training step: a network against its plain twin, eager or compiled.

    python benchmarks/training_step.py --network resnet20 --batch 128

Before it reports, it checks that the SE network with the identity start gives the plain
network's outputs: the two do the same work but for SE.
"""

from __future__ import annotations

import argparse

import torch
from timing import alternate, compare, publish
from torch import nn
from torch.nn import functional as F

import senet


def main() -> None:
    """Measures, prints and writes the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", default="resnet20", help="a plain name of `senet models`")
    parser.add_argument("--batch", type=int, default=128, help="images a step")
    parser.add_argument("--rounds", type=int, default=21, help="steps of each")
    parser.add_argument("--compiled", action="store_true", help="by torch.compile")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    names = (options.network, f"se_{options.network}")
    identity = senet.SEConfig(init="identity")
    models = {name: senet.build(name, se=identity if name.startswith("se_") else None) for name in names}
    plain, se = models.values()
    se.load_state_dict(plain.state_dict(), strict=False)
    size = senet.info(options.network).input_size
    x = torch.randn(options.batch, *size, device=device).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(1000, (options.batch,), device=device)
    for model in models.values():
        model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    torch.testing.assert_close(se(x), plain(x))

    mode = "compiled" if options.compiled else "eager"
    for model in models.values():
        if options.compiled:
            model.compile()
    steps = {name: Step(model, x, labels) for name, model in models.items()}
    rows = compare(alternate(steps, options.rounds), options.network)
    settings = {"device": str(device), "batch": options.batch, "size": size, "dtype": "float32", "mode": mode}
    suffix = "-compiled" if options.compiled else ""
    publish(f"training_step-{options.network}-{device.type}{suffix}", rows, settings)


class Step:
    """One step of SGD, ready to be called."""

    def __init__(self, model: nn.Module, x: torch.Tensor, labels: torch.Tensor) -> None:
        self.model, self.x, self.labels = model, x, labels
        self.optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)

    def __call__(self) -> None:
        """Forward, backward, update."""
        self.optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(self.model(self.x), self.labels).backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()


if __name__ == "__main__":
    main()
