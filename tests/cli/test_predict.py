import json
from pathlib import Path

import pytest
from PIL import Image
from tests.detection.small import config

import senet
from senet.cli import main
from senet.detection.job import prepare


@pytest.fixture
def detector(coco_folder: Path, tmp_path: Path) -> str:
    job = prepare(config(coco_folder))
    senet.weights.save(job.state.model, tmp_path / "detector.safetensors", header=job.header())
    return str(tmp_path / "detector.safetensors")


def test_boxes_are_printed_and_drawn(
    detector: str, coco_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = [str(coco_folder / "val2017"), str(coco_folder / "train2017" / "0.png")]
    assert main(["predict", detector, *images, "--out", "found", "--threshold", "0.05"]) == 0
    out = capsys.readouterr().out
    assert out.count("png: ") == 4
    assert out.endswith("4 pictures and objects.json in found\n")
    rows = json.loads(Path("found/objects.json").read_text())
    assert [row["picture"] for row in rows] == ["0.png", "1.png", "2.png", "0-2.png"]
    for row in rows:
        with Image.open(Path("found") / row["picture"]) as picture:
            assert picture.size == (64, 48)
        for each in row["objects"]:
            assert each["label"] in ("red", "blue")
            assert 0 <= each["score"] <= 1
            assert len(each["box"]) == 4


def test_for_programs_and_past_broken_images(
    detector: str, coco_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("broken.jpg").write_bytes(b"no image")
    whole = str(coco_folder / "val2017" / "1.png")
    assert main(["predict", detector, "broken.jpg", "none.jpg", whole, "--json"]) == 0
    captured = capsys.readouterr()
    printed = json.loads(captured.out)
    assert [row["image"] for row in printed["images"]] == [whole]
    assert len(printed["broken"]) == 2
    assert "broken.jpg" in captured.err
    assert "none.jpg" in captured.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["broken.jpg", "--out", "found"], "none of the 1 images can be read"),
        (["empty"], "no image is in this folder"),
        (["broken.jpg", "--threshold", "1.5"], "--threshold=1.5"),
    ],
)
def test_nothing_is_left_of_what_fails(
    words: list[str], said: str, detector: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("broken.jpg").write_bytes(b"no image")
    Path("empty").mkdir()
    assert main(["predict", detector, *words]) == 1
    assert said in capsys.readouterr().err
    assert not Path("found").exists()


def test_pictures_lie_as_the_camera_was_held(detector: str, capsys: pytest.CaptureFixture[str]) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.new("RGB", (64, 48)).save("held.jpg", exif=exif)
    assert main(["predict", detector, "held.jpg", "--out", "found"]) == 0
    with Image.open("found/held.png") as picture:
        assert picture.size == (48, 64)


def test_a_classifier_finds_no_boxes(capsys: pytest.CaptureFixture[str]) -> None:
    senet.weights.save(senet.build("resnet20"), "w.safetensors")
    assert main(["predict", "w.safetensors", "a.jpg"]) == 1
    assert "these are the weights of a classifier" in capsys.readouterr().err
