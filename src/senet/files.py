"""Files that appear whole or not at all, and the folder for what can be made again."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from senet.errors import DataError


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path beside ``path``, which takes its place when the body succeeds.

    The data is on the disk before the name is: a crash at any moment leaves the old file or
    the new one. If the body fails, the temporary file goes and the old file stays.
    """
    path = Path(path)
    # In the same folder: across filesystems a rename is a copy, and a copy can be cut.
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Writes a text file whole or not at all (UTF-8)."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def filling(folder: str | Path, *, last: str) -> Iterator[Path]:
    """Yields a hidden folder; what is written there moves to ``folder`` when the body succeeds.

    ``folder`` is made then, if it is not there; other files in it stay. The file named ``last`` is the last
    to appear. If the body fails or is interrupted, nothing of it stays.

    Raises:
        DataError: it cannot be written.
    """
    folder = Path(folder)
    try:
        with tempfile.TemporaryDirectory(dir=_nearest(folder), prefix=".senet-") as name:
            staged = Path(name)
            yield staged
            folder.mkdir(parents=True, exist_ok=True)
            for path in sorted(staged.iterdir(), key=lambda path: path.name == last):
                path.replace(folder / path.name)
    except OSError as error:
        raise DataError(
            f"writing to {str(folder)!r}", f"it cannot be written ({error})", do="Choose another place."
        ) from error


def require_writable(asked: str, folder: str | Path) -> None:
    """Raises DataError unless ``folder`` can be written, or made; nothing of the attempt stays."""
    try:
        tempfile.TemporaryDirectory(dir=_nearest(Path(folder)), prefix=".senet-").cleanup()
    except OSError as error:
        raise DataError(asked, f"it cannot be written ({error})", do="Choose another place.") from error


def cache_folders() -> Iterator[Path]:
    """Where senet keeps what can be made again; none where there is no home either.

    ``$SENET_CACHE``, else ``$XDG_CACHE_HOME/senet``, else ``~/.cache/senet``; it may not exist yet,
    nor be writable.
    """
    own, cache = os.environ.get("SENET_CACHE"), os.environ.get("XDG_CACHE_HOME")
    if own:
        yield Path(own)
    elif cache:
        yield Path(cache) / "senet"
    else:
        try:
            yield Path.home() / ".cache" / "senet"
        except RuntimeError:
            return


def _nearest(folder: Path) -> Path:
    """The folder, or the first above it that is there: on the same filesystem as the folder will be."""
    folder = folder.absolute()
    return next(place for place in (folder, *folder.parents) if os.path.lexists(place))


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    # The mask can only be read by setting it.
    mask = os.umask(0)
    os.umask(mask)
    return mask
