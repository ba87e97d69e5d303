"""What is left out of a file, and that a test notices: a few terms of the many of the survey."""

import re
from pathlib import Path

import pytest
from surveys.mutations import __main__ as command
from surveys.mutations.equivalent import EQUIVALENT
from surveys.mutations.mutants import mutants
from surveys.mutations.targets import TARGETS, Target

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
