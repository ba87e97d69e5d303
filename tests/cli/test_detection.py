"""A detector through the verbs: train, resume, eval."""

import json
import signal
from pathlib import Path

import pytest
from tests.cli.test_train import signalled

from senet.cli import main
from senet.detection.job import Detection


@pytest.fixture
def words(coco_folder: Path) -> list[str]:
    sizes = "--options.width 0.25 --options.min_size 48 --options.max_size 64 --options.sampled_boxes 16"
    how = "--epochs 2 --batch_size 3 --frozen_stages 0 --frozen_norms false --workers 0"
    return ["fasterrcnn_se_mobilenet_v1_fpn", "--data", f"coco:{coco_folder}", *sizes.split(), *how.split()]


def test_from_training_to_evaluation(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *words, "--run", "runs/a"]) == 0
    captured = capsys.readouterr()
    assert "recipe   coco: 2 epochs of 2 steps" in captured.out
    assert "average precision" in captured.out
    assert "the gates of the 13 SE blocks over the test images" in captured.out
    assert Path("runs/a/curves.png").stat().st_size > 10_000
    assert main(["eval", "runs/a", "--workers", "0"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("runs/a on coco:")
    assert "ar_medium" in said
    assert main(["eval", "runs/a", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    last = json.loads(Path("runs/a/metrics.jsonl").read_text().splitlines()[-1])
    assert row["ap"] == pytest.approx(last["test_ap"])


def test_a_run_that_was_stopped_goes_on(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *words, "--run", "runs/whole", "--json"]) == 0
    with signalled(signal.SIGTERM, step=3, job=Detection):
        assert main(["train", *words, "--run", "runs/cut"]) == 143
    assert "step 3 is saved" in capsys.readouterr().err
    assert main(["train", "--resume", "runs/cut"]) == 0
    for name in ("last.safetensors", "best.safetensors", "metrics.csv"):
        assert Path("runs/cut", name).read_bytes() == Path("runs/whole", name).read_bytes()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("train fasterrcnn_se_resnet51_fpn --data coco:DIR", "Did you mean 'fasterrcnn_se_resnet50_fpn'"),
        ("train se_resnet20 --data coco:DIR", "its images have boxes, which a classifier does not learn"),
        ("train fasterrcnn_se_resnet50_fpn", "these images have no boxes"),
        ("eval fasterrcnn_se_resnet50_fpn", "its run folder, or its weights"),
    ],
)
def test_words_that_do_not_fit(words: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words.split()) == 1
    assert said in capsys.readouterr().err


def test_what_is_for_classifiers_is_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *words, "--epochs", "1", "--run", "runs/a", "--json"]) == 0
    for more, said in (("--crops 10", "--crops is for classifiers"), ("runs/a", "stands beside others")):
        assert main(["eval", "runs/a", *more.split()]) == 1
        assert said in capsys.readouterr().err
    assert main(["eval", "runs/a", "--data", "digits"]) == 1
    assert "data 'digits': a detector needs images with boxes" in capsys.readouterr().err
