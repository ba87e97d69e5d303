from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.analysis.comparison.made_up import result
from tests.experiments.small import small_plan

from senet.experiments import progress
from senet.experiments.cells import Cell
from senet.experiments.claims import Phase, State
from senet.experiments.progress import Board

CELLS = small_plan(0, 1).cells
RUNNING = {"step": 30, "steps": 100, "share_before": 0.1, "seconds": 20.0, "epoch": 3, "epochs": 10}


class Told:
    """Claims that say what they are told to say; of plain, a run takes 100 s."""

    def __init__(self, states: Mapping[str, State]) -> None:
        self.states = dict(states)

    def state(self, key: str) -> State:
        return self.states[key]


@pytest.fixture
def claims(monkeypatch: pytest.MonkeyPatch) -> Told:
    def read(_cell: Cell, _out: Path) -> Any:
        return result(seconds=100.0, top1=91.5, train=95.0)

    monkeypatch.setattr(progress, "read_result", read)
    return Told({cell.key: State(Phase.OPEN) for cell in CELLS})


def _board(claims: Told, said: list[str]) -> Board:
    return Board(CELLS, Path("out"), claims, said.append)  # type: ignore[arg-type]


def test_a_line_for_each_cell_that_ends(claims: Told) -> None:
    said: list[str] = []
    claims.states[CELLS[0].key] = State(Phase.DONE)
    with _board(claims, said) as board:
        assert said == ["1 of 4 cells are over already"]
        claims.states[CELLS[2].key] = State(Phase.DONE)
        claims.states[CELLS[3].key] = State(Phase.RUNNING, progress=RUNNING)
        board.refresh(now=True)
        board.refresh(now=True)
        assert len(said) == 2
        # Of SE, a fifth has taken 20 s, so 100 s are the whole; 70 of the running one, and 100 of each other.
        assert said[1] == "[2/4] plain, seed 1: test 91.50 %, train 95.00 %, 01:40; 02:50 left"
        claims.states[CELLS[1].key] = State(Phase.FAILED, why="it broke")
        board.refresh(now=True)
        assert said[2].startswith("[3/4] SE, seed 0: failed: it broke; 01:10 left")
        claims.states[CELLS[3].key] = State(Phase.DONE)
        board.refresh()
        assert len(said) == 3, "the folder is not looked at all the time"
        board.refresh(now=True)
        assert said[3] == "[4/4] SE, seed 1: test 91.50 %, train 95.00 %, 01:40"


def test_the_time_left(claims: Told) -> None:
    with _board(claims, []) as board:
        assert board.seconds_left() is None
        claims.states[CELLS[0].key] = State(Phase.RUNNING, progress={})
        board.refresh(now=True)
        assert board.seconds_left() is None
        # Two at once: half the time.
        for cell in CELLS[:2]:
            claims.states[cell.key] = State(Phase.RUNNING, progress=RUNNING)
        board.refresh(now=True)
        assert board.seconds_left() == pytest.approx((70 + 70 + 100 + 100) / 2)


def test_on_a_terminal_each_running_cell_has_a_line(
    claims: Told, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with _board(claims, []) as board:
        claims.states[CELLS[0].key] = State(Phase.DONE)
        claims.states[CELLS[1].key] = State(Phase.RUNNING, progress=RUNNING | {"test_top1": 87.5})
        board.refresh(now=True)
        shown = capsys.readouterr().err
    assert "[1/4] plain, seed 0: test 91.50 %" in shown
    assert "cells 1/4" in shown
    assert "SE, seed 0" in shown
    assert "epoch 3/10  test 87.50 %  01:10 left" in shown
