"""The README is true: its snippets run, its commands exist; and so do the snippets of some documents."""

import re
import shlex
from pathlib import Path

import pytest

from senet.cli import VERBS, main

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
DOCUMENTS = [
    (Path(__file__).parent.parent / "docs" / f"{name}.md").read_text(encoding="utf-8")
    for name in (
        "acceleration cost deploy detection evaluation gates inference models sensitivity weights".split()
    )
]
SNIPPETS = re.findall(r"```python\n(.*?)```", "".join([README, *DOCUMENTS]), re.S)
COMMANDS = [
    line.split("#")[0].split("&&")[-1].strip()
    for block in re.findall(r"```console\n(.*?)```", README, re.S)
    for line in block.splitlines()
    if re.match(r"\$ (.*&& )?(\S*/)?senet ", line)
]


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_snippets_run(
    snippet: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if re.search(r"^[^#]*senet\.export", snippet, re.M):
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    if "import openvino" in snippet:
        pytest.importorskip("openvino")
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    exec(compile(snippet, "README.md", "exec"), namespace)
    printed = capsys.readouterr().out
    outputs = re.findall(r"# prints: (.*)", snippet)
    assert outputs, "a snippet says what it prints"
    for wanted in outputs:
        assert wanted in printed


def test_there_are_snippets_and_commands() -> None:
    assert SNIPPETS
    assert len(COMMANDS) >= 3


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_run(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shard_folder: Path, image_folder: Path
) -> None:
    """As written, but for fewer epochs, and small images of ours where a folder is named."""
    monkeypatch.chdir(tmp_path)
    words = shlex.split(command.removeprefix("$ "))
    assert words[0].endswith("senet")
    folders = {"shards:DIR": f"shards:{shard_folder}", "folder:DIR": f"folder:{image_folder}"}
    folders["photos/"] = str(image_folder)
    if words[1] in ("export", "quantize"):
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    replaced = [folders.get(word, word) for word in words[1:]]
    if "--resume" in replaced:
        assert main(["train", "--epochs", "1", "--run", replaced[-1]]) == 0
    elif replaced[0] == "train":
        replaced = [*replaced, "--epochs", "1", "--batch_size", "4" if "--data" in replaced else "64"]
    elif replaced[1].startswith("runs/"):
        run = replaced[1].removesuffix("/last.safetensors")
        assert main(["train", "--epochs", "1", "--run", run]) == 0
    elif replaced[0] == "quantize":
        assert main(["train", "--epochs", "1", "--run", "a"]) == 0
        assert main(["export", "a", "--out", "a.onnx"]) == 0
        replaced += ["--most_lost", "100"]
    assert main(replaced) == 0


def test_every_verb_is_named() -> None:
    for verb in VERBS:
        assert f"senet {verb}" in README
