"""What is left out of a file, and that a test notices: a few terms of the many of the survey."""

import ctypes
import functools
import importlib
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from surveys.mutations import __main__ as command
from surveys.mutations.equivalent import EQUIVALENT
from surveys.mutations.mutants import mutants
from surveys.mutations.switching import Together
from surveys.mutations.targets import TARGETS, Target
from surveys.mutations.trial import _reload

from senet.kernels.cpp import build

PYTHON = '''
def f(a: "a + b", b) -> None:
    """a + b"""
    a += b - 1
    if a < b:
        raise ValueError(a + b)
    return where(a & b, -a, load(b, mask=a).to(float32))
'''
CPP = """
double f(double a, double b) {
  // a + b
  for (int j = 0; j < a; ++j) b *= a;
  return a * b + (a < b ? a : b) / 2;
}
"""


def _changes(path: Path, text: str) -> list[tuple[str, str]]:
    path.write_text(text)
    return [(each.term, each.becomes) for each in mutants(path.parent, path.name)]


def test_terms_of_python(tmp_path: Path) -> None:
    assert sorted(_changes(tmp_path / "f.py", PYTHON)) == sorted(
        [
            ("a += b - 1", "a = (b - 1)"),
            ("a += b - 1", "a = a"),
            ("b - 1", "(b)"),
            ("b - 1", "(-(1))"),
            ("a < b", "(a <= b)"),
            ("where(a & b, -a, load(b, mask=a).to(float32))", "(-a)"),
            ("where(a & b, -a, load(b, mask=a).to(float32))", "(load(b, mask=a).to(float32))"),
            ("a & b", "(a)"),
            ("a & b", "(b)"),
            ("-a", "(a)"),
            ("load(b, mask=a).to(float32)", "(load(b, mask=a))"),
            ("load(b, mask=a)", "load(b)"),
        ]
    )


def test_terms_of_cpp(tmp_path: Path) -> None:
    assert sorted(_changes(tmp_path / "f.cpp", CPP)) == sorted(
        [
            ("b *= a", "b = a"),
            ("b *= a", "b"),
            ("a * b", "a"),
            ("a * b", "b"),
            ("a * b + (a < b ? a : b) / 2", "a * b"),
            ("a * b + (a < b ? a : b) / 2", "(a < b ? a : b) / 2"),
            ("a < b", "a <= b"),
            ("a < b ? a : b", "a"),
            ("a < b ? a : b", "b"),
            ("(a < b ? a : b) / 2", "(a < b ? a : b)"),
            ("(a < b ? a : b) / 2", "1 / (2)"),
        ]
    )


def test_operands_of_cpp_end_where_operators_bind_less(tmp_path: Path) -> None:
    text = "double f(bool a, bool b) {\n  x[0] *= a && b ? 2 : y;\n}\n"
    assert sorted(_changes(tmp_path / "f.cpp", text)) == sorted(
        [
            ("x[0] *= a && b ? 2 : y", "x[0] = a && b ? 2 : y"),
            ("x[0] *= a && b ? 2 : y", "x[0]"),
            ("a && b ? 2 : y", "2"),
            ("a && b ? 2 : y", "y"),
            ("a && b", "a"),
            ("a && b", "b"),
        ]
    )


STEPS = """
extern "C" void senet_threads(void*, void*, void*) {}
extern "C" double f(double a, double b) {
  long none = 0;
  const double* at = &a + none;
  constexpr int two = 1 + 1;
  double sum = a < b ? a * (b - two) + 1 : a / b;
  sum += sum * *at;
  return sum;
}
"""


