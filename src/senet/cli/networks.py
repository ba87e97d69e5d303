"""``senet models``, ``senet plan`` and ``senet convert``: networks and their weights, without data."""

from __future__ import annotations

import json
from fnmatch import fnmatchcase

from senet.cli.parsing import image_size, parser_for
from senet.errors import OptionError, did_you_mean


def models(argv: list[str]) -> None:
    """List the networks with their cost and the published errors, or show one."""
    parser = parser_for(
        "models [PATTERN|NAME]",
        "Lists the networks: parameters and multiply-adds, counted here, beside what the paper prints. "
        "With the name of one: its structure, as in the paper's Table 1, and all that is printed of it. "
        "With 'fasterrcnn_*': the detectors on them.",
    )
    parser.add_argument("pattern", nargs="?", default="*", help="a name, or a shell pattern such as 'se_*'")
    parser.add_argument("--json", action="store_true", help="print the list for programs, and only that")
    options = parser.parse_args(argv)

    from senet.detection.catalogue import catalogue
    from senet.detection.detector import list_detectors
    from senet.models import Catalogue, described, info, list_models

    names = list_models(options.pattern)
    detectors = [name for name in list_detectors() if fnmatchcase(name, options.pattern)]
    if not names and not detectors:
        raise OptionError(
            f"senet models {options.pattern!r}",
            found="no network has such a name",
            do=did_you_mean(options.pattern, [*list_models(), *list_detectors()]),
        )
    found = Catalogue([info(name) for name in names]) if names else catalogue(detectors)
    if options.json:
        print(json.dumps(found.rows))
    else:
        print(described(info(options.pattern)) if names == [options.pattern] else found)
        if names and detectors:
            print(f"\nand detectors on {len(detectors)} of them: senet models 'fasterrcnn_*'")


def convert(argv: list[str]) -> None:
    """Convert weights of any origin."""
    parser = parser_for(
        "convert IN OUT",
        "Converts weights of the original Caffe release, timm, torchvision, Cadene and others to a file of "
        "senet, or a file of senet to theirs. Whose they are is recognised.",
    )
    parser.add_argument("source", help="a file, a run folder, timm:TAG or hf:ORG/NAME@REV")
    parser.add_argument("out", help="the file to write")
    parser.add_argument("--to", type=str, default="senet", help="whose layout OUT gets")
    parser.add_argument("--origin", type=str | None, help="whose layout IN has; none: it is recognised")
    parser.add_argument("--prototxt", type=str | None, help="of a .caffemodel: what to check it against")
    parser.add_argument(
        "--classes",
        type=str,
        default="synset",
        help="order of the classes of a .caffemodel: synset, as everywhere, or devkit, as it is",
    )
    parser.add_argument(
        "--layout", type=str | None, help="modern or original, the network's, where IN does not say it"
    )
    parser.add_argument(
        "--preprocessing", type=str | None, help="for the header of OUT, such as imagenet,size=288,resize=303"
    )
    parser.add_argument("--json", action="store_true", help="print the result for programs, and only that")
    options = parser.parse_args(argv)

    from senet.data.preprocessing import preprocessing_named
    from senet.models import convert as converted

    words = options.preprocessing
    done = converted(
        options.source,
        options.out,
        to=options.to,
        origin=options.origin,
        classes=options.classes,
        layout=options.layout,
        prototxt=options.prototxt,
        preprocessing=None if words is None else preprocessing_named(words).to_dict(),
    )
    print(json.dumps(done.to_dict()) if options.json else done)


def plan(argv: list[str]) -> None:
    """Show where SE goes in any network."""
    parser = parser_for(
        "plan MODEL", "Shows where SE goes in a network, and what is left alone. Needs no data."
    )
    parser.add_argument(
        "model", help="torchvision:NAME, timm:NAME, package.module:factory, or a name of `senet models`"
    )
    parser.add_argument(
        "--placement", type=str, default="standard", help="standard, pre, post, identity, 3x3"
    )
    parser.add_argument("--where", type=str | None, help="stages or names, such as 4,5 or 'layer3.*'")
    parser.add_argument("--input", type=str | None, help="CxHxW of an image; none: the usual sizes are tried")
    parser.add_argument("--reduction", type=int, default=16, help="r: the hidden width is C // r")
    parser.add_argument("--bias", type=bool, default=True, help="whether the two layers have biases")
    parser.add_argument("--json", action="store_true", help="print the plan for programs, and only that")
    options = parser.parse_args(argv)

    import torch

    from senet.insertion.plan import plan as planned
    from senet.insertion.surgery import check
    from senet.models import load
    from senet.report.terminal import unit_picture

    try:
        # Shapes are all that a plan needs; a network that cannot be made without memory gets some.
        with torch.device("meta"):
            model = load(options.model)
    except (NotImplementedError, RuntimeError, OptionError):
        model = load(options.model)
    words = None if options.where is None else [word for word in options.where.split(",") if word.strip()]
    found = planned(
        model,
        placement=options.placement,
        where=None if words is None else [int(word) if word.isdecimal() else word for word in words],
        example=None if options.input is None else torch.empty(2, *image_size(options.input), device="meta"),
        reduction=options.reduction,
        bias=options.bias,
    )
    check(model, found)
    if options.json:
        print(json.dumps({"network": options.model, "parameters": found.parameters, "sites": found.rows}))
        return
    print(f"{found.headline}\n")
    drawn = set()
    for site, row in zip(found.sites, found.rows, strict=True):
        if site.kind not in drawn:
            print(f"{site.unit or 'the network'}\n{unit_picture(site, row['hidden'])}\n")
            drawn.add(site.kind)
    print(f"{found.table}\n{found.left_text()}\n\nin Python   senet.insert(model)")
