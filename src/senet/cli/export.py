"""``senet export``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from senet.cli.parsing import parser_for
from senet.errors import OptionError

_ANY = "any"


def export(argv: list[str]) -> None:
    """Write a network as a file for ONNX Runtime, OpenVINO or torch.export."""
    parser = parser_for(
        "export MODEL --out FILE",
        "Writes a network as a file that other engines run, simplified, with what its weights say of classes "
        "and images. The file is run and compared with PyTorch before it appears.",
    )
    parser.add_argument(
        "model",
        help="a run folder, weights of any origin, a name of `senet models`, timm:NAME, torchvision:NAME or "
        "package.module:factory",
    )
    parser.add_argument("--out", type=str, required=True, help="the file, .onnx or .pt2")
    parser.add_argument("--to", type=str | None, help="onnx or pt2; none: as --out ends")
    parser.add_argument(
        "--weights",
        type=str | None,
        help="weights for a MODEL that is a name: a file, timm:TAG, hf:ORG/NAME; none: fresh ones",
    )
    parser.add_argument(
        "--engine",
        type=str | None,
        help="the form of SE that onnxruntime or openvino runs best; none: one form for all",
    )
    parser.add_argument("--batch", type=str, default=_ANY, help="how many images at a time, or any")
    parser.add_argument(
        "--size",
        type=str | None,
        help="of the images: pixels, HEIGHTxWIDTH, or any; none: as the weights say",
    )
    parser.add_argument("--pixels", action="store_true", help="take uint8 pixels, and normalise them inside")
    parser.add_argument(
        "--preprocessing",
        type=str | None,
        help="how images are prepared, where the weights do not say it: such as imagenet,size=288,resize=303",
    )
    parser.add_argument("--simplify", type=bool, default=True, help="fold norms and squeeze early")
    parser.add_argument("--json", action="store_true", help="print the result for programs, and only that")
    options = parser.parse_args(argv)
    ending = Path(options.out).suffix.removeprefix(".")
    to = options.to or ending
    if ending not in ("onnx", "pt2") or to != ending:
        raise OptionError(
            f"export --to {to or '?'} --out {options.out}",
            found="by its ending a file is known, and this is another",
            allowed=".onnx for onnx, .pt2 for pt2",
        )
    batch = _batch(options.batch)
    size = _size(options.size)

    from senet.data.preprocessing import preprocessing_named
    from senet.deploy.export import export
    from senet.deploy.members import network_named

    network, header = network_named(options.model, options.weights)
    said = dict(header or {})
    if options.preprocessing is not None:
        said["preprocessing"] = preprocessing_named(options.preprocessing).to_dict()
    report = export(
        network,
        options.out,
        to=to,
        engine=options.engine,
        batch=batch,
        size=size,
        simplify=options.simplify,
        header=said,
        pixels=options.pixels,
    )
    print(json.dumps(report.to_dict()) if options.json else report)
    if header is None:
        print("The weights are fresh: this network knows nothing. Give --weights.", file=sys.stderr)


def _size(text: str | None) -> Any:
    if text in (None, _ANY):
        return text
    words = str(text).lower().split("x")
    if len(words) > 2 or not all(map(_is_count, words)):
        raise OptionError(f"--size {text!r}", "it is no size", "pixels, HEIGHTxWIDTH, any")
    numbers = tuple(map(int, words))
    return numbers * 2 if len(numbers) == 1 else numbers


def _batch(text: str) -> Any:
    if text == _ANY:
        return text
    if not _is_count(text):
        raise OptionError(f"--batch {text!r}", "it is no number of at least 1", "such a number, any")
    return int(text)


def _is_count(word: str) -> bool:
    return word.isdecimal() and len(word) < 9 and int(word) > 0
