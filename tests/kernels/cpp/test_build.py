"""Building when first needed, keeping what was built, and saying why there is nothing."""

import ctypes
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from tests.programs import program

from senet.errors import SenetError
from senet.kernels.cpp import build

SMALL = 'extern "C" int answer() { return 42; }\nextern "C" void senet_threads(void*, void*, void*) {}\n'


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each test asks anew, for a source that compiles at once, in a folder of its own."""
    monkeypatch.setattr(build, "_once", build._once.__wrapped__)
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "tail.cpp").write_text(SMALL)
    monkeypatch.setattr(build, "_HERE", tmp_path / "source")
    monkeypatch.setattr(build, "_SOURCES", ("tail.cpp",))
    monkeypatch.setenv("SENET_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def compiler() -> None:
    try:
        build._compiler()
    except build._BuildError as failure:
        pytest.skip(str(failure))


@pytest.mark.usefixtures("compiler")
def test_it_is_built_once_and_then_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert build.unavailable() is None
    assert build.library().answer() == 42
    (kept,) = (tmp_path / "cache").iterdir()
    monkeypatch.setattr(build, "_compile", lambda *_: pytest.fail("compiled again"))
    assert build.library().answer() == 42
    assert [kept] == list((tmp_path / "cache").iterdir())


@pytest.mark.usefixtures("compiler")
def test_its_name_changes_with_what_it_depends_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = build._compiler()
    names = {build._key(compiler, ["-O2"]), build._key(compiler, ["-O3"])}
    with monkeypatch.context() as other:
        other.setattr(build, "_processor", lambda: "another")
        names.add(build._key(compiler, ["-O3"]))
    (tmp_path / "source" / "tail.cpp").write_text(SMALL + "// changed\n")
    names.add(build._key(compiler, ["-O3"]))
    assert len(names) == 4
    assert build._processor() == build._processor()


@pytest.mark.usefixtures("compiler")
def test_what_was_cut_is_built_again(tmp_path: Path) -> None:
    assert build.unavailable() is None
    (kept,) = (tmp_path / "cache").iterdir()
    # Another file under the same name: the old one is still mapped.
    kept.unlink()
    kept.write_bytes(b"\x7fELF")
    assert build.library().answer() == 42


@pytest.mark.usefixtures("compiler")
def test_a_folder_that_cannot_be_written_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SENET_CACHE", str(tmp_path / "file" / "cache"))
    assert build.library().answer() == 42
    assert not (tmp_path / "cache").exists()


@pytest.mark.usefixtures("compiler")
def test_several_may_build_at_once(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        # Below the lock, as other processes would be.
        built = list(pool.map(lambda _: build._load(), range(4)))
    assert [each.answer() for each in built] == [42] * 4
    assert len(list((tmp_path / "cache").iterdir())) == 1


@pytest.mark.usefixtures("compiler")
def test_flags_that_a_compiler_lacks_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "_TUNINGS", (("-march=unheard-of",), ()))
    assert build.library().answer() == 42


@pytest.mark.usefixtures("compiler")
def test_the_first_error_is_the_reason(tmp_path: Path) -> None:
    (tmp_path / "source" / "tail.cpp").write_text("int answer( { }\n")
    reason = build.unavailable()
    assert reason is not None
    assert "error" in reason
    assert "tail.cpp:1" in reason
    with pytest.raises(SenetError, match=r"tail\.cpp:1"):
        build.library()


def test_a_compiler_that_is_not_there_is_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "/no/such/compiler -m64")
    assert "/no/such/compiler" in str(build.unavailable())
    monkeypatch.setenv("CXX", "")
    monkeypatch.setenv("PATH", "")
    assert "no C++ compiler" in str(build.unavailable())


def test_other_systems_have_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    assert "win32" in str(build.unavailable())


def test_threads_that_cannot_be_shared_are_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "_THREADS", ("no_such_function",))
    assert "PyTorch's threads" in str(build.unavailable())


@pytest.mark.skipif(sys.platform != "linux", reason="for Linux")
def test_the_threads_are_those_of_pytorch() -> None:
    start = build._threads()[0]
    places = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
    of_start = {
        place[-1]
        for place in places
        if int(place[0].split("-")[0], 16) <= start < int(place[0].split("-")[1], 16)
    }
    serving = ctypes.CDLL(of_start.pop())
    assert serving.omp_get_max_threads() == torch.get_num_threads()


def test_importing_builds_nothing(tmp_path: Path) -> None:
    program("-c", "import senet.kernels.cpp")
    assert not (tmp_path / "cache").exists()
