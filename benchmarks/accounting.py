"""What SE costs in bytes: exact figures, the same on any machine, with or without a GPU.

    python benchmarks/accounting.py --batch 256
    python benchmarks/accounting.py --networks se_resnet50 timm:seresnet50 timm:resnet50

For each network: what its compiled training step moves in elementwise kernels and reductions on a GPU
(bfloat16, channels-last, see ``lowering``), and eagerly the passes at the end of a residual branch and
what is kept for the backward (float32, see ``eager``).
"""

from __future__ import annotations

import argparse
from typing import Any

from eager import saved_mib, tail_passes
from lowering import lower
from timing import publish

NETWORKS = ("timm:resnet50", "timm:seresnet50", "accelerated timm:seresnet50", "resnet50", "se_resnet50")


def main() -> None:
    """Counts, prints and writes the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--networks", nargs="+", default=NETWORKS, help="as subjects.load takes them; the first is the base"
    )
    parser.add_argument("--batch", type=int, default=256, help="images a compiled step")
    parser.add_argument("--size", type=int, default=224, help="their height and width")
    options = parser.parse_args()

    rows: list[dict[str, Any]] = []
    for network in options.networks:
        # A process each: whatever the first compilation leaves behind, the next does not see.
        (lowered,) = lower(network, batch=options.batch, size=options.size)
        rows.append(lowered.row())
        forward, backward = tail_passes(network)
        rows[-1] |= {
            "over the first MiB": rows[-1]["step MiB"] - rows[0]["step MiB"],
            "eager passes forward": forward.total,
            "eager passes backward": backward.total,
            "eager saved MiB an image": round(saved_mib(network, size=options.size), 2),
        }
    publish("accounting", rows, {"batch": options.batch, "size": options.size})


if __name__ == "__main__":
    main()
