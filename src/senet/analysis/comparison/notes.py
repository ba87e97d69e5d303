"""What must be known to read a comparison: said beside every table and on every page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from senet.analysis.comparison.group import Group
from senet.analysis.comparison.seeds import ENOUGH, Gain


def notes_of(groups: Sequence[Group], gains: Mapping[str, Gain], opponents: Mapping[str, str]) -> list[str]:
    """One sentence or two each, the most important first."""
    runs = [run for group in groups for run in group.results.values()]
    notes = [_scope({run.test_images for run in runs}), *_few(gains, opponents)]
    whys: dict[str, list[str]] = {}
    for label, gain in gains.items():
        if gain.estimate.why:
            whys.setdefault(gain.estimate.why, []).append(label)
    notes += [f"{', '.join(labels)}: {why}." for why, labels in whys.items()]
    short: dict[str, list[str]] = {}
    for group in groups:
        if group.short:
            short.setdefault(group.short, []).append(group.label)
    notes += [f"{', '.join(labels)}: {what}." for what, labels in short.items()]
    if short and gains:
        notes.append("Not all runs are done. To stop when the result pleases would make p too small.")
    compared = sum(gain.p is not None for gain in gains.values())
    if compared > 1:
        notes.append(
            f"p is adjusted for {compared} comparisons (Holm), and the verdict goes by it; intervals are "
            "not, so one may lie on one side of 0 and the verdict still be undecided."
        )
    if gains:
        against = _either(dict.fromkeys(opponents[label] for label in gains))
        notes.append(
            f"Gain: points of test top-1 above {against}, each seed against the same seed, with the 95 % "
            "interval and p of the paired t-test. Wins: in how many seeds it is above 0."
        )
    if runs:
        looked = " to ".join(f"{count:,}" for count in _ends({run.train_images for run in runs}))
        notes += [
            "Errors are top-1, of the last epoch's weights: choosing an epoch by the test images flatters. "
            f"The training error is of the same weights on {looked} training images, without augmentation.",
            "ms/step is the median of the epochs as the runs went, perhaps beside others; MiB/image is what "
            "is kept for the backward pass.",
        ]
    devices = sorted({run.device for run in runs})
    if len(devices) > 1:
        notes.append(
            f"Runs are from different devices, and their times do not compare: {', '.join(devices)}."
        )
    processes = sorted({run.processes for run in runs})
    if len(processes) > 1:
        notes.append(
            "Runs were trained by different numbers of processes, and batch norm and mixing depend on it: "
            f"each process takes its own share of a batch ({', '.join(map(str, processes))})."
        )
    return notes


def _scope(images: set[int]) -> str:
    """What the intervals cover."""
    counts = " to ".join(f"{count:,}" for count in _ends(images))
    worth = " to ".join(f"{100 / count:.2g}" for count in reversed(_ends(images)))
    about = f" ({counts}; one is worth {worth} points)" if images else ""
    return (
        f"Intervals and ± are over seeds, given these very test images{about}: other images are not in them."
    )


def _few(gains: Mapping[str, Gain], opponents: Mapping[str, str]) -> list[str]:
    """Who has too few seeds for any conclusion."""
    few = [label for label in opponents if label not in gains or len(gains[label].by_seed) < ENOUGH]
    if not few:
        return []
    about = "" if len(few) == len(opponents) else f" about {', '.join(few)}"
    return [f"With fewer than {ENOUGH} seeds nothing can be concluded{about}."]


def _ends(counts: set[int]) -> list[int]:
    """The least and the most, once if they are the same."""
    return sorted({min(counts), max(counts)}) if counts else []


def _either(names: Iterable[str]) -> str:
    only, *more = names
    return "the plain network of the same depth" if more else only
