import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

import senet
from senet import weights
from senet.errors import RunError
from senet.training.config import Recipe, TrainConfig
from senet.training.loop import TrainResult, train
from senet.training.recipes import RECIPES

QUICK = Recipe(epochs=2, batch_size=64, lr=0.1, crop="pad", pad=1)


def run(path: Path, **values: Any) -> TrainResult:
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
    x, _ = result.job.to_device(*next(iter(result.job.test_batches)))
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


@pytest.mark.parametrize(("batch_size", "what"), [(64, "training"), (1437, "test")])
def test_a_loss_that_is_not_finite_reaches_no_file(tmp_path: Path, batch_size: int, what: str) -> None:
    """With one step an epoch the step that spoils the weights comes after the loss was taken."""
    with pytest.raises(RunError, match=rf"the mean {what} loss is (nan|inf).*--lr"):
        run(tmp_path / "run", recipe=dataclasses.replace(QUICK, lr=1e30, batch_size=batch_size))
    assert not list((tmp_path / "run").glob("*.safetensors"))
    assert not (tmp_path / "run" / "metrics.csv").exists()


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
