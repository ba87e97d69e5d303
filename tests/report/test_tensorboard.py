import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.report.histories import history

from senet.errors import MissingExtraError, RunError
from senet.report.tensorboard import TensorBoard

COLUMNS = {
    "loss/train": "train_loss",
    "loss/test": "test_loss",
    "accuracy/top1": "test_top1",
    "accuracy/top5": "test_top5",
    "learning_rate": "lr",
}


@pytest.fixture
def read() -> Callable[[Path], dict[str, list[tuple[int, float]]]]:
    """Reads the scalars of a run as TensorBoard does: (step, value) by tag."""
    found = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is not installed"
    )

    def scalars(run: Path) -> dict[str, list[tuple[int, float]]]:
        events: Any = found.EventAccumulator(str(run / "tensorboard")).Reload()
        return {
            tag: [(event.step, event.value) for event in events.Scalars(tag)]
            for tag in events.Tags()["scalars"]
        }

    return scalars


def _expected(rows: list[dict[str, Any]]) -> dict[str, list[tuple[int, Any]]]:
    return {
        tag: [(row["step"], pytest.approx(row[column], rel=1e-6)) for row in rows]
        for tag, column in COLUMNS.items()
    }


def test_every_row_stands_once_and_at_once(tmp_path: Path, read: Any) -> None:
    watch = TensorBoard()
    for epochs in (1, 2, 3):
        watch(tmp_path, history(3)[:epochs])
        assert read(tmp_path) == _expected(history(3)[:epochs])
    watch.close()
    assert len(list((tmp_path / "tensorboard").iterdir())) == 1


@pytest.mark.parametrize("kept", [0, 2, 3, 4])
def test_a_run_that_goes_on_has_each_epoch_once(tmp_path: Path, read: Any, kept: int) -> None:
    """Whether the checkpoint is older than what was written, as old, or newer."""
    rows = history(6)
    before = TensorBoard()
    for epochs in (1, 2, 3):
        # Another accuracy, to tell what is from before.
        before(tmp_path, [row | {"test_top1": 1.0} for row in rows[:epochs]])
    before.close()
    after = TensorBoard()
    for epochs in range(kept + 1, 7):
        after(tmp_path, rows[:epochs])
    after.close()
    assert read(tmp_path) == _expected(rows)


def test_nothing_is_written_before_the_first_epoch(tmp_path: Path, read: Any) -> None:
    TensorBoard().close()
    assert not list(tmp_path.iterdir())


def test_without_tensorboard_the_extra_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(MissingExtraError, match=r"--tensorboard.*pip install 'senet\[tensorboard\]'"):
        TensorBoard()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, read: Any) -> None:
    (tmp_path / "tensorboard").write_text("a file")
    with pytest.raises(RunError, match=r"tensorboard'.*cannot be written.*--resume"):
        TensorBoard()(tmp_path, history(1))
