import copy
import io
import json
import pickle
import shutil
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.deploy.small import DEFINITIONS, header, network, normed

import senet
from senet.acceleration.comparison import relative_change
from senet.deploy.program import Program, read
from senet.errors import WeightsError


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pt2") / "small.pt2"
    senet.export(network(), path, to="pt2", size="any", header=header())
    return path


def test_it_computes_what_the_network_does(written: Path) -> None:
    model, program = network(), Program(written)
    assert program.input == (-1, 3, -1, -1)
    assert not program.pixels
    assert program.header["classes"] == header()["classes"]
    for batch, size in ((1, 32), (7, 48)):
        images = torch.randn(batch, 3, size, size)
        with torch.no_grad():
            torch.testing.assert_close(
                torch.from_numpy(program(images.numpy())[0]), model(images), rtol=1e-4, atol=1e-5
            )


def test_pytorch_itself_reads_it(written: Path) -> None:
    said = {"senet": ""}
    program = torch.export.load(written, extra_files=said)
    assert json.loads(said["senet"])["network"] == "se_resnet50"
    targets = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    # Nothing of ours, and nothing that PyTorch checks at each run but sizes.
    assert all(target.startswith(("aten.", "<built-in function")) for target in targets)
    assert str(Path(senet.__file__).parent).encode() not in written.read_bytes()


def rewritten(path: Path, to: Path, change: Callable[[str, bytes], tuple[str, bytes]]) -> Path:
    with zipfile.ZipFile(path) as before, zipfile.ZipFile(to, "w") as after:
        for name in before.namelist():
            inside, content = change(name.partition("/")[2], before.read(name))
            after.writestr(f"{name.partition('/')[0]}/{inside}", content)
    return to


def replaced(
    old: str, new: str, *, only: str = "models/model.json"
) -> Callable[[str, bytes], tuple[str, bytes]]:
    def change(inside: str, content: bytes) -> tuple[str, bytes]:
        if inside == only:
            assert old.encode() in content
            content = content.replace(old.encode(), new.encode(), 1)
        return inside, content

    return change


class Evil:
    def __reduce__(self) -> Any:
        return exec, ("raise SystemExit('unpickled')",)


def unpickled(inside: str, content: bytes) -> tuple[str, bytes]:
    if inside == "data/sample_inputs/model.pt":
        file = io.BytesIO()
        torch.save(Evil(), file)
        content = file.getvalue()
    return inside, content


