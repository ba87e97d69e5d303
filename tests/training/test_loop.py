import csv
import dataclasses
import hashlib
import json
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tests.together import together
from torch import nn

import senet
from senet import weights
from senet.data.stream import Images, Sample, SampleKey
from senet.errors import DataError, RunError, StoppedError
from senet.evaluation.classification import Evaluation
from senet.training.checkpoints import Checkpoints
from senet.training.classification import Classification
from senet.training.config import Recipe, TrainConfig
from senet.training.loop import TrainResult, train
from senet.training.recipes import RECIPES

QUICK = Recipe(epochs=2, batch_size=64, lr=0.1, crop="pad", pad=1)


def run(path: Path, **values: Any) -> TrainResult[Classification, Evaluation]:
    return train(TrainConfig(**{"recipe": QUICK, "run": path, **values}))


def test_a_run_learns_and_leaves_everything_behind(tmp_path: Path) -> None:
    lines: list[str] = []
    result = train(TrainConfig(recipe=QUICK, recipe_name="quick", run=tmp_path / "run"), say=lines.append)
    assert result.evaluation.top1 > 60, "ten classes by chance: 10 %"
    assert sorted(path.name for path in result.run.iterdir()) == [
        "best.safetensors",
        "config.yaml",
        "last.safetensors",
        "metrics.csv",
        "metrics.jsonl",
        "passport.yaml",
        "state",
        "times.csv",
    ]
    rows = [json.loads(line) for line in (result.run / "metrics.jsonl").read_text().splitlines()]
    assert rows == result.history
    assert [row["step"] for row in rows] == [22, 44]
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]
    assert rows[-1]["test_top1"] == result.evaluation.top1
    resolved = yaml.safe_load((result.run / "passport.yaml").read_text())["resolved"]
    assert resolved["network"]["se"]["reduction"] == 16
    assert (resolved["device"], resolved["workers"]) == ("cpu", 0)
    assert resolved["preprocessing"]["size"] == 8
    config = yaml.safe_load((result.run / "config.yaml").read_text())
    assert (config["model"], config["recipe"], config["epochs"]) == ("se_resnet20", "quick", 2)
    assert any(line.startswith("network  se_resnet20") for line in lines)

    header, _ = weights.read(result.run)
    assert (header["epoch"], header["test_top1"]) == (2, result.evaluation.top1)
    loaded = senet.load(result.run).to(memory_format=torch.channels_last)
    x, _ = result.job.inputs(next(iter(result.job.test_batches())), 0)
    with torch.no_grad():
        assert torch.equal(loaded(x), result.job.state.model(x))


def test_the_same_seed_gives_the_same_bits_whatever_the_workers(tmp_path: Path) -> None:
    def sha(path: Path, **values: Any) -> str:
        result = run(path, recipe=dataclasses.replace(QUICK, epochs=1), **values)
        _, tensors = weights.read(result.run)
        return hashlib.sha256(b"".join(t.numpy().tobytes() for t in tensors.values())).hexdigest()

    first = sha(tmp_path / "a", workers=0)
    assert sha(tmp_path / "b", workers=2) == first
    assert sha(tmp_path / "c", seed=1) != first


def test_it_says_when_images_come_too_slowly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = Images._sample

    def late(images: Images, key: SampleKey) -> Sample:
        time.sleep(0.05)
        return prepared(images, key)

    monkeypatch.setattr(Images, "_sample", late)
    data = "fake:1x8x8,images=24,classes=2"
    recipe = Recipe(epochs=2, batch_size=4)
    lines: list[str] = []
    train(TrainConfig(data=data, recipe=recipe, run=tmp_path / "r", workers=1), say=lines.append)
    said = [line for line in lines if line.startswith("images   ")]
    assert len(said) == 2
    assert "1 process prepares" in said[0]
    assert "of preparing is waiting, for files or a core" in said[0]
    with (tmp_path / "r" / "times.csv").open() as file:
        assert all(0.1 < float(row["waited"]) < 1 for row in csv.DictReader(file))


