"""``senet eval``."""

from __future__ import annotations

import json
import os
from typing import Any

from senet.cli.parsing import name_broken, parser_for
from senet.errors import OptionError

_BATCH = 256
# Images of a detector are large, and each has its own size.
_BOXES_BATCH = 8


def evaluate(argv: list[str]) -> None:
    """Evaluate networks on the test images of a data set, alone and together."""
    parser = parser_for(
        "eval MODEL...",
        "Evaluates networks on the test images of a data set; several also together, by the mean of their "
        "softmax. The options on sizes override what the weights say of their images.",
    )
    parser.add_argument(
        "models",
        nargs="+",
        help="run folders, weights of any origin, exported files, or names of `senet models`",
    )
    parser.add_argument(
        "--data",
        type=str | None,
        help="digits, folder:DIR, shards:DIR, cifar10:DIR, ...; none: as the weights say",
    )
    parser.add_argument(
        "--weights",
        type=str | None,
        help="weights for one MODEL that is a name: a file, timm:TAG, hf:ORG/NAME",
    )
    parser.add_argument(
        "--preprocessing",
        type=str | None,
        help="data, or such as imagenet,size=288,resize=303,interpolation=bicubic; none: as the weights say",
    )
    parser.add_argument("--size", type=int | None, help="the side of the crop, in pixels")
    parser.add_argument(
        "--scales",
        type=str | None,
        help="the shorter edge that images are resized to before it, such as 256; of several, such as "
        "256,288, the softmax is averaged",
    )
    parser.add_argument("--squash", action="store_true", help="resize to a square, whatever the shape")
    parser.add_argument(
        "--crops", type=int, default=1, help="1, the centre; 10, also the corners, and the mirror images"
    )
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda, cuda:1, ...")
    parser.add_argument(
        "--batch_size",
        type=int | None,
        help=f"images, or views of them, a batch; none: {_BATCH}, of a detector {_BOXES_BATCH}",
    )
    parser.add_argument("--workers", type=int | None, help="processes that prepare images")
    parser.add_argument(
        "--engine", type=str | None, help="of .onnx files: onnxruntime or openvino; none: onnxruntime"
    )
    parser.add_argument("--json", action="store_true", help="print the result for programs, and only that")
    options = parser.parse_args(argv)

    from senet.detection.detector import is_detector, is_of_detector

    if any(is_detector(model) for model in options.models):
        raise OptionError(
            f"eval {' '.join(options.models)}",
            found="a detector's name alone knows nothing",
            allowed="its run folder, or its weights",
        )
    if any(is_of_detector(model) for model in options.models):
        _evaluate_detector(options)
        return

    from senet.deploy.artefact import is_artefact, takes_engine
    from senet.deploy.members import member_of
    from senet.evaluation.together import evaluate_models
    from senet.runtime.device import device_named
    from senet.runtime.processes import joined

    device = device_named(options.device)
    if options.engine is not None and not any(map(takes_engine, options.models)):
        raise OptionError(f"--engine {options.engine}", "no MODEL is an .onnx file", do="Leave it out.")
    models = [
        member_of(each, options.weights, engine=options.engine if takes_engine(each) else None, device=device)
        if is_artefact(each)
        else each
        for each in options.models
    ]
    with joined(device) as processes:
        found = evaluate_models(
            *models,
            data=options.data,
            weights=options.weights,
            preprocessing=options.preprocessing,
            size=options.size,
            scales=_scales(options.scales),
            squash=options.squash,
            crops=options.crops,
            device=options.device,
            batch_size=_BATCH if options.batch_size is None else options.batch_size,
            workers=options.workers,
        )
        if processes.leads:
            print(json.dumps(found.rows) if options.json else found)
            name_broken(found.broken)


def _evaluate_detector(options: Any) -> None:
    """Prints COCO's numbers for one detector; what is for classifiers is an error."""
    from senet.detection.evaluating import evaluate_detector

    for_classifiers = ("weights", "preprocessing", "size", "scales", "squash", "engine")
    given = [f"--{name}" for name in for_classifiers if getattr(options, name)]
    given += ["--crops"] if options.crops != 1 else []
    if given or len(options.models) > 1:
        raise OptionError(
            f"eval {' '.join(options.models)}",
            found=f"{given[0]} is for classifiers" if given else "a detector stands beside others",
            allowed="one detector, with --data, --device, --batch_size, --workers and --json",
        )
    data, found = evaluate_detector(
        options.models[0],
        data=options.data,
        device=options.device,
        batch_size=_BOXES_BATCH if options.batch_size is None else options.batch_size,
        workers=options.workers,
    )
    if os.environ.get("RANK", "0") == "0":
        about = {"model": options.models[0], "data": data}
        said = f"{about['model']} on {data}, {found.images:,} images\n\n{found}"
        print(json.dumps([about | found.to_dict()]) if options.json else said)
        name_broken(found.broken)


def _scales(text: str | None) -> list[int]:
    words = [] if text is None else text.split(",")
    if not all(word.isdecimal() and len(word) < 9 for word in words):
        raise OptionError(f"--scales {text!r}", "these are no sizes", "pixels, such as 256 or 256,288")
    return [int(word) for word in words]
