import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from senet.cli import VERBS, main


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


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
    import yaml

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


def test_a_runs_config_is_the_run_again(capsys: pytest.CaptureFixture[str]) -> None:
    """Also its network, and a recipe of one's own from Python."""
    import yaml

    from senet.training.config import Recipe, TrainConfig
    from senet.training.loop import train

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


@pytest.mark.parametrize("written", [["--stages", "2,3"], ["--stages=2,3"], ["--stages", "[2,3]"]])
def test_lists_need_no_brackets(written: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--epochs", "1", "--batch_size", "700", *written]) == 0
    assert "6 SE blocks" in capsys.readouterr().out


def test_the_next_command_can_be_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    from senet import cli

    monkeypatch.setattr(sys, "argv", [".venv/bin/senet", "train"])
    monkeypatch.setenv("PATH", "")
    assert cli._as_called() == [".venv/bin/senet"]
    monkeypatch.setattr(sys, "argv", ["/somewhere/senet/__main__.py", "train"])
    assert cli._as_called() == ["python", "-m", "senet"]


def test_the_recipe_follows_the_network(shard_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--data", f"shards:{shard_folder}", "--epochs", "1", "--batch_size", "4", "--run", "r"]
    assert main(["train", *arguments]) == 0
    assert "recipe   cifar:" in capsys.readouterr().out


def test_models(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "se_resnet5*"]) == 0
    out = capsys.readouterr().out
    assert "28,088,024" in out
    assert "se_resnet56" in out
    assert main(["models", "senet154", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["parameters"] == 115_088_984


def test_one_network_is_shown_with_its_structure(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "se_resnet50"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("se_resnet50: 28,088,024 parameters with 1000 classes\n")
    assert "⎣ fc, [128, 2048] ⎦" in out
    assert "Table 2 (paper, ImageNet): top1 23.29" in out
    assert main(["models", "wrn16_8", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["parameters"] == 10_961_370
    assert row["published errors"].startswith("CIFAR-10 4.27, CIFAR-100 20.43 (Table 4, Table 5")


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["trian"], 2, "Did you mean 'train'?"),
        (["models", "resnet51"], 1, "Did you mean 'resnet5"),
        (["train", "se_resnet21", "--recipe", "digits"], 1, "there is no such network"),
        (["train", "--data", "shards:nowhere"], 1, "there is no *train*.tar"),
        (["train", "--recipe", "digit"], 1, "Did you mean 'digits'?"),
        (["train", "--se.gate", "sigmod"], 1, "Did you mean 'sigmoid'?"),
        (["train", "--device", "meta"], 1, "it holds no numbers"),
        (["train", "--stages", "7"], 1, "there is no stage 7"),
        (["train", "--config", "c.yaml", "--recipe", "digits"], 1, "Leave out one of the two"),
        (["train", "--seed", "99999999999999999999999"], 1, "seed <"),
        (
            ["train", "se_resnet50", "--layout", "original", "--image_size", "2"],
            1,
            "they are too small for it",
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
        out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        seconds.append(time.perf_counter() - started)
        assert out.splitlines()[-1] == "False"
        assert "train" in out
    assert min(seconds) < 0.5


def test_the_module_is_the_command() -> None:
    found = subprocess.run(
        [sys.executable, "-m", "senet", "--version"], capture_output=True, text=True, check=True
    )
    assert found.stdout.startswith("senet ")


def test_plan_shows_a_network_its_unit_and_its_places(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "torchvision:resnet18"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("ResNet: 8 places for SE, 89,080 parameters more\n\nlayer1.0\n     X\n     ├──")
    assert "layer4.1  residual      5  standard   output of layer4.1.bn2" in out
    assert "3 x in a shortcut: layer2.0.downsample.0" in out


def test_plan_draws_a_unit_of_each_kind(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "bn_inception"]) == 0
    out = capsys.readouterr().out
    assert out.count(" Inception  ") == out.count("global pooling") == 1
    assert "28 × 28 × 256" in out
    assert "1 × 1 × 16" in out
    assert main(["plan", "mobilenet_v1"]) == 0
    assert "x ─ depthwise ─ pointwise, activation ─[SE 64→4→64]─ out" in capsys.readouterr().out


def test_plan_takes_options(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--placement", "pre", "--where", "4,layer4.*", "--reduction", "8", "--bias", "false", "--json"]
    assert main(["plan", "se_resnet18", *words]) == 1
    assert "8 x channel attention is there already" in capsys.readouterr().err
    assert main(["plan", "resnet18", "--input", "3x64x64", *words]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["network"] == "resnet18"
    assert [site["block"] for site in printed["sites"]] == [
        "layer3.0.se",
        "layer3.1.se",
        "layer4.0.se",
        "layer4.1.se",
    ]
    assert {site["placement"] for site in printed["sites"]} == {"pre"}
    assert printed["sites"][0]["hidden"] == 128 // 8


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["torchvision:vit_b_16"], "no place for SE"),
        (["resnet18", "--input", "3x"], "Allowed: CxHxW"),
        (["resnet18", "--where", "9"], "stages 2, 3, 4, 5"),
        (["resnet18", "--where", ""], "it names nothing"),
        (["timm:resnt18"], "Did you mean"),
    ],
)
def test_plan_says_why_not(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *words]) == 1
    assert message in capsys.readouterr().err


def test_a_reader_that_leaves_early_is_no_error() -> None:
    command = f"{sys.executable} -m senet models | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert "Traceback" not in done.stderr
