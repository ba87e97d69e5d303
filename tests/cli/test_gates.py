import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import senet
from senet.analysis.role.study import GateStudy
from senet.cli import main
from senet.errors import DataError, OptionError
from senet.evaluation.subject import subject_named

pytest.importorskip("plotly")
pytest.importorskip("matplotlib")

DATA = "fake:3x32x32,images=60,classes=4"
Run = Callable[..., dict[str, Any]]


@pytest.fixture
def weights(tmp_path: Path) -> str:
    """Weights that say what they are and what they were trained on."""
    torch.manual_seed(0)
    subject = subject_named("se_resnet20", data=DATA)
    header = {
        "preprocessing": subject.preprocessing.to_dict(),
        "data": DATA,
        "classes": list(subject.splits.classes),
    }
    path = tmp_path / "w.safetensors"
    senet.weights.save(subject.network, path, header=header)
    return str(path)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*words: str) -> dict[str, Any]:
        assert main(["gates", *words, "--json"]) == 0
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    return run


def test_one_command_leaves_a_page_figures_and_numbers(
    weights: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["gates", weights]) == 0
    said = capsys.readouterr().out
    folder = Path("gates/w-fake-1")
    assert f"written to {folder}: report.html" in said
    assert "layer3.2.se" in said
    assert "random" not in said
    names = {path.name for path in folder.iterdir()}
    assert {"report.html", "classes.png", "specificity.svg", "blocks.csv", "claims.json"} <= names
    assert not [name for name in names if name.startswith(".")]
    study = GateStudy.load(folder)
    assert study.weights == weights
    assert study.evaluation.images == len(subject_named(weights).splits.test)


