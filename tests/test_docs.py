"""What the documents name exists: files, headings, tests, commands; and what they compute is right."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from jsonargparse import ArgumentParser

import senet
from senet.cli import main
from senet.detection import list_detectors
from senet.experiments.cells import plan
from senet.experiments.grid import grid_named
from senet.models import Catalogue, list_models
from senet.training.config import TrainConfig
from senet.training.recipes import RECIPES

ROOT = Path(__file__).parent.parent
DOCUMENTS = [path for folder in (".", "docs", "benchmarks") for path in sorted((ROOT / folder).glob("*.md"))]
TESTS = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", document.read_text(encoding="utf-8")):
        assert link.startswith("https://") or (document.parent / link).exists(), link


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_to_headings(document: Path) -> None:
    for path, anchor in re.findall(r"\]\(([\w./-]*\.md)?#([^)]+)\)", document.read_text(encoding="utf-8")):
        target = document.parent / path if path else document
        headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.M)
        assert anchor in {re.sub(r"[^\w -]", "", each).lower().replace(" ", "-") for each in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_named_files_and_tests_exist(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    for path in re.findall(r"`((?:tests|docs|benchmarks|src|surveys|examples)/[\w/.]+\.\w+)`", text):
        assert (ROOT / path).exists(), path
    for name in re.findall(r"`(test_\w+)`", text):
        assert f"def {name}(" in TESTS, name


@pytest.mark.slow
def test_the_table_of_networks_is_what_senet_models_prints() -> None:
    text = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    assert f"```\n{Catalogue([senet.info(name) for name in senet.list_models()])}\n```" in text


class _Parsed(Exception):  # noqa: N818 (no error: it ends a command)
    pass


@pytest.mark.parametrize("name", ["reproduce", "experiments"])
def test_commands_are_accepted(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every option exists and takes its value, and so do networks and recipes; nothing is run."""
    parse = ArgumentParser.parse_args

    def stop(self: Any, *args: Any, **more: Any) -> None:
        raise _Parsed(parse(self, *args, **more).as_dict())

    monkeypatch.setattr(ArgumentParser, "parse_args", stop)
    commands = _commands((ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8"))
    assert commands
    for command in commands:
        words = shlex.split(command)
        if words[0] == "models":  # has no parser
            assert words[1] in list_models()
            continue
        with pytest.raises(_Parsed) as found:
            main(words)
        (values,) = found.value.args
        if words[0] in ("train", "compare", "ablate"):
            models = values.get("MODELS") or [values.get("MODEL") or values["model"]]
            assert {*models} <= {*list_models(), *list_detectors()}, command
            assert values["recipe"] in (None, *RECIPES), command


def _commands(text: str) -> list[str]:
    """The words after ``senet`` in the console blocks."""
    blocks = "".join(re.findall(r"```console\n(.*?)```", text, re.S)).replace("\\\n", " ")
    return re.findall(r"^\$ senet (.*)$", blocks, re.M)


@pytest.mark.slow  # multiply-adds of every network
def test_the_hours_of_reproduce_are_computed() -> None:
    """In proportion to the multiply-adds, as ResNet-50 trains at 1,000 images a second."""
    text = (ROOT / "docs" / "reproduce.md").read_text(encoding="utf-8")
    usual = senet.info("resnet50").multiply_adds.total
    rows = re.findall(r"^\| [\d, to]+ \| (`.*`) \| ([\d,]+) × ([\d,]+) \| ([\d.]+) \|$", text, re.M)
    assert len(rows) > 10
    for networks, images, epochs, printed in rows:
        macs = sum(senet.info(name).multiply_adds.total for name in re.findall(r"`(\w+)`", networks))
        seconds = int(images.replace(",", "")) * int(epochs.replace(",", "")) * macs / usual / 1000
        assert f"{seconds / 3600:.{1 if '.' in printed else 0}f}" == printed, networks


def test_the_grid_of_experiments_is_one(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "experiments.md").read_text(encoding="utf-8")
    (written,) = re.findall(r"```yaml\n(.*?)```", text, re.S)
    path = tmp_path / "cutout.yaml"
    path.write_text(written, encoding="utf-8")
    found = plan(grid_named(str(path), "se_resnet20"), TrainConfig(), seeds=[0])
    assert [(cell.config.model, cell.config.recipe.cutout, cell.config.se) for cell in found.cells] == [
        ("resnet20", 0, {}),
        ("se_resnet20", 0, {}),
        ("resnet20", 2, {}),
        ("se_resnet20", 2, {"reduction": 4}),
    ]
    assert {cell.config.recipe.epochs for cell in found.cells} == {30}
