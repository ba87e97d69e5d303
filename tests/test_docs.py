"""What the documents name exists: files, tests, commands."""

import re
from pathlib import Path

import pytest

import senet
from senet.models import Catalogue

ROOT = Path(__file__).parent.parent
DOCUMENTS = [path for folder in (".", "docs", "benchmarks") for path in sorted((ROOT / folder).glob("*.md"))]
TESTS = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", document.read_text(encoding="utf-8")):
        assert link.startswith("https://") or (document.parent / link).exists(), link


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
