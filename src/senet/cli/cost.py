"""``senet cost``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from senet.cli.parsing import check_file, image_size, parser_for
from senet.errors import OptionError

if TYPE_CHECKING:
    from torch import nn


def cost(argv: list[str]) -> None:
    """Show what SE costs in a network: parameters, multiply-adds, bytes, memory, latency."""
    parser = parser_for(
        "cost MODEL",
        "Shows what a network costs, and the share of SE: parameters, multiply-adds, the bytes moved forward "
        "and kept for the backward, counted; and the latency, measured here. Needs no data.",
    )
    parser.add_argument(
        "model",
        help="a name of `senet models`, timm:NAME, torchvision:NAME, package.module:factory, a run folder "
        "or a weights file",
    )
    parser.add_argument("--input", type=str | None, help="CxHxW; none: what the network is made for")
    parser.add_argument(
        "--vs", type=str | None, help="a second network to set beside it, or plain: the same without SE"
    )
    parser.add_argument("--layout", type=str | None, help="modern, or original as the paper counts")
    parser.add_argument("--batch", type=int, default=1, help="images")
    parser.add_argument(
        "--runs", type=int, default=30, help="how often each is measured, in turn; 0: no latency"
    )
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda, cuda:1, ...")
    parser.add_argument("--out", type=str | None, help="a file to write too: .csv, .json, .md")
    parser.add_argument("--json", action="store_true", help="print all for programs, and only that")
    options = parser.parse_args(argv)
    check_file("--out", options.out, ".csv", ".json", ".md")

    from senet.analysis.cost.cost import cost as counted
    from senet.runtime.device import device_named

    device = device_named(options.device)
    model, size = _loaded(options.model, options.layout)
    vs = None
    if options.vs is not None:
        vs = _plain(options.model, model) if options.vs == "plain" else _loaded(options.vs, options.layout)[0]
    report = counted(
        model,
        size if options.input is None else image_size(options.input),
        vs=vs,
        batch=options.batch,
        runs=options.runs,
        device=device,
    ).named(options.model, options.vs)
    if options.out is not None:
        report.save(options.out)
    print(json.dumps(report.to_dict()) if options.json else report)


def _loaded(name: str, layout: str | None) -> tuple[nn.Module, list[int] | None]:
    """The network, and the size of the images that its weights say they were trained on."""
    from senet import weights
    from senet.models import load, weights_named

    if not Path(name).exists():
        return load(name, layout=layout), None
    found = weights.recognise(weights_named(name) or name)
    said = found.header.get("preprocessing")
    size = None if said is None else [said["channels"], said["size"], said["size"]]
    return load(found, layout=layout), size


def _plain(name: str, model: nn.Module) -> nn.Module:
    """The network of ours as it is built without SE."""
    import dataclasses

    from senet.models.network import Network

    if not isinstance(model, Network) or model.config.se is None:
        raise OptionError(
            f"senet cost {name} --vs plain",
            found="it is no network of `senet models` with SE",
            allowed="such a network",
            do="Name the other network; what a network costs without its SE is in the rows without that.",
        )
    bare = dataclasses.replace(model.config, se=None, placement="standard", stages=None, folded=(), scaled=())
    return bare.build()