def test_best_is_the_best_epoch(tmp_path: Path) -> None:
    result = run(tmp_path / "run", recipe=dataclasses.replace(QUICK, epochs=3, lr=0.3))
    header, _ = weights.read(result.run / weights.BEST)
    best = max(row["test_top1"] for row in result.history)
    assert header["test_top1"] == best
    assert header["epoch"] == next(row["epoch"] for row in result.history if row["test_top1"] == best)


def test_bfloat16(tmp_path: Path) -> None:
    seen: set[torch.dtype] = set()

    def note(module: nn.Module, args: object, out: torch.Tensor) -> None:
        if isinstance(module, nn.Conv2d) and out.requires_grad:
            seen.add(out.dtype)

    handle = nn.modules.module.register_module_forward_hook(note)
    try:
        result = run(tmp_path / "run", recipe=dataclasses.replace(QUICK, epochs=1), precision="bfloat16")
    finally:
        handle.remove()
    assert seen == {torch.bfloat16}
    assert result.history[0]["train_loss"] < 2.3
    assert all(parameter.dtype == torch.float32 for parameter in result.job.state.model.parameters())


@pytest.mark.parametrize(
    ("batch_size", "words"), [(64, "first that is not finite is"), (1437, "the test loss is nan")]
)
def test_a_loss_that_is_not_finite_reaches_no_file(tmp_path: Path, batch_size: int, words: str) -> None:
    """With one step an epoch the step that spoils the weights comes after the loss was taken."""
    with pytest.raises(RunError, match=rf"{words}.*--lr"):
        run(tmp_path / "run", recipe=dataclasses.replace(QUICK, lr=1e30, batch_size=batch_size))
    assert not list((tmp_path / "run").rglob("*.safetensors"))
    assert not (tmp_path / "run" / "metrics.csv").exists()


def shas(path: Path) -> dict[str, str]:
    """Of all that a run promises to be the same."""
    files = [*path.glob("*.safetensors"), *path.glob("metrics.*"), max((path / "state").glob("step-*"))]
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


EVERYTHING = Recipe(
    epochs=3, batch_size=300, lr=0.05, accumulate=2, ema=0.9, mixup=0.3, crop="pad", pad=1, freeze_norms=1,
    schedule="plateau", patience=1, label_smoothing=0.1, nesterov=True, clip=1.0, warmup=0.1,
)  # fmt: skip


@pytest.fixture(scope="module")
def never_stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tmp_path_factory.mktemp("runs") / "run", recipe=EVERYTHING, options={"dropout": 0.2}).run


