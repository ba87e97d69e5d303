"""The laws that keep the house in order, read from the source itself."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "senet"

# Data flows down this list; a room imports only from the rooms above it.
ROOMS = [
    "errors",
    "files",
    "tables",
    "passport",
    "paper",
    "kernels",
    "functional",
    "normalisation",
    "tail",
    "block",
    "graph",
    "insertion",
    "acceleration",
    "weights",
    "models",
    "runtime",
    "data",
    "evaluation",
    "training",
    "analysis",
    "report",
    "experiments",
    "detection",
    "deploy",
    "cli",
    "__main__",
]


def _files() -> list[Path]:
    return sorted(path for path in SOURCE.rglob("*.py") if path != SOURCE / "__init__.py")


def _room(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def _imports(path: Path) -> Iterator[str]:
    """The rooms that a file imports from."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
            assert "senet" not in modules, f"{path} imports all of senet: name the room"
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            module = str(node.module)
            modules = [f"senet.{alias.name}" for alias in node.names] if module == "senet" else [module]
        else:
            continue
        yield from (module.split(".")[1] for module in modules if module.startswith("senet."))


@pytest.mark.parametrize("path", _files(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_go_up_the_house(path: Path) -> None:
    room = _room(path)
    assert room in ROOMS, f"{room} is not in the list of rooms"
    for used in _imports(path):
        if used == "__version__":
            continue
        assert ROOMS.index(used) <= ROOMS.index(room), f"{path} imports {used}, which is below {room}"


def test_there_is_no_import_cycle_between_files() -> None:
    names = {
        ".".join(("senet", *path.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__"): path
        for path in _files()
    }
    graph = {
        name: {
            found
            for node in ast.parse(path.read_text()).body
            if isinstance(node, ast.ImportFrom) and node.module
            for found in (node.module, *(f"{node.module}.{alias.name}" for alias in node.names))
            if found in names and found != name
        }
        for name, path in names.items()
    }
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, f"cycle: {' -> '.join((*above, name))}"
        if name not in done:
            # A package's __init__ may gather its own files; those do not import it back.
            for other in graph[name]:
                visit(other, (*above, name))
            done.add(name)

    for name in graph:
        visit(name, ())
    assert done == set(names)


@pytest.mark.parametrize(
    "path",
    [path for path in _files() if path.name not in ("__init__.py", "__main__.py")],
    ids=lambda path: str(path.relative_to(SOURCE)),
)
def test_every_source_file_has_its_test(path: Path) -> None:
    mirror = ROOT / "tests" / path.relative_to(SOURCE)
    assert mirror.with_name(f"test_{mirror.name}").exists()


@pytest.mark.parametrize("path", _files(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_no_file_is_too_long(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400


def _checks(node: ast.AST) -> bool:
    called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
    return isinstance(node, ast.Assert) or bool(
        re.search(r"^pytest\.raises$|assert_close$|^(_|bars\.)check_\w+$", called)
    )


def test_every_test_can_fail() -> None:
    idle = []
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            is_test = isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
            if is_test and not any(_checks(inner) for inner in ast.walk(node)):
                idle.append(f"{path.name}: {ast.unparse(node).splitlines()[0]}")
    assert not idle


def test_untrusted_files_are_never_unpickled() -> None:
    unsafe = (
        r"weights_only=False|pickle\.loads?\(|torch\.load\((?!.*weights_only=True)|yaml\.load\(|dcp\.load\("
    )
    for path in _files():
        assert not re.search(unsafe, path.read_text()), path