def test_mutants_in_one_library_compute_what_each_computes_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = tmp_path / "steps.cpp"
    steps.write_text(STEPS)
    monkeypatch.setattr(build, "_HERE", tmp_path)
    monkeypatch.setattr(build, "_SOURCES", (steps.name,))
    monkeypatch.setattr(build, "_FLAGS", ("-O0", "-shared", "-fPIC"))
    monkeypatch.setattr(build, "_once", functools.cache(build._once.__wrapped__))
    monkeypatch.setenv("SENET_CACHE", str(tmp_path / "cache"))
    if (reason := build.unavailable()) is not None:
        pytest.skip(reason)
    build._once.cache_clear()

    def results(library: ctypes.CDLL) -> list[float]:
        library.f.argtypes, library.f.restype = [ctypes.c_double] * 2, ctypes.c_double
        return [library.f(a, b) for a, b in ((3.0, 7.0), (7.0, 3.0), (5.0, 5.0))]

    found = mutants(tmp_path, steps.name)
    original = results(build.library())
    build._once.cache_clear()
    together = Together(steps, found)
    assert results(build.library()) == original
    one = build.library()
    outside = {each.term for number, each in enumerate(found, 1) if number not in together.numbered}
    # An address is no number, and what must be constant must not depend on a variable.
    assert outside == {"&a + none", "1 + 1"}
    # After one that is built alone there is another library.
    for number, mutant in sorted(enumerate(found, 1), key=lambda each: each[0] not in together.numbered):
        if not together.put(number, mutant):
            assert (mutant.term, mutant.becomes) == ("&a + none", "none")
            continue
        found_together = results(build.library())
        steps.write_text(mutant.applied(STEPS.encode()).decode())
        build._compile(build._compiler(), list(build._FLAGS), tmp_path / f"{number}.so")
        assert found_together == results(ctypes.CDLL(str(tmp_path / f"{number}.so")))
        assert (build.library() is one) == (number in together.numbered)


def test_a_mutant_is_put_where_it_was_found(tmp_path: Path) -> None:
    text = "x = 1\nσ = y * 2\n"
    (tmp_path / "f.py").write_text(text)
    first, second = mutants(tmp_path, "f.py")
    assert first.applied(text.encode()).decode() == "x = 1\nσ = (y)\n"
    assert second.applied(text.encode()).decode() == "x = 1\nσ = (2)\n"
    assert first.line == 2


def test_files_have_mutants_and_tests_and_reasons_are_of_some() -> None:
    keys = []
    for target in TARGETS:
        found = mutants(command.ROOT, target.file, target.functions)
        assert found, target.file
        assert all((command.ROOT / test).is_file() for test in target.tests), target.file
        keys += [each.key for each in found]
    for pattern in EQUIVALENT:
        assert any(re.search(pattern, key) for key in keys), pattern


def _line(text: str) -> str:
    source = command.ROOT / "src" / "senet" / "kernels" / "activations.py"
    (line,) = (number for number, each in enumerate(source.read_text().splitlines(), 1) if text in each)
    return str(line)


def test_a_missing_term_is_noticed(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["kernels/activations", "--lines", _line("1 - s / 2")]) == 0
    assert "6 mutants, 6 killed" in capsys.readouterr().out


def test_one_that_nobody_notices_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    line, file = _line("1 - s / 2"), "src/senet/kernels/activations.py"
    monkeypatch.setattr(command, "TARGETS", (Target(file, ("tests/kernels/test_layout.py",)),))
    assert command.main(["kernels/activations", "--lines", line, "--sample", "1"]) == 1
    told = capsys.readouterr().out
    assert f"survived {line} {file}::: " in told
    assert "6 mutants, 5 not tried, 1 survived" in told


class _Closed(ModuleType):
    """A module that nobody can write to, as there are in torch."""

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(name)


def test_a_module_read_anew_changes_for_all_who_took_something_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, text = tmp_path / "read_anew.py", "from typing import Any\n\ndef f() -> Any:\n    return 1"
    path.write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    module, other, closed = importlib.import_module("read_anew"), ModuleType("other"), _Closed("closed")
    vars(other)["f"], vars(closed)["Any"] = module.f, Any
    for each in (module, other, closed):
        monkeypatch.setitem(sys.modules, each.__name__, each)
    path.write_text(text + " + 1")
    _reload("read_anew")
    assert vars(other)["f"]() == 2