HOSTILE: dict[str, Any] = {
    "a function of PyTorch": replaced("torch.ops.aten.relu.default", "torch.os.system"),
    "a function that opens files": replaced("aten.relu.default", "aten.from_file.default"),
    "a function that moves memory": replaced("aten.relu.default", "aten.set_.source_Storage"),
    "a power": replaced("Integer(1)", "9**9**9"),
    "a power of powers": replaced("Integer(1)", "Pow(9, Pow(9, 9))"),
    "a file of another folder": lambda inside, content: (f"more/{inside}", content),
    "a size that is a program": replaced("Symbol('s", "__import__('s"),
    "an attribute of a size": replaced("Integer(1)", "Integer.x(1)"),
    "a guard": replaced('"guards_code": [', '"guards_code": ["__import__(1)", '),
    "an input of a class": replaced('builtins.tuple', 'posix.system'),
    "pickled weights": replaced(
        '"use_pickle": false', '"use_pickle": true', only="data/weights/model_weights_config.json"
    ),
    "pickled images": unpickled,
    "a library": lambda inside, content: (
        inside.replace("data/weights/weight_0", "data/aotinductor/model/a.so"), content
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_what_a_file_would_run_is_refused(
    name: str, written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(*given: Any, **options: Any) -> None:
        raise AssertionError("it was given to PyTorch")

    path = rewritten(written, tmp_path / "hostile.pt2", HOSTILE[name])
    monkeypatch.setattr(torch.export, "load", opened)
    with pytest.raises(WeightsError, match="this is no whole program of an image network"):
        read(path)


def test_two_files_of_one_name(written: Path, tmp_path: Path) -> None:
    """Python reads the last of them, PyTorch another one."""
    path = tmp_path / "twice.pt2"
    with zipfile.ZipFile(written) as before, zipfile.ZipFile(path, "w") as after:
        for name in (*before.namelist(), before.namelist()[0]):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                after.writestr(name, before.read(name))
    with pytest.raises(WeightsError, match="it holds"):
        read(path)


def test_an_archive_that_is_two(written: Path, tmp_path: Path) -> None:
    """Python takes the directory before the end of the file, PyTorch that which its end points to."""

    def archive(prefix: int, change: Callable[[str, bytes], tuple[str, bytes]]) -> tuple[bytes, int, int]:
        """It, where its directory begins, and how long that is."""
        file = io.BytesIO(bytes(prefix))
        with zipfile.ZipFile(written) as before, zipfile.ZipFile(file, "a") as after:
            for name in before.namelist():
                after.writestr(name, change(name.partition("/")[2], before.read(name))[1])
            begin = after.start_dir
        content = file.getvalue()
        return content, begin, len(content) - begin - 22

    whole, begin, size = archive(0, lambda inside, content: (inside, content))
    _, theirs, _ = archive(0, unpickled)
    hidden, _, _ = archive(begin - theirs, unpickled)
    path = tmp_path / "two.pt2"
    path.write_bytes(hidden[: begin + size] + whole)
    seen = torch._C.PyTorchFileReader(str(path)).get_record("data/sample_inputs/model.pt")
    assert b"exec" in seen
    program, _ = read(path)
    assert isinstance(program.example_inputs[0][0], torch.Tensor)


def test_what_this_process_wrote_may_hold_any_operator(tmp_path: Path) -> None:
    class Sorted(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1).sort().values

    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), Sorted()).eval()
    report = senet.export(model, tmp_path / "sorted.pt2", to="pt2", size=8)
    assert report.nodes["sort"] == 1
    with pytest.raises(WeightsError, match=r"target is 'torch\.ops\.aten\.sort"):
        read(tmp_path / "sorted.pt2")


def test_what_is_damaged(written: Path, tmp_path: Path) -> None:
    whole = written.read_bytes()
    damaged = tmp_path / "damaged.pt2"
    for content in (b"", b"no archive", whole[: len(whole) // 2], pickle.dumps(3)):
        damaged.write_bytes(content)
        with pytest.raises(WeightsError, match="no whole program"):
            read(damaged)
    without = rewritten(
        written,
        damaged,
        lambda inside, content: (inside, b"{}" if inside.endswith("model.json") else content),
    )
    with pytest.raises(WeightsError, match="no whole program"):
        read(without)


@pytest.mark.slow
@pytest.mark.parametrize("name", DEFINITIONS)
def test_every_architecture(name: str, tmp_path: Path) -> None:
    """Bar R23: 1e-6 of the largest number; where a fresh network makes rounding grow, as exact as PyTorch."""
    model = normed(name)
    exact = copy.deepcopy(model).double()
    senet.export(model, tmp_path / "found.pt2", to="pt2", simplify=False)
    program = Program(tmp_path / "found.pt2")
    for batch in (1, 2, 5):
        images = torch.randn(batch, *senet.info(name).input_size)
        with torch.no_grad():
            wanted, ours = exact(images.double()), model(images)
        (given,) = program(images.numpy())
        assert relative_change(wanted, torch.from_numpy(given)) <= max(
            1e-6, 4 * relative_change(wanted, ours)
        )


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="AOTInductor needs a C++ compiler")
@pytest.mark.parametrize("simplify", [True, False])
def test_aotinductor_compiles_it(simplify: bool, tmp_path: Path) -> None:
    """Bar R23: 1e-6 of the largest number, beside PyTorch in float64."""
    model = normed("se_resnet20")
    senet.export(model, tmp_path / "found.pt2", to="pt2", simplify=simplify)
    torch._inductor.aoti_compile_and_package(
        torch.export.load(tmp_path / "found.pt2"), package_path=str(tmp_path / "compiled.pt2")
    )
    compiled = torch._inductor.aoti_load_package(str(tmp_path / "compiled.pt2"))
    exact = copy.deepcopy(model).double()
    for batch in (1, 2, 5):
        images = torch.randn(batch, 3, 32, 32)
        with torch.no_grad():
            assert relative_change(exact(images.double()), compiled(images)) <= 1e-6
