"""``senet gates``."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from senet.cli.parsing import name_broken, parser_for, words_of
from senet.errors import DataError, OptionError, check_choice, require_count
from senet.files import filling, require_writable

if TYPE_CHECKING:
    from senet.analysis.role.study import GateStudy
    from senet.data.source import Source
    from senet.evaluation.subject import Subject
    from senet.runtime.processes import Processes

_CHANNELS = 50
# What is shown of many images, and not of one.
_OF_FIGURES = ("classes", "channels", "panels")
# What an earlier study has decided: all that it measured, or beside --image only which images.
_IMAGES = ("split", "per_class")
_DECIDED = ("model", "data", "weights", "preprocessing", "blocks", *_IMAGES)


def gates(argv: list[str]) -> None:
    """See the gates of a network: an HTML page, the paper's figures, tables."""
    options = _parser().parse_args(argv)
    _check(options)
    if options.image is None:
        _over_data(options)
    else:
        _of_image(options)


def _check(options: Any) -> None:
    """What is wrong with the words shows up before anything runs."""
    for option in ("classes", "panels", "blocks"):
        words_of(f"--{option}", getattr(options, option))
    for option in ("per_class", "batch_size"):
        if getattr(options, option) is not None:
            require_count(f"--{option}", getattr(options, option))
    if options.split is not None:
        check_choice(f"--split {options.split}", options.split, ("test", "train"))
    _check_fits(options)
    out = options.out or "gates"
    require_writable(f"--out {out}", out)
    decided = _DECIDED if options.image is None else _IMAGES
    given = [name for name in decided if getattr(options, name) is not None]
    if options.study is not None and given:
        named = ", ".join("MODEL" if name == "model" else f"--{name}" for name in given)
        raise OptionError(
            f"--study {options.study} with {named}",
            found="what a study has measured stays as it is, and is only drawn",
            allowed="--image, --classes, --channels, --panels, --out",
            do=f"Leave out {named}, or leave out --study to measure anew.",
        )


def _check_fits(options: Any) -> None:
    """Raises OptionError for an option that means nothing beside --image, or without it."""
    if options.image is None and options.class_ is not None:
        raise OptionError("--class", "it is what an --image is compared to, and there is none")
    for name in _OF_FIGURES:
        if options.image is not None and getattr(options, name) is not None:
            raise OptionError(
                f"--{name} beside --image",
                found="it is for figures of many images, and one is shown",
                do=f"Leave out --{name}, or --image.",
            )


def _over_data(options: Any) -> None:
    from senet.analysis.classes import chosen_classes, legible
    from senet.analysis.role.study import GATES
    from senet.report.gates.page import write_report
    from senet.report.terminal import study_text
    from senet.runtime.processes import ALONE, joined

    channels, panels = _channels(options.channels), words_of("--panels", options.panels)
    with contextlib.ExitStack() as stack:
        processes = ALONE
        if options.study is None:
            subject = _subject(options)
            processes = stack.enter_context(joined(subject.device))
            shown = chosen_classes(options.classes, subject.splits.classes)
            if panels:
                _check_panels(panels, _blocks(options, subject))
            study = _studied(options, subject, processes)
            source: Source | None = _source(options, subject)
        else:
            study = _read(options)
            _check_panels(panels, study.blocks)
            shown = chosen_classes(options.classes, study.classes)
            source = _source_of(study)
        if not processes.leads:
            return
        folder = _folder(options, f"{_stem(study.network)}-{study.data.partition(':')[0]}")
        with filling(folder, last=GATES) as staged:
            study.save(staged, shown=shown)
            written = write_report(
                study,
                staged,
                shown=shown,
                in_figures=shown if options.classes is not None else legible(shown),
                channels=channels,
                panels=panels or None,
                pictures=None if source is None else lambda number: source.read(number)[0],
            )
    name_broken(study.evaluation.broken)
    if options.json:
        result = {"folder": str(folder), "blocks": study.rows, "claims": [each.row for each in study.claims]}
        print(json.dumps(result))
        return
    names = ", ".join(path.name for path in written)
    print(f"{study_text(study)}\n\nwritten to {folder}: {names}, and the numbers as tables")


def _of_image(options: Any) -> None:
    from senet.analysis.image.one_image import gates_of_image
    from senet.report.image.page import REPORT, write_image_report

    study = None if options.study is None else _read(options)
    subject = _subject(options, study)
    if study is None and options.data is not None and not subject.random:
        from senet.runtime.processes import ALONE

        study = _studied(options, subject, ALONE)
    found = gates_of_image(
        subject.network,
        Path(options.image),
        subject.preprocessing,
        classes=subject.splits.classes,
        study=study,
        class_=options.class_,
        blocks=words_of("--blocks", options.blocks),
        name=subject.name,
        random=subject.random,
    )
    folder = _folder(options, f"{_stem(subject.name)}-{Path(options.image).stem}")
    with filling(folder, last=REPORT) as staged:
        written = write_image_report(found, staged)
    if options.json:
        print(json.dumps({"folder": str(folder), "blocks": found.rows}))
        return
    print(f"{found}\n\nwritten to {folder}: {', '.join(path.name for path in written)}")


