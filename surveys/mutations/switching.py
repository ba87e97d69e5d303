"""Every mutant of a C++ file in one library, each behind its number: compiled once, not once for each."""

from __future__ import annotations

import ctypes
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from senet.kernels.cpp import build
from surveys.mutations.mutants import Mutant

_Span = tuple[int, int]
_NAME = "senet_mutant"


class Together:
    """The steps, built and loaded with the mutants of one of their files.

    Not with all of them: what must be constant, for example, cannot depend on which is in force.

    Args:
        path: the file, which stays as it is.
        found: its mutants; their numbers are from 1.
    """

    def __init__(self, path: Path, found: list[Mutant]) -> None:
        self.path, self.before = path, path.read_bytes()
        self.numbered: dict[int, Mutant] = {}
        for number, mutant in enumerate(found, 1):
            if not any(_cross(mutant.span, each.span) for each in self.numbered.values()):
                self.numbered[number] = mutant
        try:
            while wrong := self._wrong():
                self.numbered = {key: each for key, each in self.numbered.items() if key not in wrong}
            build.library()
        finally:
            path.write_bytes(self.before)

    def put(self, number: int, mutant: Mutant) -> bool:
        """Puts a mutant in force; whether it compiles."""
        if number in self.numbered:
            # In the file too, for tests that compile it in their own way.
            self.path.write_bytes(switched(self.path.name, self.before, self.numbered, number))
            ctypes.c_int.in_dll(build.library(), _NAME).value = number
            return True
        self.path.write_bytes(mutant.applied(self.before))
        build._once.cache_clear()
        return build.unavailable() is None

    def _wrong(self) -> set[int]:
        """The numbers of those that do not compile so."""
        self.path.write_bytes(switched(self.path.name, self.before, self.numbered))
        steps = str(build._HERE / build._SOURCES[0])
        command = [*build._compiler(), *build._FLAGS, "-fsyntax-only", steps]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if not done.returncode:
            return set()
        wrong = {int(number) for number in re.findall(r"^mutant:(\d+):\d+: error", done.stderr, re.M)}
        lines = re.findall(rf"{self.path.name}:(\d+):\d+: error", done.stderr)
        return wrong or {key for key, each in self.numbered.items() if not lines or str(each.line) in lines}


def switched(name: str, text: bytes, numbered: Mapping[int, Mutant], force: int = 0) -> bytes:
    """A file's text in which a variable says which of its mutants is in force.

    To the compiler a mutant is the line of its number in a file "mutant", so that it tells which is wrong.

    Args:
        name: of the file.
        text: as it is.
        numbered: of any two of the mutants, the place of one lies in that of the other or outside of it.
        force: the number of the one that is in force at first; 0 for none.
    """
    by_span: dict[_Span, dict[int, Mutant]] = {}
    for number, mutant in numbered.items():
        by_span.setdefault(mutant.span, {})[number] = mutant

    def written(start: int, end: int, spans: list[_Span]) -> bytes:
        parts = []
        while spans:
            (first, last), *others = spans
            original = text[first:last].decode()
            choices = [
                # As wide as what stands there, or the rest of the expression would become another.
                f'\n#line {number} "mutant"\n{_NAME} == {number} ? '
                f"static_cast<__typeof__({original})>({mutant.becomes}) : "
                for number, mutant in by_span[first, last].items()
            ]
            line = next(iter(by_span[first, last].values())).line
            within = written(first, last, [each for each in others if each[1] <= last])
            back = f'\n#line {line} "{name}"\n('
            parts += [text[start:first], b"(", "".join([*choices, back]).encode(), within, b"))"]
            start, spans = last, [each for each in others if each[0] >= last]
        return b"".join([*parts, text[start:end]])

    outermost_first = sorted(by_span, key=lambda span: (span[0], -span[1]))
    return f'extern "C" {{ int {_NAME} = {force}; }} '.encode() + written(0, len(text), outermost_first)


def _cross(one: _Span, other: _Span) -> bool:
    """Whether they overlap, and neither lies in the other."""
    (start, end), (begin, last) = sorted((one, other))
    return start < begin < end < last
