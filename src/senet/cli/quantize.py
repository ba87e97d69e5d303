"""``senet quantize``."""

from __future__ import annotations

import json
from typing import Any

from senet.cli.parsing import name_broken, parser_for
from senet.errors import require

_IMAGES, _FEW = 512, 32


def quantize(argv: list[str]) -> None:
    """Write an exported network in 8-bit integers, and see what it costs."""
    parser = parser_for(
        "quantize FILE --data DATA --out FILE",
        "Writes an exported .onnx file in 8-bit integers, calibrated on training images, and evaluates both "
        "on the test images. A file that loses more than --most_lost is not left.",
    )
    parser.add_argument("file", help="of `senet export`, .onnx, in float32")
    parser.add_argument("--out", type=str, required=True, help="the file in integers, .onnx")
    parser.add_argument(
        "--data", type=str | None, help="folder:DIR, shards:DIR, ...; none: what it was trained on"
    )
    parser.add_argument(
        "--keep",
        type=str,
        default="gates",
        help="what stays in float32: gates, scale (the product too) or nothing",
    )
    parser.add_argument("--calibration", type=str, default="minmax", help="minmax, percentile or entropy")
    parser.add_argument(
        "--images",
        type=int | None,
        help=f"training images to calibrate on; none: {_IMAGES}, and {_FEW} for percentile and entropy, "
        "which hold all maps in memory",
    )
    parser.add_argument(
        "--preprocessing", type=str | None, help="as for `senet eval`; none: as the file says"
    )
    parser.add_argument(
        "--reduce_range", action="store_true", help="weights of 7 bits, for x86 CPUs without VNNI"
    )
    parser.add_argument("--most_lost", type=float, default=1.0, help="of top-1, in points; more is an error")
    parser.add_argument("--batch_size", type=int, default=64, help="images at once")
    parser.add_argument("--workers", type=int | None, help="processes that prepare images")
    parser.add_argument("--json", action="store_true", help="print the result for programs, and only that")
    options = parser.parse_args(argv)
    images = options.images
    if images is None:
        images = _IMAGES if options.calibration == "minmax" else _FEW
    require("--images", images, images >= 1, "at least 1")
    require("--batch_size", options.batch_size, options.batch_size >= 1, "at least 1")
    require("--workers", options.workers, options.workers is None or options.workers >= 0, "at least 0")
    require("--most_lost", options.most_lost, options.most_lost >= 0, "at least 0")

    from senet.deploy.cost import quantize_and_compare

    found: Any = quantize_and_compare(
        options.file,
        options.out,
        data=options.data,
        images=images,
        preprocessing=options.preprocessing,
        most_lost=options.most_lost,
        batch_size=options.batch_size,
        workers=options.workers,
        keep=options.keep,
        calibration=options.calibration,
        reduce_range=options.reduce_range,
    )
    if options.json:
        about = {"data": found.data, "keep": options.keep, "calibration": options.calibration}
        files = zip((options.file, options.out), found.rows, strict=True)
        print(json.dumps([{"file": file} | row | about for file, row in files]))
    else:
        print(found)
    name_broken(found.broken)
