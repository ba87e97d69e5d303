import contextlib
import io
import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.conftest import png
from tests.programs import program
from torch.multiprocessing.spawn import start_processes

import senet
from senet.cli import main
from senet.data.preprocessing import Preprocessing


@pytest.fixture
def models(tmp_path: Path, image_folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Two networks for the two classes of the image folder, in the folder that the test runs in."""
    monkeypatch.chdir(tmp_path)
    names = ["a.safetensors", "b.safetensors"]
    for seed, name in enumerate(names):
        torch.manual_seed(seed)
        header = {
            "preprocessing": Preprocessing(3, 16, 18, (0.5,) * 3, (0.25,) * 3).to_dict(),
            "classes": ["cat", "dog"],
            "data": f"folder:{image_folder}",
        }
        senet.weights.save(senet.build("se_resnet20", num_classes=2), name, header=header)
    return names


def _rows(capsys: pytest.CaptureFixture[str], *words: str) -> list[dict[str, Any]]:
    assert main(["eval", *words, "--json"]) == 0
    rows: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return rows


def test_the_average_is_the_last_row(models: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    rows = _rows(capsys, *models)
    assert [row["model"] for row in rows] == [*models, "average of 2"]
    assert rows[0] == _rows(capsys, models[0])[0]
    assert all(row["images"] == 4 and row["broken"] == 0 for row in rows)
    assert main(["eval", *models]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["model", *models, "average"]


def test_sizes_scales_and_crops(models: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    found = {
        words: _rows(capsys, models[0], *words.split())[0]["loss"]
        for words in (
            "",
            "--scales 18",
            "--size 24 --scales 24",
            "--size 24 --scales 24 --squash",
            "--scales 18,32",
            "--scales 18 --crops 10",
        )
    }
    assert found[""] == found["--scales 18"], "the weights say so already"
    assert found["--size 24 --scales 24"] == found["--size 24 --scales 24 --squash"], "they are square"
    assert len(set(found.values())) == 4


def test_broken_images_are_named_and_wrong(
    models: list[str], image_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for index in range(25):
        (image_folder / "val" / "cat" / f"broken{index:02}.png").write_bytes(png(seed=index)[:200])
    assert main(["eval", models[0], "--batch_size", "7", "--json"]) == 0
    printed = capsys.readouterr()
    (row,) = json.loads(printed.out)
    assert (row["images"], row["broken"]) == (29, 25)
    assert row["correct1"] <= 4
    *named, rest = printed.err.splitlines()
    assert [f"broken{index:02}.png" in line for index, line in enumerate(named)] == [True] * 20
    assert rest == "... and 5 more broken images"
    for path in (image_folder / "val").rglob("*.png"):
        path.write_bytes(b"broken")
    assert main(["eval", models[0]]) == 1
    assert "none of the 29 images can be read; reading " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--scales 256,", "Allowed: pixels, such as 256 or 256,288"),
        ("--scales 12", "a crop of 16 pixels does not fit into images resized to 12"),
        ("--size 20", "a crop of 20 pixels does not fit into images resized to 18"),
        ("--crops 5", "Allowed: 1 or 10"),
        ("--size 0", "size=0"),
        ("--preprocessing imagenet,squash=1", "squash=1"),
    ],
)
def test_what_is_not_possible(
    words: str, message: str, models: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", *models, *words.split()]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def _share(rank: int, models: list[str], port: int) -> None:
    torch.set_num_threads(1)
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": 2, "RANK": rank}
    os.environ.update({name: str(value) for name, value in where.items()})
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        status = main(["eval", *models, "--batch_size", "2", "--json"])
    Path(f"{rank}.json").write_text(json.dumps([status, out.getvalue(), err.getvalue()]))


def test_two_processes_share_the_images_and_one_speaks(
    models: list[str], image_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (image_folder / "val" / "dog" / "broken.png").write_bytes(b"broken")
    alone = _rows(capsys, *models, "--batch_size", "2")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # Forked, as the workers of a loader are: what this process has imported, they have.
    start_processes(_share, (models, port), 2, start_method="fork")
    status, out, err = json.loads(Path("0.json").read_text())
    assert status == 0
    assert "broken.png" in err
    for row, wanted in zip(json.loads(out), alone, strict=True):
        assert row == wanted | {"loss": pytest.approx(wanted["loss"], rel=1e-12)}
    assert json.loads(Path("1.json").read_text()) == [0, "", ""]


@pytest.mark.slow
def test_torchrun(models: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    words = ["eval", *models, "--batch_size", "2", "--device", "cpu", "--json"]
    started = ["torch.distributed.run", "--standalone", "--nproc-per-node", "3", "-m", "senet", *words]
    printed = program("-m", *started)
    counts = [[row["images"], row["correct1"], row["correct5"]] for row in json.loads(printed)]
    alone = _rows(capsys, *words[1:-1])
    assert counts == [[row["images"], row["correct1"], row["correct5"]] for row in alone]
