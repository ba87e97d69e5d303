"""``senet predict``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from senet.cli.parsing import name_broken, parser_for
from senet.errors import DataError, OptionError, require


def predict(argv: list[str]) -> None:
    """Find the objects in images, and draw them."""
    parser = parser_for(
        "predict MODEL IMAGE...",
        "Finds the objects in images and draws their boxes. Broken images are named, and the others go on.",
    )
    parser.add_argument("model", help="the run folder or the weights of a detector")
    parser.add_argument("images", nargs="+", help="images, and folders of them")
    parser.add_argument(
        "--out", type=str | None, help="a folder for the pictures, by their names, and objects.json"
    )
    parser.add_argument(
        "--threshold", type=float, default=0.5, help="the lowest score that counts, 0.05 to 1"
    )
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda, cuda:1, ...")
    parser.add_argument("--json", action="store_true", help="print the result for programs, and only that")
    options = parser.parse_args(argv)
    # Below that torchvision's detectors give nothing.
    require("--threshold", options.threshold, 0.05 <= options.threshold <= 1, "0.05 to 1")
    paths = list(_images(options.images))

    from senet import weights
    from senet.detection.detector import load
    from senet.runtime.device import device_named

    found = weights.recognise(options.model)
    if "detector" not in found.header:
        raise OptionError(
            f"predict {options.model!r}",
            found="these are the weights of a classifier",
            allowed="a run, or weights, of a detector: fasterrcnn_BACKBONE_fpn",
        )
    model = load(found).to(device_named(options.device))
    classes = found.header.get("classes") or [str(n + 1) for n in range(model.config.num_classes)]
    rows, broken = _found(model, paths, classes, options.threshold, options.out)
    if options.json:
        print(json.dumps({"model": options.model, "images": rows, "broken": list(broken)}))
    else:
        _show(rows, options.out)
    name_broken(broken)


def _found(
    model: Any, paths: list[Path], classes: list[str], threshold: float, out: str | None
) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    """What is in each image, and why some of them cannot be read; pictures of them in the folder ``out``."""
    from contextlib import ExitStack

    from PIL import ImageOps
    from tqdm import tqdm

    from senet.data.source import read_image
    from senet.detection.predicting import detect, drawn
    from senet.files import filling

    rows, broken = [], []
    names: dict[str, Path] = {}
    with ExitStack() as stack:
        folder = stack.enter_context(filling(out, last="objects.json")) if out else None
        for path in tqdm(paths, unit="image", disable=None if len(paths) > 1 else True):
            try:
                # As a camera held it.
                image = ImageOps.exif_transpose(read_image(path, channels=3))
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
        if not rows:
            raise DataError("predict", found=f"none of the {len(paths)} images can be read; {broken[0]}")
        if folder is not None:
            (folder / "objects.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
    return rows, tuple(broken)


def _show(rows: list[dict[str, Any]], out: str | None) -> None:
    for row in rows:
        found = ", ".join(f"{each['label']} {each['score']:.2f}" for each in row["objects"])
        print(f"{row['image']}: {found or 'nothing'}")
    if out is not None:
        print(f"\n{len(rows)} pictures and objects.json in {out}")


def _images(given: list[str]) -> Iterator[Path]:
    """The images that are named, and those in folders that are; DataError where there is none."""
    from senet.data.source import IMAGE_ENDINGS

    for each in given:
        path = Path(each)
        if not path.is_dir():
            yield path
            continue
        inside = sorted(file for file in path.rglob("*") if file.suffix.lower() in IMAGE_ENDINGS)
        if not inside:
            raise DataError(f"predict {each}", "no image is in this folder", ", ".join(IMAGE_ENDINGS))
        yield from inside


def _free(name: str, taken: dict[str, Path]) -> str:
    """The name, or with a number where several images have it."""
    stem, number = Path(name).stem, 1
    while name in taken:
        number += 1
        name = f"{stem}-{number}.png"
    return name
