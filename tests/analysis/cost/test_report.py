"""What people and programs are given of a cost."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from senet.analysis.cost.latency import Spread
from senet.analysis.cost.report import CostReport, Part
from senet.errors import OptionError

MIB = 2**20


def _latency(median: float) -> Spread:
    return Spread(median, 0.9 * median, 1.1 * median, 7)


def _blocks(count: int, stages: int) -> tuple[Part, ...]:
    """Blocks in stages of equal length, each half as wide in space as the one before."""
    length = count // stages
    return tuple(
        Part(
            f"layer{number // length}.{number % length}.se",
            64,
            (64 >> number // length,) * 2,
            10,
            2_000_000,
            MIB,
            MIB // 2,
            _latency(0.5),
        )
        for number in range(count)
    )


def _report(count: int = 4, stages: int = 2, **fields: Any) -> CostReport:
    blocks = _blocks(count, stages)
    values: dict[str, Any] = {
        "network": "some_network",
        "input": (3, 64, 64),
        "batch": 2,
        "blocks": blocks,
        "se": Part("SE", 0, (), 10 * count, 2_000_000 * count, MIB * count, MIB * count // 2, _latency(2.0)),
        "total": Part("network", 0, (), 1000, 400_000_000, 100 * MIB, 50 * MIB, _latency(20.0)),
        "inside": (),
        "unsaved": "",
        "ratio": Spread(1.25, 1.2, 1.3, 7),
        "printed": (),
        "conditions": {"device": "cpu", "dtype": "float32"},
        "passport": {
            "machine": {"processor": "a processor", "gpu": None, "threads": 3},
            "versions": {"torch": "2.0"},
        },
    }
    return CostReport(**values | fields)


def test_shares() -> None:
    assert _report().share == pytest.approx(
        {
            "parameters": 0.04,
            "multiply-adds": 0.02,
            "bytes moved": 0.04,
            "bytes saved": 0.04,
            "latency ms": 0.2,
        }
    )
    assert _report(ratio=None).share["latency ms"] is None


def test_rows_are_a_row_a_part_in_plain_numbers() -> None:
    rows = _report().beside(_report(network="other"), None).rows
    assert [row["part"] for row in rows[:6]] == [
        *(block.name for block in _blocks(4, 2)),
        "SE",
        "network",
    ]
    assert [row["network"] for row in rows] == ["some_network"] * 6 + ["other"] * 6
    assert rows[0] == {
        "network": "some_network",
        "part": "layer0.0.se",
        "channels": 64,
        "size": "64x64",
        "parameters": 10,
        "multiply-adds": 2_000_000,
        "bytes moved": MIB,
        "bytes saved": MIB // 2,
        "latency ms": 0.5,
        "low quartile ms": 0.45,
        "high quartile ms": 0.55,
        "runs": 7,
    }


def test_it_prints_itself() -> None:
    text = str(_report())
    assert text.startswith("some_network on 3 × 64 × 64, a batch of 2: 4 SE blocks\n\n")
    lines = text.splitlines()
    assert lines[3].split() == ["layer0.0.se", "64×64×64", "10", "2.00", "1.00", "0.500", "0.500"]
    assert lines[9].split() == "share of SE 4.00 % 2.00 % 4.00 % 4.00 % 20.00 %".split()
    assert "median of 7 runs in turn, quartiles 18.000 to 22.000 ms" in text
    assert "cpu (a processor), CPU threads: 3, torch 2.0" in text
    assert "not norms, activations, poolings, the squeeze" in " ".join(text.split())


def test_what_was_not_counted_is_said() -> None:
    report = _report(lost=("features.7", ""))
    assert "SE in features.7, the network: not counted" in " ".join(str(report).split())
    assert "give a larger input" in report.to_dict()["missing"][0]
    assert "not counted, as" not in " ".join(str(_report()).split())


@pytest.mark.parametrize(("count", "shown"), [(1, 1), (16, 16), (20, 20), (54, 3), (90, 3)])
def test_it_fits_a_screen(count: int, shown: int) -> None:
    """100 columns and a page: where there are many blocks, a line a stage."""
    text = str(_report(count, stages=1 if count == 1 else 2 if count < 54 else 3))
    assert all(len(line) <= 100 for line in text.splitlines())
    lines = text.split("\n\n")[1].splitlines()
    assert len(lines) == 1 + shown + 3
    assert len(text.splitlines()) <= 45
    if count == 54:
        assert lines[2].split() == "layer1.0.se + 17 more 64×32×32 180 36.00 18.00 9.000 9.000".split()


def test_long_names_are_cut_in_front() -> None:
    (block,) = _blocks(1, 1)
    named = Part("a" * 50 + ".se", *list(vars(block).values())[1:])
    line = str(_report(1, 1, blocks=(named,))).splitlines()[3]
    assert line.startswith(f"…{'a' * 30}.se ")


def test_what_is_not_known_is_said() -> None:
    unknown = Part("network", 0, (), 1000, 400_000_000, 100 * MIB, None, None)
    se = Part("SE", 0, (), 40, 8_000_000, 4 * MIB, None, None)
    text = str(_report(total=unknown, se=se, ratio=None, inside=("unit.gate",), unsaved="it raised"))
    assert "latency: not measured" in text
    assert "does not run in training, without memory, on this batch (it raised)" in " ".join(text.split())
    assert "unit.gate is no module" in text
    (line,) = (line for line in text.splitlines() if line.startswith("share"))
    assert line.split() == "share of SE 4.00 % 2.00 % 4.00 % - -".split()


def test_a_difference_within_the_noise_is_no_share() -> None:
    assert "unclear" in str(_report(ratio=Spread(1.02, 0.99, 1.04, 7)))
    assert "unclear" not in str(_report())


def test_two_networks_beside_each_other() -> None:
    plain = _report(
        network="plain",
        blocks=(),
        se=Part("SE", 0, (), 0, 0, 0, 0, None),
        total=Part("network", 0, (), 800, 200_000_000, 50 * MIB, 50 * MIB, _latency(16.0)),
        ratio=None,
    )
    report = _report().beside(plain, Spread(1.26, 1.2, 1.3, 7))
    assert report.compared[0] == {
        "quantity": "parameters",
        "some_network": 1000,
        "plain": 800,
        "difference": 200,
        "ratio": 1.25,
    }
    # Of latencies the ratio is the median of the ratios, and not the ratio of the medians.
    assert report.compared[-1]["ratio"] == 1.26
    text = str(report)
    assert "1.260 times that of plain, run by run (quartiles 1.200 to 1.300)" in text
    assert "multiply-adds   400,000,000  200,000,000  200,000,000  2.0000" in text
    again = _report().beside(_report(), None).compared[0]
    assert list(again) == ["quantity", "some_network", "the other", "difference", "ratio"]
    renamed = report.named("a", "b")
    assert renamed.vs is not None
    assert (renamed.network, renamed.vs.network) == ("a", "b")


def test_it_saves(tmp_path: Path) -> None:
    report = _report(54, 3).beside(_report(network="other"), None)
    report.save(tmp_path / "cost.csv")
    with (tmp_path / "cost.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 56 + 6
    report.save(tmp_path / "cost.json")
    saved = json.loads((tmp_path / "cost.json").read_text())
    assert saved["rows"] == report.rows
    assert saved["share of SE"] == report.share
    assert saved["passport"]["machine"]["threads"] == 3
    report.save(tmp_path / "cost.md")
    # Every block, where the terminal shows stages.
    assert (tmp_path / "cost.md").read_text().count("| layer") == 54
    with pytest.raises(OptionError, match=r"\.csv, \.json, \.md"):
        report.save(tmp_path / "cost.txt")
