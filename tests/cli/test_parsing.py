import sys
from pathlib import Path

import pytest

from senet.cli import main
from senet.cli.parsing import as_called, check_file, words_of
from senet.errors import OptionError, SenetError


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "--epochz", "3"], "Did you mean '--epochs'?"),
        (["train", "--epochs", "many"], '"epochs"'),
        (["train", "--epoch", "1"], "Did you mean '--epochs'?"),
        (["train", "--config", "wrong.yaml"], "Did you mean '--lr'?"),
        (["train", "--precision", "float8"], "bfloat16"),
        (["train", "--config", "nowhere.yaml"], "nowhere.yaml"),
        (["eval"], "models"),
    ],
)
def test_wrong_words(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("wrong.yaml").write_text("lrr: 0.1\n")
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.startswith(f"senet {arguments[0]}: ")
    assert f"`senet {arguments[0]} --help`" in error


@pytest.mark.parametrize("written", [["--stages", "2,3"], ["--stages=2,3"], ["--stages", "[2,3]"]])
def test_lists_need_no_brackets(written: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--epochs", "1", "--batch_size", "700", *written]) == 0
    assert "6 SE blocks" in capsys.readouterr().out


def test_the_next_command_can_be_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [".venv/bin/senet", "train"])
    monkeypatch.setenv("PATH", "")
    assert as_called() == [".venv/bin/senet"]
    monkeypatch.setattr(sys, "argv", ["/somewhere/senet/__main__.py", "train"])
    assert as_called() == ["python", "-m", "senet"]


def test_the_words_of_a_list() -> None:
    assert words_of("--blocks", None) == []
    assert words_of("--blocks", " a, b.* ,,") == ["a", "b.*"]
    for empty in ("", ",", " , "):
        with pytest.raises(OptionError, match=r"--blocks '.*': no name is in it"):
            words_of("--blocks", empty)


def test_a_file_that_can_be_written() -> None:
    Path("file").write_text("")
    check_file("--out", None, ".csv")
    check_file("--out", "a.csv", ".csv", ".md")
    for path, message in (
        ("a.txt", ".csv, .md"),
        ("no/a.csv", "no folder no"),
        ("file/a.md", "no folder file"),
    ):
        with pytest.raises(SenetError, match=f"--out {path}.*{message}"):
            check_file("--out", path, ".csv", ".md")
