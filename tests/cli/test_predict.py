import csv
import json
import os
from pathlib import Path

import pytest
from PIL import Image
from tests.data.broken import encoded, zeros_png
from tests.deploy.small import preprocessing
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
    Path("found/mine.png").touch()
    rows = json.loads(Path("found/objects.json").read_text())
    assert [row["picture"] for row in rows] == ["0.png", "1.png", "2.png", "0-2.png"]
    for row in rows:
        with Image.open(Path("found") / row["picture"]) as picture:
            assert picture.size == (64, 48)
        for each in row["objects"]:
            assert each["label"] in ("red", "blue")
            assert 0 <= each["score"] <= 1
            assert len(each["box"]) == 4
    assert main(["predict", detector, images[1], "--out", "found"]) == 0
    assert sorted(os.listdir("found")) == ["0.png", "mine.png", "objects.json"], "none of the start before"


def test_for_programs_and_past_broken_images(
    detector: str, coco_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("broken.jpg").write_bytes(b"no image")
    whole = str(coco_folder / "val2017" / "1.png")
    Path("none.jpg").touch()
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
        (["broken.jpg", "--out", "found"], "reading the image"),
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


@pytest.fixture
def classifier() -> str:
    header = {"classes": ["cat", "dog", "\x1b[31mhorse", "ship"], "preprocessing": preprocessing().to_dict()}
    senet.weights.save(senet.build("se_resnet20", num_classes=4), "w.safetensors", header=header)
    return "w.safetensors"


def test_a_folder_is_named_alike_by_weights_and_exported_files(
    classifier: str, image_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = []
    for package in ("onnxscript", "onnxruntime", "openvino"):
        pytest.importorskip(package)
    for file in ("a.onnx", "a.pt2"):
        assert main(["export", classifier, "--out", file, "--pixels"]) == 0
    capsys.readouterr()
    for model, *engine in ((classifier,), ("a.onnx",), ("a.onnx", "--engine", "openvino"), ("a.pt2",)):
        assert main(["predict", model, str(image_folder), *engine, "--json", "--batch_size", "3"]) == 0
        found.append(json.loads(capsys.readouterr().out)["images"])
    assert len(found[0]) == 10
    assert found[0][0]["image"].endswith("train/cat/0.png")
    for rows in found:
        for row, wanted in zip(rows, found[0], strict=True):
            assert row["image"] == wanted["image"]
            assert [each["label"] for each in row["classes"]] == [each["label"] for each in wanted["classes"]]
            for each, other in zip(row["classes"], wanted["classes"], strict=True):
                assert each["probability"] == pytest.approx(other["probability"], abs=1e-4)


def rows_of(name: str) -> list[dict[str, str]]:
    with Path(name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_rows_in_files(classifier: str, image_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("found.csv", "found.json"):
        assert main(["predict", classifier, str(image_folder / "val"), "--top", "2", "--out", name]) == 0
    out = capsys.readouterr().out
    assert out.count("val/cat/0.png: ") == 2
    assert "\x1b" not in out
    rows = rows_of("found.csv")
    assert list(rows[0]) == ["image", "class_1", "probability_1", "class_2", "probability_2"]
    nested = json.loads(Path("found.json").read_text())
    assert [row["class_1"] for row in rows] == [each["classes"][0]["label"] for each in nested["images"]]
    assert nested["broken"] == []
    assert len(rows) == 4


def test_a_hostile_folder(classifier: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path("hostile")
    folder.mkdir()
    (folder / "whole.png").write_bytes(encoded("RGB", "PNG"))
    (folder / "line\nbreak \x1b[2J.png").write_bytes(encoded("RGB", "PNG"))
    with open(os.fsencode(folder / "no text ") + b"\xff\xfe.png", "wb") as file:
        file.write(encoded("L", "PNG"))
    (folder / "empty.png").touch()
    (folder / "._whole.png").write_bytes(b"of macOS")
    (folder / ".thumbnails").mkdir()
    (folder / ".thumbnails" / "whole.png").write_bytes(encoded("RGB", "PNG"))
    (folder / "half.png").write_bytes(encoded("RGB", "PNG")[:60])
    (folder / "bomb.png").write_bytes(zeros_png(60_000, 60_000, whole=False))
    (folder / "program.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0")
    (folder / "gone.png").symlink_to("nowhere")
    (folder / "round.png").symlink_to("round.png")
    (folder / "folder.png").mkdir()
    (folder / "endless.png").symlink_to("/dev/zero")
    os.mkfifo(folder / "pipe.png")
    with (folder / "huge.png").open("wb") as file:
        file.truncate(2**31)
    assert main(["predict", classifier, "hostile", "--out", "found.csv"]) == 0
    out, err = capsys.readouterr()
    *lines, empty, last = out.splitlines()
    assert (empty, last) == ("", "3 of 12 images in found.csv")
    assert [line.partition(": ")[0] for line in lines] == [
        r"hostile/line\nbreak \x1b[2J.png",
        r"hostile/no text \udcff\udcfe.png",
        "hostile/whole.png",
    ]
    for name in ("empty", "half", "bomb", "program", "gone", "round", "endless", "pipe", "huge"):
        assert f"{name}.png" in err
    assert "folder.png" not in out + err
    assert "._whole" not in err
    rows = rows_of("found.csv")
    assert len(rows) == 3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["a.jpg"], "reading the image"),
        (["b.jpg", "a.jpg"], "predict b.jpg: there is no such file or folder"),
        (["a.jpg", "--top", "0"], "--top=0"),
        (["a.jpg", "--threshold", "0.5"], "--threshold is not for a classifier"),
        (["a.jpg", "--out", "found.txt"], "--out found.txt"),
        (["a.jpg", "--out", "folder.csv"], "there is a folder of that name"),
        (["a.jpg", "--engine", "openvino"], "None, for a network that is not exported"),
        (["a.jpg", "--preprocessing", "imagenet,size=0"], "size"),
    ],
)
def test_a_classifier_says_what_it_cannot(
    words: list[str], said: str, classifier: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("a.jpg").touch()
    Path("folder.csv").mkdir()
    assert main(["predict", classifier, *words]) == 1
    assert said in capsys.readouterr().err
    assert not list(Path().glob("found*"))


def test_a_detector_names_no_classes(
    detector: str, coco_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", detector, str(coco_folder / "val2017"), "--top", "3"]) == 1
    assert "--top is not for a detector" in capsys.readouterr().err


def test_weights_that_say_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    senet.weights.save(senet.build("se_resnet20"), "w.safetensors")
    Path("a.png").write_bytes(encoded("RGB", "PNG"))
    assert main(["predict", "w.safetensors", "a.png"]) == 1
    assert "Give --preprocessing" in capsys.readouterr().err
    words = ["--preprocessing", "imagenet,size=32,resize=32", "--json"]
    assert main(["predict", "w.safetensors", "a.png", *words]) == 0
    (row,) = json.loads(capsys.readouterr().out)["images"]
    assert len(row["classes"]) == 5
    assert all(0 <= each["number"] < 1000 for each in row["classes"])
