import json
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

import senet
from senet.cli import main
from senet.training.classification import Classification
from senet.training.config import Recipe, TrainConfig
from senet.training.loop import train


def test_train_then_eval(capsys: pytest.CaptureFixture[str]) -> None:
    """The newcomer's way: train with no argument but fewer epochs, then the command it names."""
    assert main(["train", "--epochs", "2"]) == 0
    out = capsys.readouterr().out
    assert "one fixed stratified 80/20 split" in out
    assert "test accuracy" in out
    assert "the gates of the 9 SE blocks" in out
    assert "layer3.2.se" in out
    following = out.strip().splitlines()[-1].split()
    assert following[0] == "next"
    assert following[-2:] == ["eval", "runs/se_resnet20-digits-seed0-1"]
    assert main([*following[-2:], "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert f"({row['correct1']} of 360 images), last epoch" in out


def test_options_override_config_which_overrides_the_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    Path("c.yaml").write_text("model: resnet20\nepochs: 1\nlr: 0.05\nbatch_size: 200\n")
    assert (
        main(["train", "se_resnet20", "--batch_size", "400", "--config", "c.yaml", "--run", "r", "--json"])
        == 0
    )
    printed = json.loads(capsys.readouterr().out)
    assert (printed["run"], printed["images"]) == ("r", 360)
    config = yaml.safe_load(Path("r/config.yaml").read_text())
    assert (config["model"], config["batch_size"], config["lr"], config["pad"]) == (
        "se_resnet20",
        400,
        0.05,
        1,
    )
    # What a run wrote is what --config takes.
    assert main(["train", "--config", "r/config.yaml", "--se.reduction", "4", "--run", "s", "--json"]) == 0
    again = yaml.safe_load(Path("s/config.yaml").read_text())
    assert again == config | {"se": {"reduction": 4}}


@pytest.mark.parametrize("name", ["resume", "auto_resume", "tensorboard", "json"])
def test_a_config_file_says_nothing_of_a_start(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    value = "some/run" if name == "resume" else "true"
    Path("c.yaml").write_text(f"lr: 0.1\n{name}: {value}\n")
    assert main(["train", "--config", "c.yaml", "--run", "r"]) == 1
    assert f"--config with {name} in the file" in capsys.readouterr().err
    assert not Path("r").exists()


def test_a_runs_config_is_the_run_again(capsys: pytest.CaptureFixture[str]) -> None:
    """Also its network, and a recipe of one's own from Python."""
    recipe = Recipe(epochs=1, batch_size=300, lr=0.02, milestones=(0.5,), schedule="step")
    config = TrainConfig(model="resnet32", recipe=recipe, recipe_name="mine", run=Path("a run"))
    first = train(config).evaluation
    assert main(["train", "--config", "a run/config.yaml", "--run", "b", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["loss"] == first.loss
    written = yaml.safe_load(Path("a run/config.yaml").read_text())
    assert yaml.safe_load(Path("b/config.yaml").read_text()) == written
    Path("part.yaml").write_text("recipe: mine\nlr: 0.02\n")
    assert main(["train", "--config", "part.yaml"]) == 1
    assert "'mine' is unknown" in capsys.readouterr().err


def test_the_next_command_is_quoted(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "resnet20", "--epochs", "1", "--batch_size", "700", "--run", "a run"]) == 0
    assert capsys.readouterr().out.strip().endswith("eval 'a run'")


def test_the_recipe_follows_the_network(shard_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--data", f"shards:{shard_folder}", "--epochs", "1", "--batch_size", "4", "--run", "r"]
    assert main(["train", *arguments]) == 0
    assert "recipe   cifar:" in capsys.readouterr().out


# Two epochs of two steps.
SHORT = ["train", "--epochs", "2", "--batch_size", "700"]


@contextmanager
def signalled(number: int, step: int, job: Any = Classification) -> Iterator[None]:
    """A run in the body gets this signal in that step."""
    inputs = job.inputs

    def sent(self: Any, *arguments: Any) -> Any:
        if self.state.step == step - 1:
            os.kill(os.getpid(), number)
        return inputs(self, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job, "inputs", sent)
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody stopped."""
    path = tmp_path_factory.mktemp("runs") / "whole"
    assert main([*SHORT, "--run", str(path), "--json"]) == 0
    return path


def _results(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in run.glob("[blm]*.*")}


@pytest.mark.parametrize("words", [[], ["--workers", "1", "--device", "cpu", "--json"]])
def test_a_run_that_was_stopped_goes_on_to_the_same_end(
    words: list[str], whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with signalled(signal.SIGTERM, step=3):
        assert main(SHORT) == 143
    (said,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("senet")]
    assert said.startswith("senet train: training se_resnet20: SIGTERM asked for its end; step 3 is saved")
    assert said.endswith("`senet train --resume RUN` goes on from there.")
    run = Path("runs/se_resnet20-digits-seed0-1")
    assert main(["train", "--resume", str(run), *words]) == 0
    assert _results(run) == _results(whole)
    assert len(_results(whole)) == 4
    out = capsys.readouterr().out
    if words:
        last = json.loads((whole / "metrics.jsonl").read_text().splitlines()[-1])
        printed = json.loads(out)
        assert (printed["run"], printed["loss"]) == (str(run), last["test_loss"])
    else:
        assert f"run      {run}, goes on after step 3\n" in out
        assert out.endswith(f"eval {run}\n")
    assert os.listdir("runs") == [run.name]


def test_an_interrupted_run_can_go_on(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with signalled(signal.SIGINT, step=2):
        assert main([*SHORT, "--run", "r", "--json"]) == 130
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("senet train: interrupted: step 2 is saved. `senet train --resume RUN`")
    assert main(["train", "--resume=r", "--json"]) == 0
    assert _results(Path("r")) == _results(whole)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "--resume 'nowhere': there is no such folder"),
        (["empty"], "--resume 'empty': there is no config.yaml in it. Allowed: the folder of a run."),
        (["run/config.yaml"], "--resume 'run/config.yaml': "),
        (["wrong"], "Did you mean 'lr'?"),
        (["run", "--device", "meta"], "it holds no numbers"),
        (["run", "--workers", "-1"], "workers=-1"),
    ],
)
def test_what_cannot_go_on(
    words: list[str], message: str, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("empty").mkdir()
    for name in ("run", "wrong"):
        shutil.copytree(whole, name)
    config = Path("wrong/config.yaml")
    config.write_text(config.read_text().replace("lr:", "lrr:"))
    before = sorted(Path().rglob("*"))
    assert main(["train", "--resume", *words]) == 1
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert message in line
    assert not captured.out
    assert sorted(Path().rglob("*")) == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--resume"),
        (["run", "--lr", "0.01"], "--lr"),
        (["run", "se_resnet56"], "se_resnet56"),
        (["run", "--seed", "1"], "--seed with --resume: a run goes on as it was begun. Allowed: --device, "),
        (["run", "--se.gate=sigmoid"], "begin a new run: --weights RUN starts it from these weights"),
        (["run", "--config", "run/config.yaml"], "--config"),
    ],
)
def test_a_run_goes_on_as_it_was_begun(
    words: list[str], message: str, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(whole, "run")
    with pytest.raises(SystemExit) as exit_:
        main(["train", "--resume", *words])
    assert exit_.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("senet train: ")
    assert message in said
    assert _results(Path("run")) == _results(whole)


def test_the_same_words_begin_a_run_and_go_on_with_it(
    whole: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*SHORT, "--run", "r"]
    assert main([*words, "--epochs", "3", "--auto_resume"]) == 0
    assert main([*words, "--auto_resume"]) == 1
    assert "epochs is 3 there, and 2 is asked for" in capsys.readouterr().err
    shutil.rmtree("r")
    with signalled(signal.SIGTERM, 2):
        assert main([*words, "--auto_resume"]) == 143
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "3")
    assert main(words) == 0, "torchrun says them again by itself"
    assert "goes on after step 2" in capsys.readouterr().out
    assert _results(Path("r")) == _results(whole)


@pytest.mark.parametrize("restarts", ["0", "2"])
def test_what_may_be_said_again_has_a_name(
    restarts: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", restarts)
    assert main(["train", *(["--auto_resume"] if restarts == "0" else [])]) == 1
    asked = "--auto_resume" if restarts == "0" else "torchrun --max-restarts"
    assert f"{asked}: there is no --run. Name the run folder" in capsys.readouterr().err
    assert not Path("runs").exists()


def test_the_curves_of_a_run_are_drawn(whole: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    assert (whole / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_tensorboard_where_it_is_asked_for(whole: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    assert main(["train", "--epochs", "1", "--batch_size", "700", "--tensorboard", "--run", "r"]) == 0
    (events,) = Path("r/tensorboard").iterdir()
    assert events.name.startswith("events.out.tfevents.")
    assert b"accuracy/top1" in events.read_bytes()
    assert not (whole / "tensorboard").exists()


@pytest.mark.parametrize(
    ("header", "message"),
    [({"classes": ["cat", "dog"]}, "Add --new_head true"), ({}, "fc.bias (2,), not (10,)")],
)
def test_weights_of_other_classes_are_refused_before_anything_is_written(
    header: dict[str, Any], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    senet.weights.save(
        senet.build("se_resnet20", num_classes=2, in_channels=1), "w.safetensors", header=header
    )
    assert main([*SHORT, "--weights", "w.safetensors", "--run", "r"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert os.listdir() == ["w.safetensors"]


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("nowhere", "there is no folder nowhere"),
        ("images/vall", "there is no folder images/vall. "),
        ("images", "there is no train/"),
    ],
)
def test_images_that_are_not_there(place: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("images/val").mkdir(parents=True)
    assert main(["train", "--data", f"folder:{place}"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"senet train: data 'folder:{place}': ")
    assert message in line
    assert os.listdir() == ["images"]
