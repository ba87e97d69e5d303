from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from senet.errors import OptionError
from senet.training.config import Recipe, TrainConfig, read_config


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"epochs": 0}, "epochs=0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"accumulate": 0}, "accumulate=0"),
        ({"lr": 0.0}, "lr=0.0.*above 0"),
        ({"lr": 1e300}, "within float32"),
        ({"lr_batch": 0}, "lr_batch=0"),
        ({"gamma": 2.0}, "gamma=2.0"),
        ({"patience": 0}, "patience=0"),
        ({"momentum": 1.0}, "momentum=1.0"),
        ({"nesterov": True, "momentum": 0.0}, "a momentum above 0"),
        ({"weight_decay": -1.0}, "weight_decay"),
        ({"clip": -1.0}, "clip"),
        ({"label_smoothing": 1.0}, "label_smoothing"),
        ({"warmup": 1.0}, "warmup"),
        ({"warmup_lr": -0.1}, "warmup_lr"),
        ({"ema": 1.0}, "ema"),
        ({"freeze_norms": 3, "epochs": 2}, "freeze_norms=3.*at most the epochs"),
        ({"repeats": 2, "balanced": True}, "1 beside balanced"),
        ({"pad": -1}, "pad=-1"),
        ({"milestones": (30, 60)}, "shares of the epochs"),
        ({"milestones": (0.6, 0.3)}, "rising"),
    ],
)
def test_recipes_that_are_not_possible(values: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        Recipe(**values)


@pytest.mark.parametrize(
    "values",
    [{"seed": -1}, {"workers": -1}, {"image_size": 0}, {"broken_images": -1}, {"save_minutes": -0.1}],
)
def test_runs_that_are_not_possible(values: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=next(iter(values))):
        TrainConfig(**values)


def test_it_travels_flat_as_yaml(tmp_path: Path) -> None:
    recipe = Recipe(milestones=(0.5,), schedule="step", cutout=16, ema=0.99, warmup_lr=0.01)
    config = TrainConfig(
        recipe=recipe,
        recipe_name="mine",
        stages=(2, 3),
        se={"reduction": 4},
        options={"width": 0.5},
        nonfinite="skip",
    )
    values = config.to_dict()
    assert yaml.safe_load(yaml.safe_dump(values)) == values
    assert (values["recipe"], values["milestones"], values["stages"]) == ("mine", [0.5], [2, 3])
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(values))
    assert read_config(path) == config


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("lrr: 0.1\n", r"'lrr' is not accepted.*Did you mean 'lr'\?"),
        ("lr: fast\n", "cannot be used"),
        ("schedule: sometimes\n", "cannot be used"),
        ("lr: -1\n", "above 0"),
        ("- 1\n", "no mapping"),
        ("a: [\n", "cannot be used"),
        ("\x00", "cannot be used"),
        (f"{'[' * 2000}", "cannot be used"),
    ],
)
def test_a_config_that_is_wrong(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(OptionError, match=words):
        read_config(path)


@pytest.mark.parametrize(
    "text",
    [
        "data: !!python/object/apply:os.system ['touch canary']\n",
        "options: {class_path: os.system, init_args: {command: touch canary}}\n",
        "model: {class_path: subprocess.Popen, init_args: {args: touch canary}}\n",
        "se: {class_path: senet.training.config.Recipe}\n",
    ],
)
def test_a_config_runs_nothing(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text(text)
    try:
        found = read_config(tmp_path / "config.yaml")
        assert isinstance(found.se, dict)
        assert isinstance(found.options, dict), "plain values"
    except OptionError:
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


@given(data=st.data())
def test_whatever_a_config_became_it_is_read_or_refused(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    text = bytearray(yaml.safe_dump(TrainConfig(stages=(2,), se={"gate": "tanh"}).to_dict()).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("config") / "config.yaml"
    path.write_bytes(text)
    said = []
    try:
        read_config(path)
    except OptionError as error:
        said = str(error).splitlines()
    assert len(said) <= 1
