"""The benchmark of engines measures each form in each of them, and reports none that is wrong."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from senet.deploy.engines import opened

pytest.importorskip("onnxscript")
pytest.importorskip("openvino")

# Scripts, that find each other beside them.
sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import engines

SMALL = "tests.benchmarks.small:Small"
FORMS = ["plain", "theirs", "canonical", "blocked"]


def run(out: Path, engine: str, *batches: str) -> None:
    settings = ["--batch", *batches, *"--size 16 --rounds 2".split()]
    engines.main(["--network", SMALL, "--engine", engine, *settings, "--out", str(out)])


@pytest.mark.parametrize(("engine", "batches"), [("onnxruntime", [1, 3]), ("openvino", [2])])
def test_every_form_is_measured(
    engine: str, batches: list[int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path / "found.json", engine, *map(str, batches))
    found = json.loads((tmp_path / "found.json").read_text())
    assert [(row["engine"], row["batch"], row["candidate"]) for row in found["rows"]] == [
        (engine, batch, form) for batch in batches for form in FORMS
    ]
    for row in found["rows"]:
        assert 0 <= row["difference"] <= 1e-5
        assert row["low quartile"] <= row["ratio to plain"] <= row["high quartile"]
        assert row["nodes"] == sum(row["operators"].values())
        assert row["moves"] == sum(row["operators"].get(move, 0) for move in engines.MOVES)
    times = [row["ms by operator"] for row in found["rows"] if engine == "onnxruntime"]
    assert all(set(each) == set(row["operators"]) for each, row in zip(times, found["rows"], strict=False))
    nodes = {row["candidate"]: row["nodes"] for row in found["rows"]}
    assert nodes["plain"] < min(nodes[form] for form in FORMS[1:])
    assert found["passport"]["versions"]["torch"]
    assert capsys.readouterr().out.count("\n    ") >= len(batches) * len(FORMS)


def test_a_form_that_is_wrong_is_not_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(path: Path, engine: str, **options: Any) -> Any:
        session = opened(path, engine, **options)
        return session if path.stem != "blocked" else lambda images: [1.001 * session(images)[0]]

    monkeypatch.setattr(engines, "opened", wrong)
    with pytest.raises(SystemExit, match=r": blocked in onnxruntime is wrong by .*nothing is reported"):
        run(tmp_path / "found.json", "onnxruntime", "1")
    assert not (tmp_path / "found.json").exists()