def _subject(options: Any, study: GateStudy | None = None) -> Subject:
    """The network, with the words of an earlier study where the user gives none."""
    from senet.evaluation.subject import subject_named

    earlier: Mapping[str, Any] = {} if study is None else vars(study)
    model = options.model or earlier.get("network")
    if model is None:
        raise OptionError("senet gates", "no MODEL is named", do="Name one, or an earlier --study.")
    # Another network has weights of its own; weights that are the MODEL itself are not named twice.
    same = model == earlier.get("network") != earlier.get("weights")
    return subject_named(
        model,
        data=options.data or earlier.get("data"),
        weights=options.weights or (earlier["weights"] if same else None),
        preprocessing=options.preprocessing,
        device=options.device,
    )


def _studied(options: Any, subject: Subject, processes: Processes) -> GateStudy:
    from senet.analysis.role.study import study_gates
    from senet.runtime.device import worker_count

    return study_gates(
        subject.network,
        _source(options, subject),
        subject.preprocessing,
        subject.splits.classes,
        network=subject.name,
        weights=subject.weights,
        data=subject.splits.name,
        split=_split(options),
        random=subject.random,
        blocks=words_of("--blocks", options.blocks),
        per_class=options.per_class,
        batch_size=options.batch_size,
        workers=worker_count(options.workers, subject.device),
        device=subject.device,
        processes=processes,
    )


def _read(options: Any) -> GateStudy:
    from senet.analysis.role.study import GateStudy

    return GateStudy.load(options.study)


def _split(options: Any) -> str:
    return options.split or "test"


def _source(options: Any, subject: Subject) -> Source:
    source: Source = getattr(subject.splits, _split(options))
    return source


def _source_of(study: GateStudy) -> Source | None:
    """The images of an earlier study; None where they are no longer there."""
    from senet.data import open_data

    try:
        source: Source = getattr(open_data(study.data), study.split)
    except (DataError, OptionError):
        return None
    return source


def _blocks(options: Any, subject: Subject) -> list[str]:
    """The names of the blocks that will be studied."""
    import torch

    from senet.analysis.watching import sites_of

    prepared = subject.preprocessing
    example = torch.zeros(2, prepared.channels, *2 * [prepared.size], device=subject.device)
    found = sites_of(subject.network, blocks=words_of("--blocks", options.blocks), example=example)
    return [site.name for site in found]


def _check_panels(panels: Sequence[str], blocks: Iterable[str]) -> None:
    for panel in panels:
        check_choice(f"--panels {panel}", panel, blocks)


def _folder(options: Any, name: str) -> Path:
    """The folder to write: the one named, or a new one."""
    if options.out is not None:
        return Path(options.out)
    number = 1
    while (path := Path("gates") / f"{name}-{number}").exists():
        number += 1
    return path


def _stem(name: str) -> str:
    """A name as that of a folder: of a path its end, of LIBRARY:NAME both."""
    return Path(name).name.removesuffix(".safetensors").replace(":", "-") or "network"


def _channels(word: str | None) -> int | None:
    if word is None:
        return _CHANNELS
    if word == "all":
        return None
    if not (word.isdecimal() and int(word)):
        raise OptionError(f"--channels {word!r}", "it is no number of channels", "a number, or all")
    return int(word)


def _parser() -> Any:
    parser = parser_for(
        "gates [MODEL]",
        "Shows what SE does in a network: runs it over labelled images and writes a folder with an HTML "
        "page, the paper's figures and the numbers. With --image, what it does to one image.",
    )
    parser.add_argument(
        "model",
        nargs="?",
        type=str | None,
        help="a run folder, weights of any origin, a name of `senet models`, timm:NAME, torchvision:NAME, "
        "package.module:factory",
    )
    parser.add_argument(
        "--data", type=str | None, help="digits, folder:DIR, shards:DIR, ...; none: as the weights say"
    )
    parser.add_argument(
        "--weights", type=str | None, help="for a MODEL that is a name; none: fresh ones, and it is said so"
    )
    parser.add_argument(
        "--classes",
        type=str | None,
        help="whose profiles are shown: names or numbers, such as cat,dog; paper (ImageNet): goldfish, pug, "
        "airliner and cliff; none: all of up to 10, of ImageNet the paper's. Statistics are always of all",
    )
    parser.add_argument(
        "--per_class", type=int | None, help="images of each class, such as the paper's 50; none: all"
    )
    parser.add_argument(
        "--channels",
        type=str | None,
        help=f"how many channels the figures show, evenly spaced; or all; none: {_CHANNELS}",
    )
    parser.add_argument(
        "--panels", type=str | None, help="blocks that the figures show; none: those that the paper shows"
    )
    parser.add_argument(
        "--blocks",
        type=str | None,
        help="names or patterns: only these blocks, or modules that are not recognised by themselves and "
        "return gates or a gated map",
    )
    parser.add_argument("--split", type=str | None, help="test or train: on which images; none: test")
    parser.add_argument("--out", type=str | None, help="the folder to write; none: a new one under gates/")
    parser.add_argument(
        "--study", type=str | None, help="a folder written before: nothing is measured again, only drawn"
    )
    parser.add_argument("--image", type=str | None, help="look at this image")
    parser.add_argument(
        "--class",
        dest="class_",
        type=str | None,
        help="compare --image to this class; none: to its predicted",
    )
    parser.add_argument(
        "--preprocessing",
        type=str | None,
        help="data, or such as imagenet,size=288; none: as the weights say",
    )
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda, cuda:1, ...")
    parser.add_argument("--batch_size", type=int, default=256, help="images a batch")
    parser.add_argument("--workers", type=int | None, help="processes that prepare images")
    parser.add_argument("--json", action="store_true", help="print the result for programs, and only that")
    return parser
