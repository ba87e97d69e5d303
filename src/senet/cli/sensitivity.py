"""``senet sensitivity``."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

from senet.cli.parsing import check_file, parser_for, words_of
from senet.errors import OptionError, require_count

if TYPE_CHECKING:
    from senet.analysis.worth.prepared import Prepared
    from senet.analysis.worth.result import Sensitivity
    from senet.evaluation.subject import Subject
    from senet.runtime.processes import Processes


def sensitivity(argv: list[str]) -> None:
    """Measure what each SE block is worth, and propose which to drop or fold."""
    options = _parser().parse_args(argv)

    from senet.analysis.worth.prepared import Prepared
    from senet.analysis.worth.sensitivity import sensitivity as measured
    from senet.evaluation.subject import subject_named
    from senet.passport import passport
    from senet.runtime.device import worker_count
    from senet.runtime.processes import joined

    # What is wrong with the words shows up before anything runs.
    blocks = words_of("--blocks", options.blocks)
    check_file("--out", options.out, ".csv", ".json", ".md")
    check_file("--apply", options.apply, ".safetensors")
    for option in ("images", "recorded", "batch_size"):
        if getattr(options, option) is not None:
            require_count(f"--{option}", getattr(options, option))
    subject = subject_named(
        options.model,
        data=options.data,
        weights=options.weights,
        preprocessing=options.preprocessing,
        device=options.device,
    )
    if options.apply is not None:
        _check_rebuilt(subject)
    with joined(subject.device) as processes:
        prepared = partial(
            Prepared,
            preprocessing=subject.preprocessing,
            batch_size=options.batch_size,
            workers=worker_count(options.workers, subject.device),
            device=subject.device,
            processes=processes,
        )
        images = prepared(subject.splits.test, most=options.images)
        found = measured(
            subject.network,
            images,
            blocks=blocks,
            recorded=prepared(subject.splits.train, most=options.recorded),
            tolerance=options.tolerance,
            random=subject.random,
            processes=processes,
        )
        applied = {} if options.apply is None else _applied(options.apply, found, subject, images, processes)
    if not processes.leads:
        return
    if options.out is not None:
        found.save(options.out)
    if options.json:
        about = {"network": subject.name, "weights": subject.weights, "data": subject.splits.name}
        print(json.dumps(about | found.to_dict() | applied | {"passport": passport()}))
        return
    print(found)
    if applied:
        print(f"\n{_said(applied['applied'])}")


def _applied(
    path: str, found: Sensitivity, subject: Subject, images: Prepared, processes: Processes
) -> dict[str, Any]:
    """Folds what is proposed, measures again, and saves; nothing where nothing is proposed."""
    from senet import weights
    from senet.acceleration.fold import fold
    from senet.evaluation.classification import evaluate

    gates = found.proposal.gates
    if not gates:
        return {"applied": None}
    smaller, report = fold(subject.network, gates)
    again = evaluate(
        smaller, images.batches, subject.preprocessing, device=subject.device, processes=processes
    )
    if processes.leads:
        header = {
            "preprocessing": subject.preprocessing.to_dict(),
            "classes": list(subject.splits.classes),
            "data": subject.splits.name,
            "source": {"weights": subject.weights, "folded": list(gates)},
        }
        weights.save(smaller, path, header=header)
    return {
        "applied": {
            "file": path,
            "parameters saved": report.parameters,
            "constant scales": sum(folding.remains for folding in report.foldings),
            "images": again.images,
            "top1": again.top1,
            "top5": again.top5,
            "top1 untouched": found.untouched.top1,
        }
    }


def _said(applied: dict[str, Any] | None) -> str:
    if applied is None:
        return "Nothing is proposed, so nothing was written."
    scales = applied["constant scales"]
    return (
        f"{applied['file']}: {applied['parameters saved']:,} parameters fewer"
        + (f", {scales} constant scales remain" if scales else "")
        + f"; measured again on all {applied['images']:,} images: top-1 {applied['top1']:.2f} %, "
        f"untouched {applied['top1 untouched']:.2f} %"
    )


def _check_rebuilt(subject: Subject) -> None:
    from senet.weights.store import header_of

    if "network" not in header_of(subject.network):
        raise OptionError(
            f"--apply of {subject.name!r}",
            found="a file could not say how to rebuild this network without its blocks",
            allowed="networks of `senet models`",
            do="Fold in Python: senet.fold_gates(model, found.proposal.gates).",
        )


def _parser() -> Any:
    parser = parser_for(
        "sensitivity MODEL",
        "Measures what each SE block of a trained network is worth: its gates are replaced by 1, by one "
        "number and by the mean of each channel, and the same test images are classified again. Proposes "
        "which blocks to drop or to fold into their neighbours.",
    )
    parser.add_argument(
        "model",
        help="a run folder, weights of any origin, a name of `senet models`, timm:NAME, torchvision:NAME, "
        "package.module:factory",
    )
    parser.add_argument(
        "--data", type=str | None, help="digits, folder:DIR, shards:DIR, ...; none: as the weights say"
    )
    parser.add_argument("--weights", type=str | None, help="for a MODEL that is a name; none: fresh ones")
    parser.add_argument(
        "--preprocessing",
        type=str | None,
        help="data, or such as imagenet,size=288; none: as the weights say",
    )
    parser.add_argument("--images", type=int | None, help="so many test images, evenly spaced; none: all")
    parser.add_argument(
        "--recorded", type=int, default=2000, help="training images that the mean gates are taken from"
    )
    parser.add_argument(
        "--tolerance", type=float, default=0.1, help="points of top-1 that the proposal may lose"
    )
    parser.add_argument("--blocks", type=str | None, help="names or patterns, such as 'layer4.*': only these")
    parser.add_argument("--out", type=str | None, help="write the rows to a .csv, .json or .md file")
    parser.add_argument(
        "--apply", type=str | None, help="fold what is proposed, measure again, and write this .safetensors"
    )
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda, cuda:1, ...")
    parser.add_argument("--batch_size", type=int, default=256, help="images a batch")
    parser.add_argument("--workers", type=int | None, help="processes that prepare images")
    parser.add_argument("--json", action="store_true", help="print the result for programs, and only that")
    return parser
