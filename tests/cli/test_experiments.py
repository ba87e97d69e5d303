import json
from pathlib import Path

import pytest

from senet.cli import main
from senet.cli.experiments import _sharded
from senet.experiments.cells import Cell
from senet.training.config import TrainConfig

FAKE = ["--data", "fake:1x8x8,images=32,classes=2", "--epochs", "1", "--device", "cpu"]
MINE = """
title: Mine
variants:
  plain: {network: plain}
  r = 4: {se.reduction: 4}
  r = 32: {se.reduction: 32}
"""


def test_a_grid_of_ones_own_to_its_report(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.yaml").write_text(MINE)
    words = ["ablate", "mine.yaml", *FAKE, "--seeds", "1", "--out", "out"]
    assert main([*words, "--dry-run", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["runs"], [row["runs"] for row in found["variants"]]) == (2, [1, 1])
    assert not Path("out").exists(), "nothing has been written"
    assert main([*words, "--tables", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert [row["seeds_missing"] for row in found["rows"][:2]] == [1, 1]
    assert not Path("out/cells").exists(), "nothing has run"
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "r = 32 is not defined" in out
    assert "[2/2]" in out
    (folder,) = Path("out").glob("mine-resnet20-fake-1epochs-*")
    written = {path.name for path in folder.iterdir()}
    assert written >= {"report.html", "table.md", "table.csv", "runs.csv", "comparison.png", "comparison.svg"}
    assert main([*words, "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["folder"] == str(folder)
    assert len(found["rows"]) == 3
    assert main([*words, "--dry-run"]) == 0
    assert "0 of 2 runs to do" in capsys.readouterr().out


@pytest.mark.parametrize("count", [1, 3, 8])
def test_shards_are_the_whole(count: int) -> None:
    cells = [Cell(str(number), TrainConfig()) for number in range(7)]
    shards = [_sharded(cells, f"{number}/{count}") for number in range(1, count + 1)]
    assert sorted(cell.label for shard in shards for cell in shard) == [cell.label for cell in cells]
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ("compare resnet20", "at least two"),
        ("compare resnet20 renset20", "Did you mean 'resnet20'"),
        ("ablate squeze", "Did you mean 'squeeze'"),
        ("ablate none.yaml", "cannot be read"),
        ("ablate squeeze --seeds 0", "no count and no list"),
        ("ablate squeeze --seeds 3,3", "no count and no list"),
        ("ablate squeeze --shard 0/2", "I from 1 to N"),
        ("ablate squeeze --shard 3/2", "I from 1 to N"),
        ("ablate squeeze --jobs 0", "at least 1"),
        ("ablate squeeze --only maximun", "Did you mean 'maximum'"),
        ("ablate all --only maximun", "Did you mean 'maximum'"),
        ("ablate reduction --se.reduction 4", "the grid sets that itself"),
        ("ablate squeeze --out mine/file", "cannot be written"),
        ("ablate squeeze --model senet154 --recipe digits", "no se_senet154"),
        ("ablate squeeze --recipe digit", "Did you mean 'digits'"),
    ],
)
def test_words_that_are_wrong(words: str, match: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine").touch()
    assert main([*words.split(), *FAKE]) == 1
    assert match in capsys.readouterr().err
    assert not Path("runs").exists()


@pytest.mark.slow
def test_a_failed_run_is_told_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    """A rate without bounds: the loss is not finite, in every cell."""
    words = ["compare", "resnet20", "se_resnet20", *FAKE, "--lr", "1e38", "--seeds", "1", "--jobs", "2"]
    assert main(words) == 1
    said = capsys.readouterr()
    assert "failed" in said.out
    assert "2 runs: they failed, such as resnet20, seed 0" in said.err
    assert "--retry" in said.err
