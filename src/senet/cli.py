"""The command line: one verb a task. Nothing heavy is imported before a verb runs."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from senet import __version__
from senet.errors import OptionError, SenetError, did_you_mean
from senet.passport import program

if TYPE_CHECKING:
    from senet.training.loop import TrainResult


def main(argv: Sequence[str] | None = None) -> int:
    """Runs ``senet VERB ...``.

    Returns:
        The exit status: 0 done, 1 an error of the task, 2 an error in the words.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0
    if argv[0] == "--version":
        print(f"senet {__version__}")
        return 0
    verb, *rest = argv
    if verb not in VERBS:
        print(f"senet: there is no verb {verb!r}. {did_you_mean(verb, VERBS)}\n", file=sys.stderr)
        print(_overview(), file=sys.stderr)
        return 2
    try:
        VERBS[verb](rest)
    except SenetError as error:
        print(f"senet {verb}: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # as by `| head`; nothing more can be said, at the exit neither
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print(f"senet {verb}: interrupted", file=sys.stderr)
        return 130
    return 0


def train(argv: list[str]) -> None:
    """Train a network and see its gates."""
    from senet.training.config import Recipe, TrainConfig
    from senet.training.recipes import RECIPES, default_recipe, recipe_named

    parser = _parser(
        "train [MODEL]",
        "Trains a network, tests it after each epoch and writes a run folder. Options of the recipe that are "
        "not given are the recipe's; the defaults below are those of the recipe digits.",
    )
    # Not "model", which is the config file's key: an absent positional would override the file.
    parser.add_argument("MODEL", nargs="?", help="a name of `senet models`")
    parser.add_argument(
        "--config", action="config", help="a config.yaml of a run; options given beside it win"
    )
    parser.add_argument("--recipe", help=f"{', '.join(RECIPES)}; none: as data and network suggest")
    parser.add_class_arguments(TrainConfig, skip={"recipe", "recipe_name"})
    parser.add_class_arguments(Recipe)
    parser.add_argument("--json", action="store_true", help="print the result for programs, and only that")
    parser.set_defaults(dataclasses.asdict(RECIPES["digits"]))
    argv = _normalised(argv)
    chosen = parser.parse_args(argv)
    if chosen.config and any(word.split("=")[0] == "--recipe" for word in argv):
        raise OptionError(
            "--recipe beside --config",
            found="the file holds all values of a recipe already",
            do="Leave out one of the two.",
        )
    chosen.model = chosen.MODEL or chosen.model
    fields = [field.name for field in dataclasses.fields(Recipe)]
    if chosen.recipe is None:
        from senet.models import info

        chosen.recipe = default_recipe(chosen.data, info(chosen.model).input_size[1])
    if chosen.recipe in RECIPES or not _has_keys(chosen.config, fields):
        # The recipe gives the defaults; what the user says about it wins.
        parser.set_defaults(dataclasses.asdict(recipe_named(chosen.recipe)))
    values = parser.parse_args(argv).as_dict() | {"model": chosen.model}
    for name in ("MODEL", "config", "recipe"):
        del values[name]
    as_json = values.pop("json")
    recipe = Recipe(**{name: values.pop(name) for name in fields})
    config = TrainConfig(recipe=recipe, recipe_name=chosen.recipe, **values)

    from senet.training.loop import train as run

    result = run(config, say=(lambda line: None) if as_json else _say)
    if as_json:
        print(json.dumps({"run": str(result.run)} | result.evaluation.to_dict()))
    else:
        _summarise(result)


def evaluate(argv: list[str]) -> None:
    """Evaluate networks on the test images of a data set."""
    parser = _parser("eval MODEL...", "Evaluates networks on the test images of a data set.")
    parser.add_argument(
        "models", nargs="+", help="run folders, weights of any origin, or names of `senet models`"
    )
    parser.add_argument(
        "--data", type=str | None, help="digits, folder:DIR or shards:DIR; none: as the weights say"
    )
    parser.add_argument(
        "--weights",
        type=str | None,
        help="weights for one MODEL that is a name: a file, timm:TAG, hf:ORG/NAME",
    )
    parser.add_argument(
        "--preprocessing",
        type=str | None,
        help="data, or such as imagenet,size=288,resize=303,interpolation=bicubic; none: as the weights say",
    )
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda, cuda:1, ...")
    parser.add_argument("--batch_size", type=int, default=256, help="images a batch")
    parser.add_argument("--workers", type=int | None, help="processes that prepare images")
    parser.add_argument("--json", action="store_true", help="print the result for programs, and only that")
    options = parser.parse_args(argv)
    if options.weights and len(options.models) > 1:
        raise OptionError("--weights", f"there are {len(options.models)} models", "one MODEL beside it")

    from senet.tables import Table
    from senet.training.evaluation import evaluate_named

    rows = [
        evaluate_named(
            model,
            data=options.data,
            weights=options.weights,
            preprocessing=options.preprocessing,
            device=options.device,
            batch_size=options.batch_size,
            workers=options.workers,
        )
        for model in options.models
    ]
    print(json.dumps(rows) if options.json else Table(rows))


def models(argv: list[str]) -> None:
    """List the networks with their cost and the published errors, or show one."""
    parser = _parser(
        "models [PATTERN|NAME]",
        "Lists the networks: parameters and multiply-adds, counted here, beside what the paper prints. "
        "With the name of one: its structure, as in the paper's Table 1, and all that is printed of it.",
    )
    parser.add_argument("pattern", nargs="?", default="*", help="a name, or a shell pattern such as 'se_*'")
    parser.add_argument("--json", action="store_true", help="print the list for programs, and only that")
    options = parser.parse_args(argv)

    from senet.models import Catalogue, described, info, list_models

    names = list_models(options.pattern)
    if not names:
        raise OptionError(
            f"senet models {options.pattern!r}",
            found="no network has such a name",
            do=did_you_mean(options.pattern, list_models()),
        )
    found = Catalogue([info(name) for name in names])
    if options.json:
        print(json.dumps(found.rows))
    else:
        print(described(info(options.pattern)) if names == [options.pattern] else found)


def convert(argv: list[str]) -> None:
    """Convert weights of any origin."""
    parser = _parser(
        "convert IN OUT",
        "Converts weights of the original Caffe release, timm, torchvision, Cadene and others to a file of "
        "senet, or a file of senet to theirs. Whose they are is recognised.",
    )
    parser.add_argument("source", help="a file, a run folder, timm:TAG or hf:ORG/NAME@REV")
    parser.add_argument("out", help="the file to write")
    parser.add_argument("--to", type=str, default="senet", help="whose layout OUT gets")
    parser.add_argument("--origin", type=str | None, help="whose layout IN has; none: it is recognised")
    parser.add_argument("--prototxt", type=str | None, help="of a .caffemodel: what to check it against")
    parser.add_argument(
        "--classes",
        type=str,
        default="synset",
        help="order of the classes of a .caffemodel: synset, as everywhere, or devkit, as it is",
    )
    parser.add_argument(
        "--layout", type=str | None, help="modern or original, the network's, where IN does not say it"
    )
    parser.add_argument(
        "--preprocessing", type=str | None, help="for the header of OUT, such as imagenet,size=288,resize=303"
    )
    parser.add_argument("--json", action="store_true", help="print the result for programs, and only that")
    options = parser.parse_args(argv)

    from senet.data.preprocessing import preprocessing_named
    from senet.models import convert as converted

    words = options.preprocessing
    done = converted(
        options.source,
        options.out,
        to=options.to,
        origin=options.origin,
        classes=options.classes,
        layout=options.layout,
        prototxt=options.prototxt,
        preprocessing=None if words is None else preprocessing_named(words).to_dict(),
    )
    print(json.dumps(done.to_dict()) if options.json else done)


def plan(argv: list[str]) -> None:
    """Show where SE goes in any network."""
    parser = _parser("plan MODEL", "Shows where SE goes in a network, and what is left alone. Needs no data.")
    parser.add_argument(
        "model", help="torchvision:NAME, timm:NAME, package.module:factory, or a name of `senet models`"
    )
    parser.add_argument(
        "--placement", type=str, default="standard", help="standard, pre, post, identity, 3x3"
    )
    parser.add_argument("--where", type=str | None, help="stages or names, such as 4,5 or 'layer3.*'")
    parser.add_argument("--input", type=str | None, help="CxHxW of an image; none: the usual sizes are tried")
    parser.add_argument("--reduction", type=int, default=16, help="r: the hidden width is C // r")
    parser.add_argument("--bias", type=bool, default=True, help="whether the two layers have biases")
    parser.add_argument("--json", action="store_true", help="print the plan for programs, and only that")
    options = parser.parse_args(argv)

    import torch

    from senet.insertion.plan import plan as planned
    from senet.insertion.surgery import check
    from senet.models import load
    from senet.report.terminal import unit_picture

    try:
        # Shapes are all that a plan needs; a network that cannot be made without memory gets some.
        with torch.device("meta"):
            model = load(options.model)
    except (NotImplementedError, RuntimeError, OptionError):
        model = load(options.model)
    words = None if options.where is None else [word for word in options.where.split(",") if word.strip()]
    found = planned(
        model,
        placement=options.placement,
        where=None if words is None else [int(word) if word.isdigit() else word for word in words],
        example=None if options.input is None else torch.empty(2, *_sizes(options.input), device="meta"),
        reduction=options.reduction,
        bias=options.bias,
    )
    check(model, found)
    if options.json:
        print(json.dumps({"network": options.model, "parameters": found.parameters, "sites": found.rows}))
        return
    print(f"{found.headline}\n")
    drawn = set()
    for site, row in zip(found.sites, found.rows, strict=True):
        if site.kind not in drawn:
            print(f"{site.unit or 'the network'}\n{unit_picture(site, row['hidden'])}\n")
            drawn.add(site.kind)
    print(f"{found.table}\n{found.left_text()}\n\nin Python   senet.insert(model)")


def _sizes(text: str) -> list[int]:
    sizes = text.lower().split("x")
    if not all(size.isdigit() and int(size) for size in sizes):
        raise OptionError(f"--input {text!r}", "it is no size", "CxHxW, such as 3x224x224")
    return [int(size) for size in sizes]


VERBS: dict[str, Callable[[list[str]], None]] = {
    "train": train,
    "eval": evaluate,
    "models": models,
    "plan": plan,
    "convert": convert,
}


def _summarise(result: TrainResult) -> None:
    """What a newcomer looks at when the training is over."""
    from senet.analysis.gates import record_gates
    from senet.block import SqueezeExcitation
    from senet.report.terminal import gate_bars

    found = result.evaluation
    best = max(result.history, key=lambda row: row["test_top1"])
    print(f"\ntest accuracy {found.top1:.2f} % ({found.correct1:,} of {found.images:,} images), last epoch")
    print(f"best epoch {best['epoch']}: {best['test_top1']:.2f} %, chosen on the same images")
    job = result.job
    if any(isinstance(module, SqueezeExcitation) for module in job.state.model.modules()):
        with record_gates(job.state.model) as gates:
            job.evaluate()
        print(f"\nthe gates of the {len(gates)} SE blocks over the test images\n{gate_bars(gates)}")
    following = shlex.join([*_as_called(), "eval", str(result.run)])
    print(f"\nrun folder  {result.run}\nnext        {following}")


def _overview() -> str:
    verbs = "\n".join(f"  {name:8} {function.__doc__}" for name, function in VERBS.items())
    return (
        "senet: Squeeze-and-Excitation for any PyTorch CNN\n\n"
        f"usage: senet VERB ... [options]\n\n{verbs}\n\n"
        "`senet VERB --help` has the options; `senet train` alone is a first run on real images."
    )


def _parser(usage: str, description: str) -> Any:
    from jsonargparse import ArgumentParser

    class Parser(ArgumentParser):  # type: ignore[misc, unused-ignore]
        def error(self, message: str, ex: Exception | None = None) -> NoReturn:
            known = [option for action in self._actions for option in action.option_strings]
            words = re.findall(r"(?<!\S)--[\w.]+", message)
            words += [f"--{key}" for key in re.findall(r"Option '([\w.]+)' is not accepted", message)]
            for option in words:
                if option not in known:
                    message += f". {did_you_mean(option, known)}"
            verb = usage.split()[0]
            print(f"senet {verb}: {message}\n`senet {verb} --help` has the options.", file=sys.stderr)
            sys.exit(2)

    return Parser(
        prog=f"senet {usage}",
        usage=f"senet {usage} [options]",
        description=description,
        print_config=None,
        allow_abbrev=False,
    )


def _normalised(argv: list[str]) -> list[str]:
    """The words as jsonargparse wants them.

    ``--config FILE`` goes first, so that all else overrides the file, and a list such as
    ``--stages 2,3`` gets its brackets.
    """
    config: list[str] = []
    rest: list[str] = []
    words = iter(word for given in argv for word in _split(given))
    for word in words:
        if word in ("--config", "--stages", "--milestones"):
            bare = word == "--config"
            value = [each if bare or each == "null" else f"[{each.strip('[]')}]" for each in islice(words, 1)]
            (config if word == "--config" else rest).extend([word, *value])
        else:
            rest.append(word)
    return config + rest


def _split(word: str) -> list[str]:
    return word.split("=", 1) if word.startswith("--") and "=" in word else [word]


def _as_called() -> list[str]:
    """The command as the user can type it again, also where its environment is not active."""
    name = program()
    return [sys.argv[0]] if name == "senet" and not shutil.which(name) else name.split()


def _has_keys(config: Any, keys: Sequence[str]) -> bool:
    """Whether the config file holds all these keys: then it needs no recipe's name to be whole."""
    import yaml

    found = yaml.safe_load(Path(str(config[-1])).read_text(encoding="utf-8")) if config else None
    return isinstance(found, dict) and set(keys) <= found.keys()


def _say(line: str) -> None:
    print(line, flush=True)
