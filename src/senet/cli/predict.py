"""``senet predict``."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from senet.cli.parsing import check_file, name_broken, parser_for, printable
from senet.errors import DataError, OptionError, require

_THRESHOLD, _TOP, _BATCH = 0.5, 5, 32


def predict(argv: list[str]) -> None:
    """Name what images show, or find the objects in them."""
    parser = parser_for(
        "predict MODEL IMAGE...",
        "Names what images show, by a classifier, or finds the objects in them, by a detector. Images are "
        "turned as the camera was held; broken ones are named, and the others go on.",
    )
    parser.add_argument(
        "model", help="a run folder, weights of any origin, or an exported file, .onnx or .pt2"
    )
    parser.add_argument("images", nargs="+", help="images, and folders of them")
    parser.add_argument(
        "--out",
        type=str | None,
        help="of a classifier a .csv or .json file; of a detector a folder, for the pictures with boxes, by "
        "the names of the images, and objects.json",
    )
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda, cuda:1, ...")
    parser.add_argument("--json", action="store_true", help="print the result for programs, and only that")
    parser.add_argument(
        "--top", type=int | None, help=f"of a classifier: how many classes an image; none: {_TOP}"
    )
    parser.add_argument(
        "--weights",
        type=str | None,
        help="of a classifier: weights for a MODEL that is a name: a file, timm:TAG, hf:ORG/NAME",
    )
    parser.add_argument(
        "--preprocessing",
        type=str | None,
        help="of a classifier: such as imagenet,size=288,resize=303; none: as the weights say",
    )
    parser.add_argument(
        "--engine", type=str | None, help="of an .onnx file: onnxruntime or openvino; none: onnxruntime"
    )
    parser.add_argument(
        "--batch_size", type=int | None, help=f"of a classifier: images at once; none: {_BATCH}"
    )
    parser.add_argument("--workers", type=int | None, help="of a classifier: processes that prepare images")
    parser.add_argument(
        "--threshold",
        type=float | None,
        help=f"of a detector: the lowest score that counts, 0.05 to 1; none: {_THRESHOLD}",
    )
    options = parser.parse_args(argv)
    if _is_of_detector(options):
        _detect(options)
    else:
        _classify(options)


def _is_of_detector(options: Any) -> bool:
    from senet.deploy.artefact import is_artefact
    from senet.detection.detector import is_of_detector

    if is_artefact(options.model):
        return False
    return options.weights is None and is_of_detector(options.model)


def _refuse(options: Any, names: Sequence[str], kind: str) -> None:
    """Raises OptionError where an option is given that is not for this kind of network."""
    for name in names:
        if getattr(options, name) is not None:
            raise OptionError(
                f"predict {options.model!r}", f"--{name} is not for a {kind}", do="Leave it out."
            )


def _classify(options: Any) -> None:
    top = _TOP if options.top is None else options.top
    batch_size = _BATCH if options.batch_size is None else options.batch_size
    require("--top", top, top >= 1, "at least 1")
    require("--batch_size", batch_size, batch_size >= 1, "at least 1")
    require("--workers", options.workers, options.workers is None or options.workers >= 0, "at least 0")
    check_file("--out", options.out, ".csv", ".json")
    paths = list(_images(options.images))

    import torch
    from tqdm import tqdm

    from senet.deploy.members import member_of
    from senet.evaluation.members import check_size
    from senet.evaluation.predicting import class_names, predict
    from senet.runtime.device import device_named, worker_count

    device = device_named(options.device)
    member = member_of(options.model, options.weights, engine=options.engine, device=device)
    _refuse(options, ("threshold",), "classifier")
    preprocessing = member.preprocessing(None, options.preprocessing)
    model: Any = member.network().eval()
    model.to(device, memory_format=torch.channels_last)
    classes = check_size(model, preprocessing, member.name, option="--preprocessing").shape[-1]
    names = class_names(member.header, classes)
    predicted = predict(
        model,
        paths,
        preprocessing,
        names,
        top=top,
        device=device,
        batch_size=batch_size,
        workers=worker_count(options.workers, device),
    )
    found, broken = [], []
    for each in tqdm(predicted, total=len(paths), unit="image", disable=len(paths) == 1 or None):
        if each.broken is not None:
            broken.append(each.broken)
            continue
        found.append(each)
        if not options.json:
            named = ", ".join(f"{guess.label} {guess.probability:.2%}" for guess in each.guesses)
            tqdm.write(printable(f"{each.image}: {named}"))
    _check_some(found, broken, len(paths))
    said = {"model": options.model, "images": _nested(found), "broken": broken}
    if options.out is not None:
        _save(options.out, said, found)
        if not options.json:
            print(f"\n{len(found):,} of {len(paths):,} images in {options.out}")
    if options.json:
        print(json.dumps(said))
    name_broken(tuple(broken))


def _check_some(found: Sequence[Any], broken: Sequence[str], count: int) -> None:
    if not found:
        which = "the image" if count == 1 else f"any of the {count} images"
        raise DataError(f"reading {which}", found=broken[0].rstrip("."))


def _nested(predictions: Sequence[Any]) -> list[dict[str, Any]]:
    return [
        {"image": str(each.image), "classes": [guess._asdict() for guess in each.guesses]}
        for each in predictions
    ]


def _save(path: str, said: dict[str, Any], predictions: Sequence[Any]) -> None:
    """Writes a row an image, its classes in columns; as JSON, all that is said."""
    from senet.files import write_text
    from senet.tables import Table

    if path.endswith(".json"):
        write_text(path, json.dumps(said, indent=1))
        return
    rows = []
    for each in predictions:
        # A name that is no text stands in the file as it is printed.
        row: dict[str, Any] = {"image": str(each.image).encode("utf-8", "backslashreplace").decode()}
        for place, guess in enumerate(each.guesses, 1):
            row |= {f"class_{place}": guess.label, f"probability_{place}": guess.probability}
        rows.append(row)
    Table(rows).save(path)


def _detect(options: Any) -> None:
    for_classifiers = ("top", "weights", "preprocessing", "engine", "batch_size", "workers")
    _refuse(options, for_classifiers, "detector")
    threshold = _THRESHOLD if options.threshold is None else options.threshold
    # Below that torchvision's detectors give nothing.
    require("--threshold", threshold, 0.05 <= threshold <= 1, "0.05 to 1")
    paths = list(_images(options.images))

    from senet import weights
    from senet.detection.detector import load
    from senet.runtime.device import device_named

    found = weights.recognise(options.model)
    model = load(found).to(device_named(options.device))
    classes = found.header.get("classes") or [str(n + 1) for n in range(model.config.num_classes)]
    rows, broken = _found(model, paths, classes, threshold, options.out)
    if options.json:
        print(json.dumps({"model": options.model, "images": rows, "broken": list(broken)}))
    else:
        for row in rows:
            objects = ", ".join(f"{each['label']} {each['score']:.2f}" for each in row["objects"])
            print(printable(f"{row['image']}: {objects or 'nothing'}"))
        if options.out is not None:
            print(f"\n{len(rows):,} pictures and objects.json in {options.out}")
    name_broken(broken)


def _found(
    model: Any, paths: list[Path], classes: list[str], threshold: float, out: str | None
) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    """What is in each image, and why some of them cannot be read; pictures of them in the folder ``out``."""
    from tqdm import tqdm

    from senet.data.source import read_image
    from senet.detection.predicting import detect, drawn
    from senet.files import filling

    rows, broken = [], []
    names: dict[str, Path] = {}
    with ExitStack() as stack:
        folder = stack.enter_context(filling(out, last="objects.json")) if out else None
        for path in tqdm(paths, unit="image", disable=len(paths) == 1 or None):
            try:
                image = read_image(path, channels=3, upright=True)
            except DataError as error:
                broken.append(str(error))
                continue
            objects = detect(model, image, classes, threshold=threshold)
            row: dict[str, Any] = {"image": str(path), "objects": [each._asdict() for each in objects]}
            if folder is not None:
                name = _free(f"{path.stem}.png", names)
                names[name] = path
                drawn(image, objects).save(folder / name)
                row["picture"] = name
            rows.append(row)
        _check_some(rows, broken, len(paths))
        if folder is not None:
            (folder / "objects.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
            before = _pictures(Path(str(out)))
    if out is not None:
        for name in before - names.keys():  # of other images, which objects.json no longer names
            (Path(out) / name).unlink(missing_ok=True)
    return rows, tuple(broken)


def _pictures(folder: Path) -> set[str]:
    """Those of an earlier start, as its objects.json names them; none where that is not one of ours."""
    try:
        rows = json.loads((folder / "objects.json").read_text(encoding="utf-8"))
        names = {row["picture"] for row in rows}
    except (OSError, ValueError, TypeError, LookupError):
        return set()
    return {name for name in names if name == Path(str(name)).name and name.endswith(".png")}


def _images(given: list[str]) -> Iterator[Path]:
    """The images that are named, and those in folders that are; DataError where there is none."""
    from senet.data.source import IMAGE_ENDINGS

    for each in given:
        path = Path(each)
        if not os.path.lexists(path):
            raise DataError(f"predict {each}", "there is no such file or folder")
        if not path.is_dir():
            yield path
            continue
        inside = sorted(file for file in path.rglob("*") if file.suffix.lower() in IMAGE_ENDINGS)
        inside = [file for file in inside if not file.is_dir() and not _is_hidden(file, path)]
        if not inside:
            raise DataError(f"predict {each}", "no image is in this folder", ", ".join(IMAGE_ENDINGS))
        yield from inside


def _is_hidden(file: Path, folder: Path) -> bool:
    """Whether it is a system's or a tool's: macOS writes ._NAME.jpg beside NAME.jpg."""
    return any(part.startswith(".") for part in file.relative_to(folder).parts)


def _free(name: str, taken: dict[str, Path]) -> str:
    """The name, or with a number where several images have it."""
    stem, number = Path(name).stem, 1
    while name in taken:
        number += 1
        name = f"{stem}-{number}.png"
    return name
