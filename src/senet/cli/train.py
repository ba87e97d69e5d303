"""``senet train``."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from senet.cli.parsing import as_called, normalised, parser_for
from senet.errors import OptionError, RunError

if TYPE_CHECKING:
    from senet.training.config import TrainConfig
    from senet.training.loop import TrainResult


# What is not the run's, but this start's.
_WAYS = ("resume", "auto_resume", "tensorboard", "json")


def train(argv: list[str]) -> None:
    """Train a network and see its gates."""
    from senet.training.recipes import RECIPES

    parser = parser_for(
        "train [MODEL]",
        "Trains a network, tests it after each epoch and writes a run folder. Options of the recipe that are "
        "not given are the recipe's; the defaults below are those of the recipe digits.",
    )
    # Not "model", which is the config file's key: an absent positional would override the file.
    parser.add_argument("MODEL", nargs="?", help="a name of `senet models`")
    parser.add_argument(
        "--config", action="config", help="a config.yaml of a run; options given beside it win"
    )
    parser.add_argument(
        "--recipe", type=str | None, help=f"{', '.join(RECIPES)}; none: as data and network suggest"
    )
    _add_ways(parser)
    parser.add_argument(
        "--auto_resume",
        action="store_true",
        help="go on with the run in --run where it has begun: for launchers that say the same words again; "
        "torchrun with --max-restarts has it so by itself",
    )
    from senet.training.config import add_options

    add_options(parser)
    parser.set_defaults(dataclasses.asdict(RECIPES["digits"]))
    argv = normalised(argv)
    resumed = any(word.split("=")[0] == "--resume" for word in argv)
    config, ways = _resumed(argv) if resumed else _new(parser, argv)
    resume: Any = resumed or ("auto" if _may_start_again(config, ways) else False)

    from senet.training.loop import run

    say = _say_aside if ways["json"] else _say
    with contextlib.ExitStack() as stack:
        watchers = [
            stack.enter_context(contextlib.closing(each)) for each in _watchers(ways["tensorboard"], say)
        ]
        result = run(_task(config.model), config, resume=resume, say=say, watch=watchers)
    if not result.leads:
        return
    if ways["json"]:
        print(json.dumps({"run": str(result.run)} | result.evaluation.to_dict()))
    else:
        _summarise(result)


def _may_start_again(config: TrainConfig, ways: dict[str, Any]) -> bool:
    """Whether the same words may be said once more, of a run that they have begun."""
    by_torchrun = int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", 0)) > 0
    if not ways.get("auto_resume") and not by_torchrun:
        return False
    if config.run is None:
        raise OptionError(
            "torchrun --max-restarts" if by_torchrun else "--auto_resume",
            found="there is no --run",
            do="Name the run folder: a new start is to find it.",
        )
    return True


def _task(model: str) -> Any:
    """What makes a run of a network ready, by its name."""
    from senet.detection.detector import is_detector

    if is_detector(model):
        from senet.detection.job import prepare as prepare_detection

        return prepare_detection
    from senet.training.classification import prepare as prepare_classification

    return prepare_classification


def _add_ways(parser: Any) -> None:
    """Those of a start, of a new run or an old one."""
    parser.add_argument("--resume", type=str | None, help="go on with the run in this folder")
    parser.add_argument("--tensorboard", action="store_true", help="write RUN/tensorboard too")
    parser.add_argument("--json", action="store_true", help="print the result for programs, and only that")


def _resumed(argv: list[str]) -> tuple[TrainConfig, dict[str, Any]]:
    """The config of the run that goes on; only where it runs may differ."""
    from senet.training.config import WHEREABOUTS, TrainConfig, read_config
    from senet.training.run_folder import CONFIG

    parser = parser_for("train --resume RUN", "Goes on with a run from its last checkpoint, as it was begun.")
    _add_ways(parser)
    names = {*WHEREABOUTS} - {"run"}
    every = {each.name for each in dataclasses.fields(TrainConfig)}
    parser.add_class_arguments(TrainConfig, skip=every - names)
    for name in names:
        parser.set_defaults({name: None})
    _check_whereabouts(argv, every - names)
    values = parser.parse_args(argv).as_dict()
    path = Path(str(values["resume"]))
    if not (path / CONFIG).is_file():
        raise RunError(
            f"--resume {values['resume']!r}",
            found=f"there is no {CONFIG} in it" if path.is_dir() else "there is no such folder",
            allowed="the folder of a run",
            do="A run that was stopped before it wrote that file is started again without --resume.",
        )
    changes = {name: values[name] for name in names if values[name] is not None}
    return dataclasses.replace(read_config(path / CONFIG), run=path, **changes), values


def _check_whereabouts(argv: list[str], others: set[str]) -> None:
    """Ends with an error where a word would change what a run is that goes on."""
    from senet.training.config import WHEREABOUTS, Recipe

    others = {*others, "recipe", "config", *(each.name for each in dataclasses.fields(Recipe))}
    for word in argv:
        if word.startswith("--") and word[2:].partition(".")[0] in others:
            allowed = ", ".join(f"--{name}" for name in WHEREABOUTS if name != "run")
            print(
                f"senet train: {word} with --resume: a run goes on as it was begun. Allowed: {allowed}. For "
                "anything else begin a new run: --weights RUN starts it from these weights.",
                file=sys.stderr,
            )
            sys.exit(2)


def _new(parser: Any, argv: list[str]) -> tuple[TrainConfig, dict[str, Any]]:
    """The config of a new run: what the words say, else the config file, else the recipe."""
    from senet.training.config import Recipe, config_of
    from senet.training.recipes import RECIPES, default_recipe, recipe_named

    chosen = parser.parse_args(argv)
    if chosen.config and any(word.split("=")[0] == "--recipe" for word in argv):
        raise OptionError(
            "--recipe beside --config",
            found="the file holds all values of a recipe already",
            do="Leave out one of the two.",
        )
    misplaced = [name for name in _WAYS if _has_keys(chosen.config, [name])]
    if misplaced:
        raise OptionError(
            f"--config with {misplaced[0]} in the file",
            found="that is of a start, and not of the run",
            do=f"Say --{misplaced[0]} on the command line.",
        )
    chosen.model = chosen.MODEL or chosen.model
    fields = [field.name for field in dataclasses.fields(Recipe)]
    if chosen.recipe is None:
        _check_name(chosen.model)
        chosen.recipe = default_recipe(chosen.data, chosen.model)
    # A file that holds all of a recipe needs no name of one to be whole.
    if chosen.recipe in RECIPES or not _has_keys(chosen.config, fields):
        # The recipe gives the defaults; what the user says about it wins.
        parser.set_defaults(dataclasses.asdict(recipe_named(chosen.recipe)))
    values = parser.parse_args(argv).as_dict()
    ways = {name: values.pop(name) for name in _WAYS}
    for name in ("MODEL", "config"):
        del values[name]
    return config_of(values | {"model": chosen.model, "recipe": chosen.recipe}), ways


def _check_name(model: str) -> None:
    """Raises OptionError for a name that is unknown."""
    from senet.detection.detector import backbone_of, is_detector
    from senet.models import info

    (backbone_of if is_detector(model) else info)(model)


def _watchers(tensorboard: bool, say: Any) -> list[Any]:
    """What follows the run: the picture of its curves, and TensorBoard where it is asked for."""
    from senet.report.curves import Curves
    from senet.report.tensorboard import TensorBoard

    return [Curves(say), *([TensorBoard()] if tensorboard else [])]


def _summarise(result: TrainResult[Any, Any]) -> None:
    """What a newcomer looks at when the training is over."""
    from senet.analysis.gates import record_gates
    from senet.block import SqueezeExcitation
    from senet.report.terminal import gate_bars

    found = result.evaluation
    best = max(result.history, key=lambda row: row[found.measure])
    print(f"\n{found.summary}, last epoch")
    print(f"best epoch {best['epoch']}: {best[found.measure]:.2f} %, chosen on the same images")
    job = result.job
    if any(isinstance(module, SqueezeExcitation) for module in job.state.tested.modules()):
        with record_gates(job.state.tested) as gates:
            job.evaluate()
        print(f"\nthe gates of the {len(gates)} SE blocks over the test images\n{gate_bars(gates)}")
    following = shlex.join([*as_called(), "eval", str(result.run)])
    print(f"\nrun folder  {result.run}\nnext        {following}")


def _has_keys(config: Any, keys: Sequence[str]) -> bool:
    """Whether the config file holds all these keys."""
    import yaml

    found = yaml.safe_load(Path(str(config[-1])).read_text(encoding="utf-8")) if config else None
    return isinstance(found, dict) and set(keys) <= found.keys()


def _say(line: str) -> None:
    print(line, flush=True)


def _say_aside(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