@pytest.mark.parametrize("step", [2, 4, 7])
def test_stopped_anywhere_it_goes_on_as_if_it_never_had(
    tmp_path: Path, never_stopped: Path, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In an epoch, at its last step, and with other workers after than before."""
    config = TrainConfig(recipe=EVERYTHING, options={"dropout": 0.2}, run=tmp_path / "run", workers=1)
    forward = Classification.inputs

    def stopped(self: Classification, *arguments: Any) -> Any:
        if self.state.step == step - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return forward(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Classification, "inputs", stopped)
        with pytest.raises(StoppedError, match=f"step {step} is saved"):
            train(config)
    lines: list[str] = []
    result = train(dataclasses.replace(config, workers=0), resume=True, say=lines.append)
    assert any(f"goes on after step {step}" in line for line in lines)
    assert shas(result.run) == shas(never_stopped)
    assert len(list(result.run.glob("passport*.yaml"))) == 2
    again = train(config, resume=True)
    assert again.evaluation == result.evaluation, "a run that is over is evaluated again, and stays as it is"
    assert shas(result.run) == shas(never_stopped)


def test_stopped_while_it_tests(tmp_path: Path, never_stopped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = TrainConfig(recipe=EVERYTHING, options={"dropout": 0.2}, run=tmp_path / "run")
    batches = Classification.test_batches

    def stopped(self: Classification) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return batches(self)

    with monkeypatch.context() as patch:
        patch.setattr(Classification, "test_batches", stopped)
        with pytest.raises(KeyboardInterrupt):
            train(config)
    assert not (tmp_path / "run" / "metrics.csv").exists()
    lines: list[str] = []
    assert shas(train(config, resume=True, say=lines.append).run) == shas(never_stopped)
    tested, trained, *_ = [line for line in lines if line.startswith("epoch")]
    assert "images/s" not in tested, "all of its steps had been done"
    assert "images/s" in trained


def test_a_damaged_checkpoint_is_said_and_made_good(tmp_path: Path, never_stopped: Path) -> None:
    path = tmp_path / "run"
    shutil.copytree(never_stopped, path)
    newest = max((path / "state").glob("step-*"))
    newest.write_bytes(newest.read_bytes()[:-1])
    lines: list[str] = []
    config = TrainConfig(recipe=EVERYTHING, options={"dropout": 0.2}, run=path)
    assert shas(train(config, resume=True, say=lines.append).run) == shas(never_stopped)
    assert lines[0].startswith("WARNING")
    assert newest.name in lines[0]


def test_what_a_run_started_from_may_be_gone_when_it_goes_on(tmp_path: Path) -> None:
    first = run(tmp_path / "first", recipe=dataclasses.replace(QUICK, epochs=1))
    shutil.copy(first.run / "last.safetensors", tmp_path / "start.safetensors")
    config = TrainConfig(recipe=QUICK, weights=str(tmp_path / "start.safetensors"), run=tmp_path / "run")
    begun = train(config)
    (tmp_path / "start.safetensors").unlink()
    assert begun.history[0]["train_loss"] < first.history[0]["train_loss"]
    assert train(config, resume=True).evaluation == begun.evaluation


def test_the_plateau_schedule_ends_the_run(tmp_path: Path) -> None:
    recipe = dataclasses.replace(
        QUICK, epochs=20, batch_size=700, schedule="plateau", lr=1e-9, patience=1, plateaus=1
    )
    history = run(tmp_path / "run", recipe=recipe).history
    assert len(history) < 20
    assert history[-1]["lr"] == pytest.approx(1e-10)


def test_broken_images_are_replaced_counted_and_named(tmp_path: Path, image_folder: Path) -> None:
    for name in ("train/cat/1.png", "train/dog/0.png", "val/dog/1.png"):
        (image_folder / name).write_bytes(b"broken")
    values: dict[str, Any] = {
        "model": "se_resnet20", "data": f"folder:{image_folder}", "image_size": 16,
        "recipe": Recipe(epochs=2, batch_size=3, lr=0.01),
    }  # fmt: skip
    lines: list[str] = []
    result = train(TrainConfig(run=tmp_path / "run", **values), say=lines.append)
    assert (result.history[-1]["broken"], result.evaluation.images) == (2, 4)
    written = (result.run / "broken_images.txt").read_text().splitlines()
    assert [line.split(": ")[0] for line in written] == [
        f"train  reading {image_folder}/train/cat/1.png",
        f"train  reading {image_folder}/train/dog/0.png",
        f"test   reading {image_folder}/val/dog/1.png",
    ]
    assert (
        "2 images to train on could not be read and were replaced, 1 to test on counted as wrong"
        in "".join(lines)
    )
    assert [line for line in lines if line.startswith(("train  ", "test   "))] == written
    one = train(TrainConfig(run=tmp_path / "workers", workers=2, **values))
    assert shas(one.run) == shas(result.run)
    with pytest.raises(DataError, match=r"2 images cannot be read, .*Allowed: --broken_images 1"):
        train(TrainConfig(run=tmp_path / "one", broken_images=1, **values))
    with pytest.raises(DataError, match="1 images cannot be read"):
        train(TrainConfig(run=tmp_path / "none", broken_images=0, **values))


def _in_two(folder: Path) -> None:
    lines: list[str] = []
    config = TrainConfig(recipe=dataclasses.replace(QUICK, epochs=1, batch_size=300), run=folder / "run")
    resume = (folder / "run").exists()
    result = train(config, resume=resume, say=lines.append)
    (folder / f"{int(result.leads)}.json").write_text(json.dumps([str(result.run), lines, result.history]))


def test_two_processes_write_one_run(tmp_path: Path) -> None:
    together(2, _in_two, tmp_path)
    first, second = (json.loads((tmp_path / f"{leads}.json").read_text()) for leads in (1, 0))
    assert first[0] == second[0] == str(tmp_path / "run")
    assert any("in 2 processes" in line for line in first[1])
    assert second[1] == [], "one speaks"
    assert first[2] == second[2]
    together(2, _in_two, tmp_path)
    assert json.loads((tmp_path / "1.json").read_text())[2] == first[2], "a run that is over stays as it is"
    alone = run(tmp_path / "alone", recipe=dataclasses.replace(QUICK, epochs=1, batch_size=300))
    # Ordinary batch norm sees its share only: the images are the same, the numbers are near.
    assert first[2][0]["train_loss"] == pytest.approx(alone.history[0]["train_loss"], rel=0.2)
    assert weights.read(tmp_path / "run")[0]["epoch"] == 1


def _stopped_while_it_saves_slowly(folder: Path) -> None:
    """As on a slow disk; torchrun ends all processes as soon as it sees one end."""
    rank = int(os.environ["RANK"])
    save = Checkpoints.save

    def slowly(self: Checkpoints, *args: Any) -> None:
        time.sleep(8)
        save(self, *args)

    def ask(line: str) -> None:
        if line.startswith("run "):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoints, "save", slowly)
        with pytest.raises(StoppedError):
            train(TrainConfig(recipe=QUICK, run=folder / "run", workers=0), say=ask)
    found = [path.name for path in (folder / "run" / "state").glob("step-*.safetensors")]
    (folder / f"{rank}.json").write_text(json.dumps(found))


@pytest.mark.slow
def test_nobody_leaves_before_the_checkpoint_is_written(tmp_path: Path) -> None:
    together(2, _stopped_while_it_saves_slowly, tmp_path)
    found = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert found[0] == found[1]
    assert len(found[0]) == 1, "and not before"


@pytest.mark.slow
def test_the_digits_recipe_reaches_what_the_readme_says(tmp_path: Path) -> None:
    result = train(TrainConfig(recipe=RECIPES["digits"], recipe_name="digits", run=tmp_path / "run"))
    assert result.evaluation.top1 >= 99.0


@pytest.mark.data
@pytest.mark.slow
def test_cifar10_is_learned(data_folder: Path, tmp_path: Path) -> None:
    config = TrainConfig(
        data=f"shards:{data_folder / 'cifar10'}",
        recipe=dataclasses.replace(RECIPES["cifar"], epochs=1),
        run=tmp_path / "run",
    )
    assert train(config).evaluation.top1 > 35


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_training_on_a_gpu(tmp_path: Path, precision: Any) -> None:
    assert run(tmp_path / "run", device="cuda", precision=precision).evaluation.top1 > 60


def test_metrics_that_a_kill_kept_from_being_written_are_written_when_it_goes_on(
    tmp_path: Path, never_stopped: Path
) -> None:
    shutil.copytree(never_stopped, tmp_path / "run")
    (tmp_path / "run" / "metrics.csv").unlink()
    config = TrainConfig(recipe=EVERYTHING, options={"dropout": 0.2}, run=tmp_path / "run")
    assert shas(train(config, resume=True).run) == shas(never_stopped)
