import itertools
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tests.report.studies import study

from senet.errors import MissingExtraError, OptionError
from senet.report.gates import figures as gate_figures
from senet.report.gates.figures import write_figures

pytest.importorskip("matplotlib", reason="matplotlib is not installed")

NAMES = ["classes", "instances", "depth", "specificity"]


def _lines(axes: Any) -> list[list[float]]:
    return [list(line.get_ydata()) for line in axes.get_lines()]


def test_each_figure_is_there_twice_and_again_the_same(tmp_path: Path) -> None:
    found = study(stages=(1, 1), images=4)
    written = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        written.append(write_figures(found, tmp_path / name, shown=[0, 2], panels=["layer1.0.se"]))
    assert [path.name for path in written[0]] == [
        f"{name}.{kind}" for name in NAMES for kind in ("png", "svg")
    ]
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == sorted(
        path.name for path in written[0]
    )
    for first, second in zip(*written, strict=True):
        assert first.read_bytes() == second.read_bytes()
    with Image.open(tmp_path / "a" / "specificity.png") as picture:
        assert picture.info["dpi"] == pytest.approx((150, 150), abs=0.1)
        assert picture.width == 1275


def test_classes_shows_the_class_means_and_the_mean_over_all() -> None:
    found = study(images=3)
    names = ["layer2.1.se", "layer3.2.se"]
    axes: Any = gate_figures.classes_figure(found, [1, 3], 10, names).axes
    assert [place.get_title(loc="left") for place in axes] == ["layer2.1", "layer3.2"]
    for place, name in zip(axes, names, strict=True):
        profile = found.blocks[name]
        at = [index * profile.channels // 10 for index in range(10)]
        means = profile.class_mean[:, at]
        torch.testing.assert_close(
            torch.tensor(_lines(place)), torch.stack([means[1], means[3], means.mean(0)])
        )
        assert list(place.get_lines()[0].get_xdata()) == at
        assert place.get_ylim() == (0.0, 1.0)


def test_instances_shows_mean_and_deviation_within_a_class() -> None:
    found = study(images=3)
    axes: Any = gate_figures.instances_figure(found, [1, 3], None, ["layer1.0.se"]).axes
    profile = found.blocks["layer1.0.se"]
    assert len(axes) == 1
    torch.testing.assert_close(torch.tensor(_lines(axes[0])), profile.class_mean[[1, 3]])
    ends = axes[0].collections[0].get_paths()[0].vertices[:, 1]
    assert max(ends) == pytest.approx(float((profile.class_mean + profile.class_std)[1].max()))
    assert min(ends) == pytest.approx(float((profile.class_mean - profile.class_std)[1].min()))


def test_depth_shows_the_measures_of_each_block() -> None:
    found = study(images=3)
    axes: Any = gate_figures.depth_figure(found).axes
    shown = [line for place in axes for line in _lines(place)]
    columns = [
        "class_share", "similarity", "between_channels", "between_classes", "within_class", "closed", "open"
    ]  # fmt: skip
    assert shown == [[row[column] for row in found.rows] for column in columns]
    assert [text.get_text() for text in axes[-1].get_xticklabels()][::3] == [
        "layer1.0",
        "layer2.1",
        "layer3.2",
    ]


def test_specificity_has_a_row_a_block_and_a_cell_a_channel() -> None:
    found = study(images=3)
    place, _ = gate_figures.specificity_figure(found).axes
    images: Any = place.get_images()
    assert [image.get_array().shape for image in images] == [(1, b.channels) for b in found.blocks.values()]
    assert all(image.get_clim() == (0, 1) for image in images)
    rows = [image.get_extent()[2:] for image in images]
    assert all(after[1] > before[0] for before, after in itertools.pairwise(rows))
    early, late = images[0].get_array().mean(), images[-1].get_array().mean()
    assert early < 0.2 < 0.5 < late


@pytest.mark.parametrize("draw", [gate_figures.depth_figure, gate_figures.specificity_figure])
def test_one_block_and_gates_that_do_not_vary_are_drawn(draw: Any) -> None:
    found = study(stages=(1,), images=1)
    block = next(iter(found.blocks.values()))
    block.square.zero_()
    block.mean.fill_(0.5)
    draw(found).savefig("/dev/null", format="png", backend="agg")
    assert found.rows[0]["class_share"] is None


def test_the_paper_s_panels_are_taken_unless_others_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr(gate_figures, "FORMATS", ())
    monkeypatch.setattr(gate_figures, "classes_figure", lambda *args: asked.append(list(args[-1])))
    write_figures(study(images=2), tmp_path, shown=[0])
    write_figures(study(images=2), tmp_path, shown=[0], panels=["layer1.0.se"])
    paper = ["layer1.1.se", "layer2.1.se", "layer3.0.se", "layer3.1.se", "layer3.2.se"]
    assert asked == [paper, ["layer1.0.se"]]
    with pytest.raises(OptionError, match=r"layer9.*Did you mean 'layer"):
        write_figures(study(images=2), tmp_path, shown=[0], panels=["layer9.0.se"])


def test_without_matplotlib_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'senet\[plot\]'"):
        write_figures(study(images=2), tmp_path, shown=[0])
