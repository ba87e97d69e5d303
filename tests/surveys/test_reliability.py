"""The bars of docs/reliability.md, at sizes that every commit can bear."""

from pathlib import Path

import pytest
from surveys.reliability import __main__ as command
from surveys.reliability import document
from surveys.reliability.bars import BARS, Bar, BrokenPromiseError, check
from surveys.reliability.every import FILES

QUICK: dict[str, dict[str, int]] = {
    "resume": {"seeds": 1, "kills": 2, "epochs": 2},
    "written_whole": {"kills": 6, "megabytes": 8},
    "bit_flips": {"flips": 30},
    "order": {"steps": 2},
    "nonfinite": {"steps": 2},
    "fuzzed_images": {"mutations": 2_000},
    "fuzzed_configs": {"mutations": 30},
    "gadgets": {},
    "broken_images": {"images": 100},
    "bombs": {"times": 3},
    "footprint": {"times": 1, "importing": 2_000, "helping": 2_000},
    "missing_packages": {"packages": 1},
}
SLOW: dict[str, dict[str, int]] = {
    "worker_killed": {"times": 1, "seconds": 30},
    "unforeseen": {"times": 1},
    "resume": {"seeds": 5, "kills": 8},
    "resume_by_command": {"kills": 2},
    "experiments": {"kills": 3, "seeds": 1},
    "stopped": {"times": 8},
    "stopped_by_command": {"times": 4},
    "repeated": {"times": 3},
    "written_whole": {"kills": 10, "megabytes": 60},
    "disk_full": {},
    "bit_flips": {},
    "elastic": {"kills": 3},
    "hang": {"timeout": 12},
    "two_hosts": {"timeout": 15},
    "three_hosts": {"timeout": 15},
    "soak": {"steps": 300, "percent": 10_000},
    "slow_link": {"images": 96, "percent": 100},
    "processes_changed": {},
    "evaluation": {},
    "nonfinite": {},
    "fuzzed_images": {"mutations": 20_000},
    "fuzzed_configs": {"mutations": 200},
    "missing_packages": {},
}


@pytest.mark.parametrize("name", QUICK)
def test_the_promise_holds(name: str) -> None:
    assert _measured(name, QUICK[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_it_holds_at_a_larger_size(name: str) -> None:
    assert _measured(name, SLOW[name])


def _measured(name: str, sizes: dict[str, int]) -> str:
    bar = BARS[name]
    if lacking := bar.needs():
        pytest.skip(lacking)
    return str(bar.run(**sizes)["measured"])


def test_every_bar_is_tested_and_in_the_document() -> None:
    assert BARS.keys() == QUICK.keys() | SLOW.keys()
    assert {each.measure.__module__ for each in BARS.values()} == {each.__name__ for each in FILES}
    text = document.DOCUMENT.read_text(encoding="utf-8")
    assert all(f"`{name}`" in text for name in BARS)
    assert document.known().keys() == BARS.keys()


def _measure(*, size: int = 3) -> str:
    check(size < 5, f"{size} is too much")
    return f"{size} measured"


@pytest.fixture
def trial(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """One bar, which holds for sizes below five, and places for what it gives."""
    only = {"trial": Bar("R0", "trial", "It holds.", "{size} are tried", _measure)}
    monkeypatch.setattr(command, "BARS", only)
    monkeypatch.setattr(document, "BARS", only)
    monkeypatch.setattr(document, "RESULTS", tmp_path / "results.jsonl")
    monkeypatch.setattr(document, "DOCUMENT", tmp_path / "reliability.md")
    document.DOCUMENT.write_text("before\n" + "out of date\n".join(document.MARKS) + "after\n")
    return tmp_path


def test_the_command_writes_the_table(trial: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--write", "--size", "4"]) == 0
    assert command.main(["--write"]) == 0, "the last one stays"
    text = document.DOCUMENT.read_text()
    assert "| R0 `trial` | It holds. | 3 are tried | 3 measured (" in text
    assert (text.startswith("before\n"), text.endswith("after\n"), "out of date" in text) == (
        True,
        True,
        False,
    )
    assert "not at full size" not in text
    assert "4 measured" in capsys.readouterr().out


def test_a_broken_promise_is_an_exit_status_and_no_row(
    trial: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = document.DOCUMENT.read_text()
    assert command.main(["trial", "--size", "5", "--write"]) == 1
    assert "BROKEN: 5 is too much" in capsys.readouterr().out
    assert document.DOCUMENT.read_text() == before
    with pytest.raises(BrokenPromiseError):
        _measure(size=6)
    with pytest.raises(SystemExit):
        command.main(["trail"])
