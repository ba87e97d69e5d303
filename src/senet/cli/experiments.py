"""``senet compare`` and ``senet ablate``."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from senet.cli.parsing import normalised, parser_for, words_of
from senet.errors import OptionError, RunError, check_choice, require_count
from senet.files import require_writable

if TYPE_CHECKING:
    from senet.analysis.comparison.comparison import Comparison
    from senet.experiments.cells import Cell, Plan
    from senet.experiments.grid import Grid
    from senet.training.config import TrainConfig

ALL = "all"


def compare(argv: list[str]) -> None:
    """Train networks under one recipe with several seeds, and tell whether they differ."""
    parser = _parser(
        "compare MODEL MODEL ...",
        "Trains each network with each seed under one recipe. The first is what the others are compared "
        "with, seed by seed. Interrupted, the same command goes on.",
        skip={"model"},
    )
    parser.add_argument("MODELS", nargs="+", help="names of `senet models`")
    values = parser.parse_args(normalised(argv)).as_dict()

    from senet.experiments.grid import Grid

    grid = Grid.of_models(values["MODELS"])
    _experiment(parser, argv, values["MODELS"][0], [grid])


def ablate(argv: list[str]) -> None:
    """Run the paper's ablations, or a grid of one's own, on any network and data."""
    from senet.experiments.grid import grid_named, grid_names

    parser = _parser(
        "ablate GRID",
        f"Runs an ablation of the paper on a network and data: {', '.join(grid_names())}, or {ALL}; or the "
        "grid in a .yaml file. Beside the table stand the paper's own numbers. Interrupted, the same command "
        "goes on.",
    )
    parser.add_argument("GRID", help=f"{', '.join(grid_names())}, {ALL}, or a .yaml file")
    values = parser.parse_args(normalised(argv)).as_dict()
    model = values["model"]
    names = grid_names() if values["GRID"] == ALL else [values["GRID"]]
    grids = []
    for name in names:
        try:
            grids.append(grid_named(name, model))
        except OptionError as error:
            if values["GRID"] != ALL:
                raise
            print(f"left out: {error}", file=sys.stderr)
    _experiment(parser, argv, model, grids)


def _parser(usage: str, description: str, skip: set[str] | None = None) -> Any:
    from senet.training.config import add_options
    from senet.training.recipes import RECIPES

    parser = parser_for(usage, description)
    parser.add_argument("--seeds", type=str, default="5", help="how many, from 0; or which: 3,7,11")
    parser.add_argument("--only", type=str | None, help="these variants and the baseline, by their labels")
    parser.add_argument(
        "--out", type=str, default="runs/experiments", help="the folder of all runs and tables"
    )
    parser.add_argument("--jobs", type=int, default=1, help="runs at once on this machine")
    parser.add_argument(
        "--shard", type=str, default="1/1", help="I/N: every N-th run, beginning with the I-th"
    )
    parser.add_argument("--retry", action="store_true", help="run those that failed again")
    parser.add_argument("--dry-run", action="store_true", help="say what would run, and about how long")
    parser.add_argument("--tables", action="store_true", help="run nothing: make the tables of what is there")
    parser.add_argument("--json", action="store_true", help="print the result for programs, and only that")
    parser.add_argument("--recipe", type=str | None, help="none: as data and network suggest")
    add_options(parser, skip={"seed", "run", "save_minutes", *(skip or ())})
    parser.set_defaults(dataclasses.asdict(RECIPES["digits"]))
    return parser


def _experiment(parser: Any, argv: list[str], model: str, grids: Sequence[Grid]) -> None:
    """All that the two verbs share: plan, run, show."""
    base, values = _base(parser, argv, model)
    seeds = _seeds(values["seeds"])
    require_count("--jobs", values["jobs"])
    out = Path(values["out"])
    require_writable(f"--out {out}", out)
    only = words_of("--only", values["only"])

    from senet.experiments.cells import distinct, plan
    from senet.experiments.sweep import sweep
    from senet.runtime.device import device_named
    from senet.runtime.processes import joined

    with joined(device_named(base.device)) as processes:
        quiet = values["json"] or not processes.leads
        say = _unsaid if quiet else partial(print, flush=True)
        plans = [plan(grid, base, seeds) for grid in _limited(grids, only)]
        cells = _sharded(distinct(plans), values["shard"])
        for each in plans:
            _announce(each, seeds, say)
        if values["dry_run"]:
            if processes.leads:
                _estimate(cells, out, values["jobs"], retry=values["retry"], as_json=values["json"])
            return
        if not values["tables"]:
            sweep(cells, out, jobs=values["jobs"], retry=values["retry"], say=say, processes=processes)
        if processes.leads:
            _show(plans, base, out, as_json=values["json"])


def _limited(grids: Sequence[Grid], only: Sequence[str]) -> list[Grid]:
    """The grids with some of their variants; of several grids, those that have any of them."""
    if not only:
        return list(grids)
    if len(grids) == 1:
        return [grids[0].only(only)]
    mine = [(grid, [label for label in only if label in grid.variants]) for grid in grids]
    known = {label for _, labels in mine for label in labels}
    for label in only:
        check_choice(f"--only {label!r}", label, known or {each for grid in grids for each in grid.variants})
    return [grid.only(labels) for grid, labels in mine if labels]


def _base(parser: Any, argv: list[str], model: str) -> tuple[TrainConfig, dict[str, Any]]:
    """The run that the variants change: what the words say, else the recipe."""
    from senet.models import info
    from senet.training.config import config_of
    from senet.training.recipes import default_recipe, recipe_named

    info(model)  # a name that is unknown is said so
    argv = normalised(argv)
    chosen = parser.parse_args(argv)
    recipe = chosen.recipe or default_recipe(chosen.data, model)
    parser.set_defaults(dataclasses.asdict(recipe_named(recipe)))
    values = parser.parse_args(argv).as_dict()
    ways = ("MODELS", "GRID", "seeds", "only", "out", "jobs", "shard", "retry", "dry_run", "tables", "json")
    taken = {name: values.pop(name) for name in ways if name in values}
    return config_of(values | {"model": model, "recipe": recipe}), taken


def _seeds(text: str) -> list[int]:
    """The seeds in the value of --seeds."""
    if text.isdecimal() and int(text):
        return list(range(int(text)))
    words = [word for word in text.split(",") if word]
    if "," not in text or not words or not all(map(str.isdecimal, words)) or len(set(words)) < len(words):
        raise OptionError(f"--seeds {text!r}", "it is no count and no list", "such as 5, or 3,7,11")
    return [int(word) for word in words]


def _sharded(cells: Sequence[Cell], shard: str) -> list[Cell]:
    """Those of the cells that a shard I/N has."""
    found = re.fullmatch(r"(\d+)/(\d+)", shard)
    number, count = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= number <= count:
        raise OptionError(
            f"--shard {shard!r}", "it is no part of a whole", "I/N with I from 1 to N, such as 2/8"
        )
    return list(cells[number - 1 :: count])


def _announce(plan: Plan, seeds: Sequence[int], say: Any) -> None:
    labels = len(plan.grid.variants) - len(plan.undefined)
    say(f"{plan.grid.title}: {labels} variants, {len(seeds)} seeds")
    for label, why in plan.undefined.items():
        say(f"  {label} is not defined: {why}")


def _estimate(cells: Sequence[Cell], out: Path, jobs: int, *, retry: bool, as_json: bool) -> None:
    """What would run, and about how long."""
    from tqdm import tqdm

    from senet.experiments.claims import Phase
    from senet.experiments.estimate import seconds_of
    from senet.experiments.sweep import claims_in
    from senet.tables import Table

    claims = claims_in(out)
    over = {Phase.DONE} if retry else {Phase.DONE, Phase.FAILED}
    left = [cell for cell in cells if claims.state(cell.key).phase not in over]
    seconds = seconds_of(left)
    rows = [
        {
            "variant": label,
            "runs": sum(cell.label == label for cell in left),
            "seconds a run": round(each, 1),
        }
        for label, each in seconds.items()
    ]
    total = sum(seconds[cell.label] for cell in left)
    if as_json:
        print(json.dumps({"runs": len(left), "seconds": total / jobs, "variants": rows}))
        return
    print(f"\n{Table(rows)}\n" if rows else "")
    print(f"{len(left)} of {len(cells)} runs to do, about {tqdm.format_interval(total / jobs)}")
    if rows:
        print("by a few steps of each on this machine, one run at a time; reading images comes on top")


def _show(plans: Sequence[Plan], base: TrainConfig, out: Path, *, as_json: bool) -> None:
    """Writes and prints the table of each grid; RunError, at the end, if runs have failed."""
    from senet.experiments.summary import comparison_of
    from senet.experiments.sweep import claims_in
    from senet.report.comparison.page import write_report

    found: list[tuple[Comparison, Path]] = []
    for each in plans:
        comparison = comparison_of(each, base, out, claims_in(out))
        folder = out / comparison.name
        comparison.save(folder)
        write_report(comparison, folder)
        found.append((comparison, folder))
        if not as_json:
            print(f"\n{comparison}\n\n{folder / 'report.html'}")
    if as_json:
        print(json.dumps([{"folder": str(folder), "rows": each.rows} for each, folder in found]))
    failed = {
        f"{group.label}, seed {seed}": why
        for each, _ in found
        for group in each.groups
        for seed, why in group.failed.items()
    }
    if failed:
        name, why = next(iter(failed.items()))
        raise RunError(
            f"{len(failed)} runs",
            found=f"they failed, such as {name}: {why.rstrip('.')}",
            do=f"What they said is in {out / 'logs'}; --retry runs them again.",
        )


def _unsaid(_line: str) -> None:
    pass
