import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tests.programs import program
from tests.report.histories import history

from senet.report import curves
from senet.report.curves import Curves, draw, figure_of

pytest.importorskip("matplotlib", reason="matplotlib is not installed")


@pytest.mark.parametrize("epochs", [1, 5, 300])
def test_the_picture_is_there_and_nothing_else(tmp_path: Path, epochs: int) -> None:
    draw(tmp_path, history(epochs))
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.size == (1200, 1200)
        assert len(picture.convert("RGB").getcolors(1 << 24) or []) > 50
    assert [path.name for path in tmp_path.iterdir()] == ["curves.png"]


def _lines(axes: Any) -> list[list[float]]:
    return [list(line.get_ydata()) for line in axes.get_lines()]


def test_every_value_is_in_it() -> None:
    rows = history(40)
    panels: Any = figure_of("run", rows).axes
    loss, accuracy, rate = panels
    assert _lines(loss)[:2] == [[row[name] for row in rows] for name in ("train_loss", "test_loss")]
    assert _lines(accuracy)[:2] == [[row[name] for row in rows] for name in ("test_top1", "test_top5")]
    assert _lines(rate) == [[rows[0]["lr"], *(row["lr"] for row in rows)]]
    assert list(rate.get_lines()[0].get_xdata()) == list(range(41))
    assert loss.get_xlim() == accuracy.get_xlim() == rate.get_xlim() == (0, 40)


def _texts(figure: Any) -> list[str]:
    return [text.get_text() for axes in (figure, *figure.axes) for text in axes.texts]


def test_curves_are_labelled_where_they_end_and_the_best_epoch_is_marked() -> None:
    rows = history(20)
    found = _texts(figure_of("runs_$1_of_$2", rows))
    best = rows[18]["test_top1"]
    assert found == [
        "runs_$1_of_$2",
        "epoch 20, step 440",
        "train 0.115",
        "test 0.125",
        f"top-1 {rows[-1]['test_top1']:.2f} %",
        "top-5 100.00 %",
        f"best: {best:.2f} % in epoch 19",
        f"{rows[-1]['lr']:.3g}",
    ]


def test_of_several_best_epochs_the_first_is_marked_as_it_is_the_one_that_is_saved() -> None:
    rows = history(9)
    for row in rows[3:]:
        row["test_top1"] = 100.0
    assert "best: 100.00 % in epoch 4" in _texts(figure_of("run", rows))


@pytest.mark.parametrize(
    ("rates", "scale"),
    [
        (None, "linear"),
        ([0.1] * 30, "linear"),
        ([0.1] * 15 + [0.01] * 15, "linear"),
        ([0.6] * 30 + [0.06] * 30 + [0.006] * 30 + [0.0006] * 10, "log"),
        ([0.1] * 60 + [0.02] * 60 + [0.004] * 40 + [0.0008] * 40, "log"),
        ([0.1, 0.0, 0.0], "linear"),
    ],
)
def test_a_rate_that_falls_in_steps_has_a_logarithmic_axis(rates: list[float] | None, scale: str) -> None:
    figure = figure_of("run", history(len(rates) if rates else 30, rates=rates))
    assert figure.axes[2].get_yscale() == scale


_value = st.floats(0.0, 100.0)


@settings(max_examples=15)
@given(st.lists(st.tuples(_value, _value, _value, _value), min_size=1, max_size=40))
def test_no_text_covers_another_or_leaves_the_picture(values: list[tuple[float, ...]]) -> None:
    rows = history(len(values))
    for row, found in zip(rows, values, strict=True):
        row |= dict(zip(("train_loss", "test_loss", "test_top1", "test_top5"), found, strict=True))
    figure: Any = figure_of("se_resnet20-digits-seed0-1", rows)
    figure.savefig("/dev/null", format="png", backend="agg")
    ends = [axes.texts[:2] for axes in figure.axes[:2]]
    for lower, upper in ends:
        assert not lower.get_window_extent().overlaps(upper.get_window_extent())
    boxes = [text.get_window_extent() for axes in (figure, *figure.axes) for text in axes.texts]
    assert all(box.x0 > 0 and box.x1 < 1200 and box.y0 > 0 and box.y1 < 1200 for box in boxes)


def test_it_is_drawn_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.figure import Figure

    draw(tmp_path, history(3))
    before = (tmp_path / "curves.png").read_bytes()

    def half(self: Any, path: Path, **_options: Any) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", half)
    with pytest.raises(OSError, match="No space"):
        draw(tmp_path, history(4))
    assert (tmp_path / "curves.png").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_it_is_drawn_every_half_minute_and_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[int] = []
    now = 0.0
    monkeypatch.setattr(curves, "draw", lambda path, rows: drawn.append(len(rows)))
    monkeypatch.setattr("time.monotonic", lambda: now)
    watch = Curves(pytest.fail)
    for epochs in range(1, 8):
        watch(tmp_path, history(epochs))
        now += 12
    assert drawn == [1, 4, 7]
    watch(tmp_path, history(8))
    watch.close()
    watch.close()
    assert drawn == [1, 4, 7, 8]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ImportError("no matplotlib"), "curves.png is not drawn: pip install 'senet[plot]'"),
        (OSError(28, "No space left on device"), "curves.png is not drawn: No space left on device"),
        (OverflowError("too large"), "curves.png is not drawn: OverflowError: too large"),
    ],
)
def test_what_goes_wrong_is_said_once_and_ends_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    def fails(path: Path, rows: Any) -> None:
        raise error

    monkeypatch.setattr(curves, "draw", fails)
    monkeypatch.setattr(curves, "_SECONDS", 0)
    lines: list[str] = []
    watch = Curves(lines.append)
    for epochs in (1, 2, 3):
        watch(tmp_path, history(epochs))
    assert lines == [said]


def test_without_matplotlib_a_line_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    lines: list[str] = []
    Curves(lines.append)(tmp_path, history(1))
    assert lines == ["curves.png is not drawn: pip install 'senet[plot]'"]


def test_a_run_that_draws_leaves_matplotlib_as_it_is(tmp_path: Path) -> None:
    code = """
import sys
from senet.report.curves import Curves
before = "matplotlib" in sys.modules
from pathlib import Path
from tests.report.histories import history
import matplotlib

def settings():
    # To look at the backend is to choose one.
    return {key: matplotlib.rcParams[key] for key in matplotlib.rcParams if key != "backend"}

given = settings()
Curves(print)(Path(sys.argv[1]), history(3))
print(before, "matplotlib.pyplot" in sys.modules, settings() == given)
"""
    assert program("-W", "error", "-c", code, str(tmp_path)) == "False False True\n"
    assert (tmp_path / "curves.png").exists()
