"""The examples run, in small."""

from pathlib import Path

import pytest
from examples.finetune import main


def test_finetune(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["finetune.py", "--epochs", "1", "--more", "1"])
    main()
    out = capsys.readouterr().out
    assert "largest change of the output: 0\n" in out
    *_, plain, se = out.strip().splitlines()
    assert plain.split()[:3] == ["plain", "0", "269,434"]
    assert se.split()[:3] == ["SE", "0", f"{269_434 + 8_484:,}"]
    gates = [line.split() for line in out.splitlines() if line.startswith("layer") and "residual" not in line]
    assert len(gates) == 9
    assert any(float(spread) > 0 for *_, spread, _, _ in gates), "they have moved"
