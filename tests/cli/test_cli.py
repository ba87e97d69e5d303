import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.programs import program

from senet.cli import VERBS, main
from senet.files import replacing


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["trian"], 2, "Did you mean 'train'?"),
        (["models", "resnet51"], 1, "Did you mean 'resnet5"),
        (["train", "se_resnet21", "--recipe", "digits"], 1, "there is no such network"),
        (["train", "--data", "shards:nowhere"], 1, "there is no folder nowhere"),
        (["train", "--recipe", "digit"], 1, "Did you mean 'digits'?"),
        (["train", "--se.gate", "sigmod"], 1, "Did you mean 'sigmoid'?"),
        (["train", "--device", "meta"], 1, "it holds no numbers"),
        (["train", "--stages", "7"], 1, "there is no stage 7"),
        (["train", "--config", "c.yaml", "--recipe", "digits"], 1, "Leave out one of the two"),
        (["train", "--seed", "99999999999999999999999"], 1, "seed <"),
        (
            ["train", "se_resnet50", "--layout", "original", "--image_size", "2"],
            1,
            "Set another --image_size",
        ),
        (["train", "--lr", "0"], 1, "Allowed: above 0"),
        (["eval", "nowhere"], 1, "neither a network's name nor a path"),
        (["eval", "se_resnet20", "--data", "digits"], 1, "Give --weights"),
        (["eval", "se_resnet20", "--batch_size", "0"], 1, "batch_size=0"),
        (["eval", "se_resnet20", "--workers", "-1"], 1, "workers=-1"),
        (["eval", "a", "b", "--weights", "c"], 1, "one MODEL beside it"),
    ],
)
def test_errors_are_one_line(
    arguments: list[str], status: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("c.yaml").write_text("epochs: 1\n")
    assert main(arguments) == status
    captured = capsys.readouterr()
    (line, *overview) = captured.err.strip().splitlines()
    assert words in line
    assert line.startswith("senet")
    assert not overview or arguments == ["trian"]
    assert not captured.out
    assert os.listdir() == ["c.yaml"], "nothing was written"


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main([verb, "--help"])
    assert exit_.value.code == 0
    assert f"usage: senet {verb}" in capsys.readouterr().out


def test_help_is_quick_and_imports_no_torch() -> None:
    code = "import sys; from senet.cli import main; main(['--help']); print('torch' in sys.modules)"
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        out = program("-c", code)
        seconds.append(time.perf_counter() - started)
        assert out.splitlines()[-1] == "False"
        assert "train" in out
    assert min(seconds) < 0.5


def test_the_module_is_the_command() -> None:
    assert program("-m", "senet", "--version").startswith("senet ")


@pytest.mark.parametrize("words", [["--help"], pytest.param(["models", "resnet20"], marks=pytest.mark.slow)])
def test_a_reader_that_leaves_early_is_no_error(words: list[str]) -> None:
    """As by `| head`; what is printed waits in a buffer, as it does for everybody."""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "senet", *words],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        env={key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"},
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


def test_sigterm_leaves_nothing_half_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def convert(words: list[str]) -> None:
        with replacing(words[0]) as path:
            path.write_text("half")
            assert len(os.listdir()) == 1
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)

    monkeypatch.setitem(VERBS, "convert", convert)
    before = signal.getsignal(signal.SIGTERM)
    assert main(["convert", "w.safetensors"]) == 143
    assert capsys.readouterr().err == "senet convert: ended by SIGTERM; nothing is half-written\n"
    assert not os.listdir()
    assert signal.getsignal(signal.SIGTERM) is before
