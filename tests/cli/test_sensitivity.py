import contextlib
import csv
import io
import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.multiprocessing.spawn import start_processes

import senet
from senet.cli.sensitivity import _said, sensitivity
from senet.data.preprocessing import Preprocessing
from senet.errors import DataError, OptionError


@pytest.fixture
def model(tmp_path: Path, image_folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A network for the two classes of the image folder, in the folder that the test runs in."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    header = {
        "preprocessing": Preprocessing(3, 16, 18, (0.5,) * 3, (0.25,) * 3).to_dict(),
        "classes": ["cat", "dog"],
        "data": f"folder:{image_folder}",
    }
    senet.weights.save(senet.build("se_resnet20", num_classes=2), "a.safetensors", header=header)
    return "a.safetensors"


def _found(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    sensitivity([*words, "--device", "cpu", "--json"])
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_the_table_and_the_rows(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = _found(capsys, model, "--blocks", "layer3.*", "--out", "rows.csv")
    assert found["untouched"]["images"] == 4
    assert (found["network"], found["weights"], found["random"]) == (model, model, False)
    assert "command" in found["passport"]
    assert {row["what"] for row in found["rows"]} >= {
        "layer3.0.se",
        "layer3.1.se",
        "layer3.2.se",
        "all blocks",
    }
    with Path("rows.csv").open() as file:
        assert [row["what"] for row in csv.DictReader(file)] == [row["what"] for row in found["rows"]]
    sensitivity([model, "--blocks", "layer3.2.se", "--images", "3"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("3 images: top-1 ")
    assert lines[4].startswith("layer3.2.se  580 (24%)")


def test_what_is_proposed_is_folded_measured_again_and_saved(
    model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (model, "--blocks", "layer3.*", "--tolerance", "100", "--apply", "small.safetensors")
    found = _found(capsys, *words)
    gates, applied = found["proposal"]["gates"], found["applied"]
    assert sorted(gates) == ["layer3.0.se", "layer3.1.se", "layer3.2.se"]
    assert (applied["file"], applied["parameters saved"]) == ("small.safetensors", 3 * 580)
    smaller = senet.load("small.safetensors")
    parameters = [
        sum(each.numel() for each in network.parameters()) for network in (senet.load(model), smaller)
    ]
    assert parameters[0] - parameters[1] == 3 * 580
    again = _found(capsys, "small.safetensors", "--blocks", "layer1.0.se")
    assert again["untouched"]["top1"] == applied["top1"]
    assert again["untouched"]["images"] == 4
    assert _said(applied).startswith(
        "small.safetensors: 1,740 parameters fewer; measured again on all 4 images"
    )


def test_where_nothing_is_proposed_nothing_is_written(
    model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Any change at all is too much.
    monkeypatch.setattr("senet.analysis.worth.paired.Paired.change", property(lambda self: -1.0))
    sensitivity([model, "--blocks", "layer3.2.se", "--apply", "small.safetensors"])
    assert capsys.readouterr().out.endswith("Nothing is proposed, so nothing was written.\n")
    assert not Path("small.safetensors").exists()


def test_random_weights_are_called_so(
    model: str, image_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sensitivity(["se_resnet20", "--data", f"folder:{image_folder}", "--blocks", "layer3.2.se"])
    assert capsys.readouterr().out.startswith("The weights are random: only the mechanics are seen.\n")


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        ("--blocks layer9", OptionError, "no SE block has such a name"),
        ("--out rows.txt", OptionError, "Allowed: .csv, .json, .md"),
        ("--out nowhere/rows.csv", DataError, "there is no folder nowhere"),
        ("--apply nowhere/small.safetensors", DataError, "there is no folder nowhere"),
        ("--apply small.bin", OptionError, "Allowed: .safetensors"),
        ("--blocks ,", OptionError, "--blocks ',': no name is in it"),
        ("--images 0", OptionError, "--images=0"),
        ("--recorded 0", OptionError, "--recorded=0"),
        ("--batch_size 0", OptionError, "--batch_size=0"),
        ("--tolerance -1", OptionError, "tolerance=-1"),
    ],
)
def test_what_is_not_possible(words: str, error: type[Exception], message: str, model: str) -> None:
    with pytest.raises(error, match=message):
        sensitivity([model, *words.split()])


def test_a_network_that_no_file_rebuilds_is_not_applied(model: str, image_folder: Path) -> None:
    pytest.importorskip("torchvision")
    words = ["torchvision:mobilenet_v3_small", "--data", f"folder:{image_folder}", "--apply", "x.safetensors"]
    with pytest.raises(OptionError, match=r"how to rebuild this network.*Fold in Python: senet.fold_gates"):
        sensitivity(words)


def _share(rank: int, words: list[str], port: int) -> None:
    torch.set_num_threads(1)
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": 2, "RANK": rank}
    os.environ.update({name: str(value) for name, value in where.items()})
    with contextlib.redirect_stdout(io.StringIO()) as out:
        sensitivity(words)
    Path(f"{rank}.json").write_text(out.getvalue())


def test_two_processes_share_the_images_and_one_speaks(
    model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [model, "--blocks", "layer3.2.se", "--batch_size", "2", "--device", "cpu", "--json"]
    alone = _found(capsys, *words[:-3])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # Forked, as the workers of a loader are: what this process has imported, they have.
    start_processes(_share, (words, port), 2, start_method="fork")
    found = json.loads(Path("0.json").read_text())
    for row, wanted in zip(found["rows"], alone["rows"], strict=True):
        assert row == {key: pytest.approx(value, abs=1e-6) for key, value in wanted.items()}
    assert Path("1.json").read_text() == ""
