"""What the verbs share: a parser whose errors are one line, and words as people write them."""

from __future__ import annotations

import re
import shutil
import sys
from itertools import islice
from typing import Any, NoReturn

from senet.errors import did_you_mean
from senet.passport import program


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


def as_called() -> list[str]:
    """The command as the user can type it again, also where its environment is not active."""
    name = program()
    return [sys.argv[0]] if name == "senet" and not shutil.which(name) else name.split()
