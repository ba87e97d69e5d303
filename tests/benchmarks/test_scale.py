"""What is computed of N GPUs is what the formulas say, and the document has it; what is counted is all."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.together import together

import senet
from senet.runtime.processes import joined

# Scripts, that find each other beside them.
sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import scale
import scale_model
import scale_traffic
import wire
from scale_model import Cluster, Link, Traffic

# Numbers that are easy on the head: 10 and 5 bytes a second, 1 and 3 seconds.
CLUSTER = Cluster(node=4, inside=Link(10, 1), between=Link(5, 3), host=Link(8, 2))


def test_a_ring_has_two_steps_for_each_other_process() -> None:
    # 6 steps of 80 / 4 bytes.
    assert scale_model.ring(80, 4, CLUSTER.inside) == 6 * (2 + 1)
    assert scale_model.ring(80, 1, CLUSTER.inside) == 0
    # The usual form: 2 (N - 1) / N of the bytes, and 2 (N - 1) latencies.
    assert scale_model.ring(700, 7, Link(3, 0)) == pytest.approx(2 * 6 / 7 * 700 / 3)


def test_two_levels_are_a_ring_in_the_node_and_one_between_nodes() -> None:
    assert scale_model.all_reduce(80, 4, CLUSTER) == 18
    # Between 2 nodes each GPU has a quarter: 2 steps of 20 / 2 bytes.
    assert scale_model.all_reduce(80, 8, CLUSTER) == 18 + 2 * (2 + 3)
    # One ring: 14 steps of 10 bytes, 10 a second, as 4 cards of 5 are more than that.
    assert scale_model.one_ring(80, 8, CLUSTER) == 14 * (1 + 3)
    assert scale_model.one_ring(80, 4, CLUSTER) == 18


def test_buffers_go_down_a_chain() -> None:
    assert scale_model.broadcast(20, 2, 1, CLUSTER) == 0
    assert scale_model.broadcast(20, 2, 4, CLUSTER) == 20 / 10 + 2 * 3
    assert scale_model.broadcast(20, 2, 12, CLUSTER) == 20 / 5 + 2 * (3 + 2 * 3)


@pytest.mark.parametrize(
    ("seconds", "ready", "left"),
    [
        ([1, 1], [0.5, 1], 1),  # the last is never hidden
        ([8, 1], [0.5, 1], 4),  # 5 + 8 + 1 of 10
        ([2, 2, 2], [0.1, 0.2, 0.9], 1),  # the third waits until 9
        ([0], [1], 0),
    ],
)
def test_what_the_backward_hides(seconds: list[float], ready: list[float], left: float) -> None:
    assert scale_model.exposed(seconds, ready, 10) == pytest.approx(left)


def test_a_step_is_the_sum_of_what_nothing_hides() -> None:
    traffic = Traffic(buckets=(80,), ready=(1,), buffers=20, broadcasts=2, flags=16)
    rates = {"images": 30, "images_per_second": 1.0, "prepared_per_second": 2.0}
    found = scale_model.step_time(traffic, 4, CLUSTER, **rates)  # type: ignore[arg-type]
    # Flags: 6 steps of 16 / 4 bytes, 10 a second, 1 second each.
    assert (found.compute, found.input, found.exposed, found.broadcast) == (30, 15, 18, 8)
    assert found.agreement == pytest.approx(6 * (0.4 + 1))
    assert found.whole == pytest.approx(30 + 18 + 8 + 8.4)
    assert found.efficiency == pytest.approx(30 / 64.4)
    alone = scale_model.step_time(traffic, 1, CLUSTER, **rates)  # type: ignore[arg-type]
    assert (alone.whole, alone.efficiency) == (30, 1)
    slow = rates | {"prepared_per_second": 0.5}
    assert scale_model.step_time(traffic, 1, CLUSTER, **slow).whole == 60  # type: ignore[arg-type]


def test_the_prediction_for_two_processes() -> None:
    """A link of 10 bytes a second, 1 second a message; a step of 12, of which 10 are the backward."""
    seconds = {"forward": 2.0, "alone": 12.0, "probe": 2 + 40 / 10, "agree": 2.0}
    found = {"buckets": [60, 20], "ready": [0.5, 1.0], "buffers": 10, "broadcasts": 1}
    # Buckets 8 and 4 seconds, the first from 5 on; buffers 1 + 1; flags 2.
    assert scale.two_processes(found, seconds, 40, hides=True) == pytest.approx(12 + 7 + 2 + 2)
    assert scale.two_processes(found, seconds, 40, hides=False) == pytest.approx(12 + 12 + 2 + 2)


def test_what_a_step_sends_is_every_gradient_and_every_buffer() -> None:
    row = scale_traffic.sent("se_resnet20", 32)
    model = senet.build("se_resnet20")
    assert (
        row["gradient bytes"] == sum(row["buckets"]) == 4 * sum(each.numel() for each in model.parameters())
    )
    assert row["buffer bytes"] == sum(each.nbytes for each in model.buffers())
    plain = sum(each.nbytes for each in senet.build("resnet20").parameters())
    assert row["gradient bytes"] - plain == row["of SE"] == sum(row["of SE by stage"].values())
    assert row["ready"] == sorted(row["ready"])
    assert row["ready"][-1] == 1
    assert row["flag bytes"] == 24
    assert not torch.distributed.is_initialized()


def test_a_checkpoint_is_weights_statistics_and_momentum() -> None:
    row = scale_traffic.kept("se_resnet20", turns=2)
    model = senet.build("se_resnet20")
    tensors = sum(each.nbytes for each in [*model.parameters(), *model.parameters(), *model.buffers()])
    assert tensors < row["checkpoint bytes"] < tensors + 100_000
    assert len(row["write s, all"]) == len(row["read s, all"]) == 2
    assert 0 < row["write s"] < 60


def test_images(tmp_path: Path) -> None:
    assert scale_traffic.image_bytes(tmp_path)["images"] == 0
    for size in (10, 20, 60):
        (tmp_path / f"{size}.jpg").write_bytes(bytes(size))
    assert scale_traffic.image_bytes(tmp_path) == {"images": 3, "mean": 30, "median": 20}
    assert scale_traffic.bytes_to_device(8) == 3 * 8 * 8 + 8


def _train(file: str) -> None:
    with joined(torch.device("cpu")) as processes:
        found = wire._steps(
            wire.Spec("se_resnet20", size=16, images=2, rounds=2, steps=1, probe=4096), processes
        )
        if processes.leads:
            Path(file).write_text(json.dumps(found))


def test_two_processes_are_timed(tmp_path: Path) -> None:
    together(2, _train, str(tmp_path / "found.json"))
    found: dict[str, Any] = json.loads((tmp_path / "found.json").read_text())
    assert {*found["seconds"]} == {"forward", "alone", "probe", "agree", "together"}
    assert all(len(each) == 2 and min(each) > 0 for each in found["seconds"].values())
    gradients = sum(each.nbytes for each in senet.build("se_resnet20", num_classes=2).parameters())
    assert sum(found["buckets"]) == gradients


def test_without_a_namespace_bytes_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    start = subprocess.Popen

    def started(words: list[str], **options: Any) -> Any:
        assert words[-1] == "shared"
        return start(["echo", '{"seconds": 1.0, "bytes": 5, "packets": 7}'], **options)

    monkeypatch.setattr(wire, "has_namespaces", lambda: False)
    monkeypatch.setattr(subprocess, "Popen", started)
    assert wire.measure(wire.Spec()) == {"seconds": 1.0, "bytes": None, "packets": None}
    with pytest.raises(OSError, match="no rate"):
        wire.measure(wire.Spec(rate=1e9))


def test_the_document_has_the_tables(capsys: pytest.CaptureFixture[str]) -> None:
    text = scale.DOCUMENT.read_text(encoding="utf-8")
    scale.main([])
    printed = capsys.readouterr().out
    found = scale.tables(scale.options_of([]))
    assert scale.with_tables(text, found) == text
    for name in found:
        assert text.count(f"<!-- {name}: begin -->") == text.count(f"<!-- {name}: end -->") == 1
        assert f"\n{name}\n" in printed


def test_other_machines_give_other_tables(capsys: pytest.CaptureFixture[str]) -> None:
    usual, slow = (scale.tables(scale.options_of(words))["steps"] for words in ([], ["--between", "0.1"]))
    columns = [[row["efficiency"] for row in table.rows] for table in (usual, slow)]
    assert columns[0][:2] == columns[1][:2], "one node"
    assert columns[0] != columns[1]


def test_what_the_document_says_of_se_is_what_was_counted() -> None:
    text = " ".join(scale.DOCUMENT.read_text(encoding="utf-8").split())
    rows = {row["network"]: row for row in scale.results("scale")["rows"]}
    plain, se = rows["resnet50"], rows["se_resnet50"]
    assert se["of SE"] == se["gradient bytes"] - plain["gradient bytes"]
    more = 100 * se["of SE"] / plain["gradient bytes"]
    assert f"{more:.1f} % more gradients than ResNet-50, {se['of SE'] / 1e6:.2f} MB more" in text
    stages = [f"conv{stage} {size / 1e6:.2f}" for stage, size in se["of SE by stage"].items()]
    assert f"{', '.join(stages)} MB. So {100 * se['of SE by stage']['5'] / se['of SE']:.0f} %" in text
    last = [row["buckets"][-1] / 1e6 for row in (se, plain)]
    assert f"**{last[0]:.1f} MB stay for the last bucket in SE-ResNet-50, {last[1]:.1f} MB in" in text
    assert "150,536 bytes" in text
    assert scale.results("scale")["settings"]["bytes to the device"] == 150_536
