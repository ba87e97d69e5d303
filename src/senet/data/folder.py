"""``folder:DIR``: ``train/`` and ``val/`` (or ``test/``), each with one folder of images a class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from senet.data.source import IMAGE_ENDINGS, TEST_NAMES, Splits, decode
from senet.errors import DataError


class ImageFolder:
    """Images in class folders, each read when asked for.

    Args:
        files: the images and their classes.
    """

    def __init__(self, files: list[tuple[Path, int]]) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def read(self, index: int) -> tuple[Any, int]:
        """The image (PIL, RGB) and its class; DataError naming the file."""
        path, label = self.files[index]
        try:
            data = path.read_bytes()
        except OSError as error:
            raise DataError(f"reading {path}", f"the file cannot be read ({error})") from error
        return decode(data, channels=3, where=str(path)), label


def open_folder(place: str) -> Splits:
    """The images under ``place``; classes are the folders of ``train/``, sorted.

    Raises:
        DataError: a folder is missing or empty, or the splits' classes differ.
    """
    root = Path(place)
    layout = "DIR/train/CLASS/*.jpg and DIR/val/CLASS/*.jpg"
    held_out = next((root / name for name in TEST_NAMES if (root / name).is_dir()), None)
    if not (root / "train").is_dir() or held_out is None:
        raise DataError(
            f"data 'folder:{place}'",
            found=f"there is no {'train/' if held_out else 'train/ with val/'} in it",
            allowed=layout,
        )
    classes = _class_names(root / "train")
    if not classes:
        raise DataError(f"data 'folder:{place}'", f"{root / 'train'} holds no class folders", layout)
    unknown = sorted(set(_class_names(held_out)) - set(classes))
    if unknown:
        raise DataError(
            f"data 'folder:{place}'",
            found=f"{held_out.name}/ has classes that train/ lacks: {', '.join(unknown[:5])}",
            allowed="the classes of train/",
        )
    train, test = (ImageFolder(_images(folder, classes)) for folder in (root / "train", held_out))
    for folder, source in ((root / "train", train), (held_out, test)):
        if not len(source):
            raise DataError(
                f"data 'folder:{place}'",
                found=f"{folder} holds no images",
                allowed=f"files ending in {', '.join(IMAGE_ENDINGS)}",
            )
    empty = sorted(set(range(len(classes))) - {label for _, label in train.files})
    if empty:
        raise DataError(
            f"data 'folder:{place}'",
            found=f"the class {classes[empty[0]]} has no images in train/",
            allowed=f"files ending in {', '.join(IMAGE_ENDINGS)}",
            do="Add some, or remove its folder.",
        )
    return Splits(
        name=f"folder:{place}",
        description=f"{len(train):,} images to train on, {len(test):,} in {held_out.name}/ to test on, "
        f"{len(classes):,} classes",
        train=train,
        test=test,
        classes=tuple(classes),
        channels=3,
    )


def _class_names(folder: Path) -> list[str]:
    # Folders with a dot are a tool's, such as .ipynb_checkpoints.
    return sorted(e.name for e in folder.iterdir() if e.is_dir() and not e.name.startswith("."))


def _images(folder: Path, classes: list[str]) -> list[tuple[Path, int]]:
    return [
        (path, label)
        for label, name in enumerate(classes)
        for path in sorted((folder / name).rglob("*"))
        if path.suffix.lower() in IMAGE_ENDINGS and path.is_file()
    ]
