"""What the verbs share: a parser whose errors are one line, and words as people write them."""

from __future__ import annotations

import re
import shutil
import sys
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

from senet.errors import DataError, OptionError, check_choice, did_you_mean
from senet.files import require_writable
from senet.passport import program

_MOST_NAMED = 20


def parser_for(usage: str, description: str) -> Any:
    """A parser of a verb's words, whose errors are one line and name the nearest option."""
    from jsonargparse import ArgumentParser

    class Parser(ArgumentParser):  # type: ignore[misc, unused-ignore]
        def error(self, message: str, ex: Exception | None = None) -> NoReturn:
            known = [option for action in self._actions for option in action.option_strings]
            known = [option for option in known if not option.startswith("--print")]
            words = re.findall(r"(?<!\S)--[\w.]+", message)
            words += [f"--{key}" for key in re.findall(r"Option '([\w.]+)' is not accepted", message)]
            for option in words:
                if option not in known:
                    message += f". {did_you_mean(option, known)}"
            verb = usage.split()[0]
            print(f"senet {verb}: {message}\n`senet {verb} --help` has the options.", file=sys.stderr)
            sys.exit(2)

    return Parser(
        prog=f"senet {usage}",
        usage=f"senet {usage} [options]",
        description=description,
        print_config=None,
        allow_abbrev=False,
    )


def normalised(argv: list[str]) -> list[str]:
    """The words as jsonargparse wants them.

    ``--config FILE`` goes first, so that all else overrides the file, and a list such as
    ``--stages 2,3`` gets its brackets.
    """
    config: list[str] = []
    rest: list[str] = []
    words = iter(word for given in argv for word in _split(given))
    for word in words:
        if word in ("--config", "--stages", "--milestones"):
            bare = word == "--config"
            value = [each if bare or each == "null" else f"[{each.strip('[]')}]" for each in islice(words, 1)]
            (config if word == "--config" else rest).extend([word, *value])
        else:
            rest.append(word)
    return config + rest


def _split(word: str) -> list[str]:
    return word.split("=", 1) if word.startswith("--") and "=" in word else [word]


def image_size(text: str) -> list[int]:
    """The sizes in the value of --input, such as 3x224x224; OptionError where it is none."""
    sizes = text.lower().split("x")
    if not all(size.isdecimal() and int(size) for size in sizes):
        raise OptionError(f"--input {text!r}", "it is no size", "CxHxW, such as 3x224x224")
    return [int(size) for size in sizes]


def words_of(option: str, text: str | None) -> list[str]:
    """The words of a list such as ``--blocks a,b``, [] if it is not given; OptionError if it is empty."""
    words = [word.strip() for word in (text or "").split(",") if word.strip()]
    if text is not None and not words:
        raise OptionError(f"{option} {text!r}", "no name is in it", "names, separated by commas")
    return words


def check_file(option: str, path: str | None, *endings: str) -> None:
    """Raises if a file to write has another ending, or no folder that can be written."""
    if path is None:
        return
    asked, folder = f"{option} {path}", Path(path).parent
    check_choice(asked, Path(path).suffix, endings)
    if not folder.is_dir():
        raise DataError(asked, f"there is no folder {folder}", do="Make it first.")
    if Path(path).is_dir():
        raise DataError(asked, "there is a folder of that name", do="Name a file.")
    require_writable(asked, folder)


def as_called() -> list[str]:
    """The command as the user can type it again, also where its environment is not active."""
    name = program()
    return [sys.argv[0]] if name == "senet" and not shutil.which(name) else name.split()


def printable(text: str) -> str:
    """The text with what no terminal shows, or what commands it, as escapes: names of files may hold it."""
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape", "surrogatepass").decode()
        for each in text
    )


def name_broken(broken: tuple[str, ...]) -> None:
    """Tells on standard error which images cannot be read."""
    for why in broken[:_MOST_NAMED]:
        print(printable(why), file=sys.stderr)
    if len(broken) > _MOST_NAMED:
        print(f"... and {len(broken) - _MOST_NAMED:,} more broken images", file=sys.stderr)
