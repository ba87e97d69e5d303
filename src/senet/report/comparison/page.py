"""The report on a comparison: a page to read and look into, and its picture for papers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from senet.analysis.comparison.comparison import Comparison
from senet.analysis.comparison.group import COSTS
from senet.analysis.comparison.seeds import BETTER, ENOUGH, UNDECIDED, WORSE
from senet.report.comparison.figure import write_figure
from senet.report.comparison.views import state
from senet.report.page import Html, Page, details, element, facts, require_plotly, table

REPORT = "report.html"

# The look of each verdict.
_PILLS = {BETTER: "pill held", WORSE: "pill refuted", UNDECIDED: "pill"}

_ERRORS = """Each dot is a run, each row a variant; the diamond is the mean over seeds, with its 95 %
interval. What a seed does to all variants alike is in these intervals and not in those of the gains: look
there for a difference."""
_GAINS = """The gain is how many points of test top-1 a variant is above {against} with the same seed. Each
line is a seed. An interval that holds 0 leaves open whether there is any gain."""
_CURVES = """The mean over seeds, and a band from the least to the most. The training loss is that of the
epoch while it ran, with augmentation. Click on a name to show or hide it, double click to see it alone."""
_COST = """Lower is more accurate, further left is cheaper. Bars are the intervals of the means."""
_PRINTED = """These numbers were printed in the paper, of the networks and images named here, which were
trained differently: compare the order, not the numbers."""


def write_report(comparison: Comparison, folder: str | Path) -> Path:
    """Writes ``report.html``, ``comparison.png`` and ``comparison.svg``, each whole or not at all.

    Args:
        comparison: also one of which little or nothing is done; then there is no picture yet.
        folder: made if it is not there.

    Returns:
        The path of the page.

    Raises:
        MissingExtraError: plotly or matplotlib is not installed.
    """
    folder = Path(folder)
    page = comparison_page(comparison)
    folder.mkdir(parents=True, exist_ok=True)
    write_figure(comparison, folder)
    page.save(folder / REPORT)
    return folder / REPORT


def comparison_page(comparison: Comparison) -> Page:
    """The page."""
    page = Page(comparison.title, comparison.question)
    page.add(element("p", comparison.answer, kind="answer", role="note"))
    gains = comparison.gains.values()
    if gains and all(len(gain.by_seed) < ENOUGH for gain in gains):
        page.banner(f"With fewer than {ENOUGH} seeds nothing can be concluded.")
    page.add(_subject(comparison))
    page.section("Table")
    page.add(table(_lines(comparison)))
    _add_figures(page, comparison)
    if comparison.printed:
        page.section("The paper's numbers", _PRINTED)
        page.add(element("h3", comparison.origin), table(_named(comparison.printed)))
    page.section("How to read it")
    page.add(element("ul", *(element("li", note) for note in comparison.notes)))
    page.section("Runs")
    page.add(*_runs(comparison))
    return page


def _add_figures(page: Page, comparison: Comparison) -> None:
    """Those for which there is something to show."""
    done = [group for group in comparison.groups if group.results]
    if not done:
        return
    require_plotly()
    from senet.report.comparison.plots import cost_figure, curves_figure, errors_figure, gains_figure

    page.section("Errors", _ERRORS)
    page.figure(errors_figure(comparison), name="errors")
    if comparison.gains:
        against = "the plain network" if comparison.pairs else comparison.baseline
        page.section("Gains", _GAINS.format(against=against))
        page.figure(gains_figure(comparison), name="gains")
    if any(group.curves for group in done):
        page.section("Curves", _CURVES)
        page.figure(curves_figure(comparison), name="curves")
    page.section("Cost", _COST)
    page.figure(cost_figure(comparison), name="cost")
    costs = ["variant", *(head for head, _, _ in COSTS.values())]
    lines = [{head: line[head] for head in costs if head in line} for line in _named(comparison.shown)]
    page.add(table(lines))


def _subject(comparison: Comparison) -> Html:
    """What was compared, and how far it is."""
    runs = comparison.runs
    counts = {name: sum(run["status"] == name for run in runs) for name in ("done", "failed", "not run yet")}
    done = f"{counts.pop('done')} of {len(runs)}"
    left = "".join(f", {count} {name}" for name, count in counts.items() if count)
    values = {**comparison.conditions, "runs done": done + left}
    passport = comparison.passport
    below = details("Passport", facts(dict(_flat(passport)))) if passport else ""
    return Html(element("div", facts(values), kind="card") + below)


def _lines(comparison: Comparison) -> list[dict[str, Any]]:
    """The table, a line a group, with its verdict as a sign; costs have a table of their own."""
    costs = [head for head, _, _ in COSTS.values()]
    lines = []
    for group, line in zip(comparison.groups, _named(comparison.shown), strict=True):
        cells = {
            name: element("span", cell, kind="nowrap") for name, cell in line.items() if name not in costs
        }
        why = element("div", state(group), kind="small") if group.undefined else ""
        cells["variant"] = Html(element("div", group.label) + why)
        if (verdict := line.get("verdict")) in _PILLS:
            cells["verdict"] = element("span", verdict, kind=_PILLS[verdict])
        lines.append(cells)
    return lines


def _named(lines: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
    """With a head above the labels."""
    return [{head or "variant": cell for head, cell in line.items()} for line in lines]


def _runs(comparison: Comparison) -> list[Html]:
    """What failed or is not run yet, in the open; all runs folded away."""
    short = [
        {"variant": group.label, "seeds": seeds, "state": status, "why": why}
        for group in comparison.groups
        for seeds, status, why in (
            *((str(seed), "failed", why) for seed, why in sorted(group.failed.items())),
            *([(", ".join(map(str, group.missing)), "not run yet", "")] if group.missing else []),
        )
    ]
    done = [
        {name.replace("_", " "): value for name, value in run.items() if name not in ("status", "why")}
        for run in comparison.runs
        if run["status"] == "done"
    ]
    parts = [table(short)] if short else [element("p", "All runs are done.")]
    return [*parts, details(f"All that {len(done)} runs gave", table(done, kind="dense"))] if done else parts


def _flat(values: Mapping[str, Any], above: str = "") -> list[tuple[str, object]]:
    """Nested facts as pairs, "machine: cores"."""
    pairs: list[tuple[str, object]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            pairs += _flat(value, f"{above}{name}: ")
        else:
            pairs.append((above + name, value if isinstance(value, str) else json.dumps(value, default=str)))
    return pairs