def test_the_split_is_kept_and_shown_and_pictured(
    weights: str, run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("senet.report.gates.page.write_figures", lambda *_, **__: [])
    run(weights, "--split", "train", "--per_class", "2", "--out", "a")
    assert GateStudy.load("a").split == "train"
    assert "<dt>split</dt><dd>train</dd>" in Path("a/report.html").read_text(encoding="utf-8")
    opened = subject_named(weights).splits
    monkeypatch.setattr("senet.data.open_data", lambda name: opened)
    monkeypatch.setattr(opened.test, "read", None, raising=False)  # what would be asked for by mistake
    assert main(["gates", "--study", "a", "--out", "b"]) == 0
    assert capsys.readouterr().out.startswith(f"{weights} on {DATA} (train): 9 SE blocks")
    assert "data:image/jpeg" in Path("b/report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("error", [KeyboardInterrupt, DataError("disk", "it is full")])
def test_of_a_report_that_is_not_written_nothing_stays(
    weights: str, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(study: GateStudy, folder: Path, **_: Any) -> None:
        (folder / "classes.png").write_bytes(b"")
        raise error

    monkeypatch.setattr("senet.report.gates.page.write_figures", half)
    before = sorted(Path().rglob("*"))
    assert main(["gates", weights, "--per_class", "1"]) in (1, 130)
    assert sorted(Path().rglob("*")) == before


def test_panels_are_known_before_anything_runs(
    weights: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("senet.analysis.role.study.study_gates", None)
    assert main(["gates", weights, "--panels", "layer1.0.se,layer9.se"]) == 1
    assert main(["gates", weights, "--blocks", "layer3.*", "--panels", "layer1.0.se"]) == 1
    assert capsys.readouterr().err.count("is unknown. Allowed: layer") == 2


def test_another_network_beside_a_study_keeps_its_own_weights(
    weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, Any]] = []

    def named(model: str, *, weights: str | None, **_: Any) -> None:
        asked.append((model, weights))
        raise OptionError("enough")

    monkeypatch.setattr("senet.evaluation.subject.subject_named", named)
    study = SimpleNamespace(network="timm:a", weights="a.safetensors", data=DATA)
    monkeypatch.setattr(GateStudy, "load", lambda folder: study)
    for words in ([], ["timm:a"], ["timm:b"], ["timm:a", "--weights", "c"]):
        main(["gates", *words, "--study", "s", "--image", "i.png"])
    study.network = study.weights = "runs/a"
    main(["gates", "--study", "s", "--image", "i.png"])
    file = "a.safetensors"
    assert asked == [("timm:a", file), ("timm:a", file), ("timm:b", None), ("timm:a", "c"), ("runs/a", None)]


@pytest.mark.slow
def test_a_study_is_drawn_again_without_running_and_gives_the_same(weights: str, run: Run) -> None:
    first = run(weights, "--out", "a", "--classes", "0,1", "--channels", "all")
    again = run("--study", "a", "--out", "b", "--classes", "2", "--panels", "layer1.0.se,layer3.2.se")
    assert (first["folder"], again["folder"]) == ("a", "b")
    assert first["blocks"] == again["blocks"]
    assert (Path("a") / "gates.safetensors").read_bytes() == (Path("b") / "gates.safetensors").read_bytes()
    assert ",2," not in (Path("a") / "classes.csv").read_text().splitlines()[1]


@pytest.mark.slow
def test_fresh_weights_are_said_to_be_fresh(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gates", "se_resnet20", "--data", DATA, "--per_class", "2", "--out", "r"]) == 0
    assert "The weights are random" in capsys.readouterr().out
    assert "random weights" in (Path("r") / "report.html").read_text(encoding="utf-8").lower()


@pytest.mark.slow
@pytest.mark.parametrize("model", ["timm:mobilenetv3_small_050", "torchvision:mobilenet_v3_small"])
def test_networks_of_others(model: str, run: Run) -> None:
    pytest.importorskip(model.partition(":")[0])
    found = run(model, "--data", DATA, "--out", "o")
    assert len(found["blocks"]) == 9
    assert {row["images"] for row in found["blocks"]} == {6}


def test_one_image_beside_the_class_averages(weights: str, run: Run, tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (40, 30), (200, 30, 30)).save(tmp_path / "red.png")
    run(weights, "--out", "s")
    found = run("--study", "s", "--image", str(tmp_path / "red.png"), "--out", "i")
    assert len(found["blocks"]) == 9
    assert list((tmp_path / "i").glob("*.html"))
    assert run(weights, "--image", str(tmp_path / "red.png"))["folder"] == "gates/w-red-1"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["resnet20", "--data", DATA], "no SE block"),
        ([], "no MODEL is named"),
        (["se_resnet20"], "Give --data"),
        (["se_resnet20", "--data", DATA, "--classes", "dog"], "no class of this name"),
        (["se_resnet20", "--data", DATA, "--classes", "paper"], "classes of ImageNet"),
        (["se_resnet20", "--data", DATA, "--channels", "0"], "no number of channels"),
        (["se_resnet20", "--data", DATA, "--blocks", "layer9"], "no SE block has such a name"),
        (["se_resnet20", "--data", DATA, "--panels", "layer9.se"], "Did you mean"),
        (["se_resnet20", "--data", DATA, "--per_class", "0"], "per_class"),
        (["se_resnet20", "--data", DATA, "--split", "validation"], "test, train"),
        (["--study", "nothing"], "gates.safetensors"),
        (["m", "--study", "s", "--data", DATA], "--study s with MODEL, --data: "),
        (
            ["--study", "s", "--blocks", "a", "--split", "test", "--weights", "w"],
            "--weights, --blocks, --split",
        ),
        (["--study", "s", "--image", "i.png", "--per_class", "3"], "Leave out --per_class, or"),
        (["m", "--image", "i.png", "--channels", "all"], "Leave out --channels, or --image"),
        (["m", "--class", "cat"], "--class: it is what an --image is compared to, and there is none"),
        (["m", "--blocks", ","], "--blocks ',': no name is in it"),
        (["m", "--classes", ""], "--classes '': no name is in it"),
        (["m", "--panels", " "], "--panels ' ': no name is in it"),
        (["m", "--batch_size", "0"], "--batch_size=0"),
        (["m", "--out", "/dev/null/a"], "--out /dev/null/a: it cannot be written"),
        (["se_resnet20", "--data", DATA, "--image", "none.png"], "none.png"),
    ],
)
def test_what_is_wrong_is_told_and_nothing_is_written(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["gates", *words]) == 1
    assert message in capsys.readouterr().err
    assert not Path("gates").exists()
