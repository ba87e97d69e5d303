"""What a sweep shows while it runs: a line for each running cell, and the time left."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

from tqdm import tqdm

from senet.analysis.comparison.result import RunResult
from senet.experiments.cells import Cell
from senet.experiments.claims import Claims, Phase, State
from senet.experiments.worker import read_result

# The folder is asked so often; on a shared file system each look has its price.
_EVERY_SECONDS = 2.0
_MOST_LINES = 12


class Board:
    """All cells of a sweep, also those that other processes run.

    On a terminal a bar for all and one for each running cell; elsewhere only a line for each cell that ends.

    Args:
        cells: all of them.
        out: the folder of the experiments.
        claims: of the cells.
        say: takes the lines.
    """

    def __init__(self, cells: Sequence[Cell], out: Path, claims: Claims, say: Callable[[str], None]) -> None:
        self.cells, self.out, self.claims, self.say = cells, out, claims, say
        self.results: dict[str, RunResult] = {}
        self.states: dict[str, State] = {}
        self.shown = sys.stderr.isatty()
        self.looked = -_EVERY_SECONDS
        self.bars: list[Any] = []

    def __enter__(self) -> Self:
        self.total = tqdm(
            total=len(self.cells),
            desc="cells",
            unit="",
            disable=not self.shown,
            bar_format="{desc} {n_fmt}/{total_fmt} |{bar:20}| {unit}",
        )
        for cell in self.cells:  # what was there before is no news
            self._look(cell)
        if self.over:
            self.say(f"{self.over} of {len(self.cells)} cells are over already")
        return self

    def __exit__(self, *_error: object) -> None:
        for bar in (*self.bars, self.total):
            bar.close()

    @property
    def over(self) -> int:
        """How many cells are done or have failed."""
        return sum(state.phase in (Phase.DONE, Phase.FAILED) for state in self.states.values())

    def refresh(self, *, now: bool = False) -> None:
        """Looks at the folder, if the last look is some time ago, and shows what is new."""
        if not now and time.monotonic() - self.looked < _EVERY_SECONDS:
            return
        before = {key: state.phase for key, state in self.states.items()}
        for cell in self.cells:
            if before[cell.key] is not Phase.DONE:
                self._look(cell)
        for cell in self.cells:
            if self.states[cell.key].phase is not before[cell.key]:
                self._tell(cell, self.states[cell.key])
        self._draw()
        self.looked = time.monotonic()

    def _look(self, cell: Cell) -> State:
        state = self.claims.state(cell.key)
        if state.phase is Phase.DONE and cell.key not in self.results:
            result = read_result(cell, self.out)
            if result is not None:
                self.results[cell.key] = result
        self.states[cell.key] = state
        return state

    def _tell(self, cell: Cell, state: State) -> None:
        """A line for a cell that has ended."""
        name = f"{cell.label}, seed {cell.seed}"
        result = self.results.get(cell.key)
        count = f"[{self.over}/{len(self.cells)}]"
        line = None
        if result is not None:
            took = tqdm.format_interval(result.seconds)
            line = f"{count} {name}: test {result.test_top1:.2f} %, train {result.train_top1:.2f} %, {took}"
        elif state.phase is Phase.FAILED:
            line = f"{count} {name}: failed: {state.why}"
        if line is not None:
            left = self.seconds_left()
            line += f"; {tqdm.format_interval(left)} left" if left else ""
            # Above the bars.
            tqdm.write(line, file=sys.stderr) if self.shown else self.say(line)

    def _draw(self) -> None:
        if not self.shown:
            return
        running = [
            (cell, state) for cell in self.cells if (state := self.states[cell.key]).phase is Phase.RUNNING
        ][:_MOST_LINES]
        while len(self.bars) < len(running):
            self.bars.append(
                tqdm(
                    total=1.0,
                    position=len(self.bars) + 1,
                    leave=False,
                    bar_format="  {desc} |{bar:20}| {unit}",
                )
            )
        while len(self.bars) > len(running):
            self.bars.pop().close()
        for bar, (cell, state) in zip(self.bars, running, strict=True):
            bar.n = _share(state)
            bar.set_description_str(f"{cell.label}, seed {cell.seed}", refresh=False)
            bar.unit = _progress(state)  # its postfix would begin with a comma
            bar.refresh()
        self.total.n = self.over
        left = self.seconds_left()
        self.total.unit = "" if left is None else f"{tqdm.format_interval(left)} left"
        self.total.refresh()

    def seconds_left(self) -> float | None:
        """For all cells that are not over, by what others of their label took; None before any is known."""
        running = {key: state for key, state in self.states.items() if state.phase is Phase.RUNNING}
        known: dict[str, list[float]] = {}
        for cell in self.cells:
            if cell.key in self.results:
                known.setdefault(cell.label, []).append(self.results[cell.key].seconds)
            elif cell.key in running and (whole := _whole_seconds(running[cell.key])) is not None:
                known.setdefault(cell.label, []).append(whole)
        if not known:
            return None
        means = {label: sum(each) / len(each) for label, each in known.items()}
        usual = sum(means.values()) / len(means)
        work = sum(
            means.get(cell.label, usual) * (1 - (_share(running[cell.key]) if cell.key in running else 0))
            for cell in self.cells
            if self.states[cell.key].phase in (Phase.OPEN, Phase.RUNNING)
        )
        return work / max(1, len(running))


def _share(state: State) -> float:
    """How much of the run is done, from 0 to 1."""
    steps = state.progress.get("steps")
    return min(1.0, state.progress["step"] / steps) if steps else 0.0


def _whole_seconds(state: State) -> float | None:
    """What the run will have taken, by what it has taken for the steps of this start."""
    done = _share(state) - state.progress.get("share_before", 0.0)
    seconds = state.progress.get("seconds")
    return seconds / done if seconds and done > 0 else None


def _progress(state: State) -> str:
    facts = state.progress
    words = []
    if "epoch" in facts:
        words.append(f"epoch {facts['epoch']}/{facts['epochs']}")
    if "test_top1" in facts:
        words.append(f"test {facts['test_top1']:.2f} %")
    whole = _whole_seconds(state)
    if whole is not None:
        words.append(f"{tqdm.format_interval(whole * (1 - _share(state)))} left")
    return "  ".join(words)
