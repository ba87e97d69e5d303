import errno
import json
import os
import random
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from tests.experiments import racing

from senet.errors import DataError, InUseError, RunError, StoppedError
from senet.experiments.claims import Claim, Claims, Phase
from senet.experiments.owner import Owner

QUICK = 0.01


def _taken(claims: Claims, key: str = "a", **options: Any) -> Claim:
    claim = claims.take(key, **{"lost": _nothing, "orphaned": _nothing} | options)
    assert claim is not None
    return claim


def _nothing() -> None:
    pass


def _asleep(claims: Claims) -> Claim:
    """A claim on the cell "a" of a process that sleeps."""
    claim = _taken(claims)
    claim._over.set()
    claim._heart.join()
    return claim


def _phase(claims: Claims, key: str = "a") -> str:
    return claims.state(key).phase.value


def _history(claims: Claims, key: str = "a") -> list[str]:
    folder = claims.folder / key
    count = len([path for path in folder.iterdir() if path.name.isdecimal()])
    return [json.loads((folder / str(1 + number)).read_text())["entry"] for number in range(count)]


def _until(holds: Callable[[], object], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.005)


def _age(claims: Claims, seconds: float, entry: str = "a/1") -> None:
    path = claims.folder / entry
    os.utime(path, (path.stat().st_mtime - seconds,) * 2)


@pytest.fixture
def claims(tmp_path: Path) -> Claims:
    return Claims(tmp_path / "claims")


@pytest.fixture
def far(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every process is on a machine of its own."""
    here = Owner.here()
    monkeypatch.setattr(Owner, "here", lambda: replace(here, boot=secrets.token_hex(8)))


def test_a_cell_has_one_owner_until_it_is_done(claims: Claims) -> None:
    assert claims.state("a").phase is Phase.OPEN
    assert not claims.folder.exists(), "looking writes nothing"
    others = Claims(claims.folder)
    with _taken(claims) as claim:
        state = others.state("a")
        assert (state.phase, state.owner) == (Phase.RUNNING, str(Owner.here()))
        assert 0 <= state.age < 20
        assert claims.take("a") is None
        assert others.take("a") is None
        claim.check()
        claim.done()
    assert _history(claims) == ["taken", "done"]
    assert _phase(others) == "done"
    assert others.take("a", retry=True) is None
    assert {path.name for path in (claims.folder / "a").iterdir()} == {"1", "2"}, "nothing is left over"


@pytest.mark.parametrize(
    "error",
    [None, KeyboardInterrupt(), SystemExit(143), StoppedError("asked"), InUseError("a run", "in use")],
)
def test_a_cell_that_is_left_is_open_again(claims: Claims, error: BaseException | None) -> None:
    def leave() -> None:
        with _taken(claims):
            if error:
                raise error

    if error:
        with pytest.raises(type(error)):
            leave()
    else:
        leave()
    assert _phase(claims) == "open"
    _taken(claims).release()
    assert _history(claims) == ["taken", "released"] * 2


def test_any_other_error_is_a_failure_of_the_cell(claims: Claims) -> None:
    with pytest.raises(ZeroDivisionError), _taken(claims):
        _ = 1 / 0
    assert claims.state("a").why == "ZeroDivisionError: division by zero"
    _taken(claims, "c").fail_by(DataError("the images", "they are gone"))
    assert claims.state("c").why == "the images: they are gone."
    with _taken(claims, "b") as claim:
        claim.fail("no memory")
        claim.release()
    assert claims.state("b").why == "no memory", "what was said first holds"
    assert _history(claims, "b") == ["taken", "failed"]


def test_what_failed_is_tried_again_when_asked_and_once(claims: Claims) -> None:
    _taken(claims).fail("a bad day")
    assert claims.take("a") is None
    assert claims.take("a", retry=True) is None, "it has failed since these claims were made"
    _age(claims, 1, "a/2")
    again = Claims(claims.folder)
    _taken(again, retry=True).fail("another")
    assert again.take("a", retry=True) is None
    assert claims.state("a").why == "another"
    _age(claims, 1, "a/4")
    assert Claims(claims.folder, since=time.monotonic() - 3600).take("a", retry=True) is None


def test_an_ended_cell_can_be_opened(claims: Claims) -> None:
    claims.reopen("never")
    _taken(claims).done()
    claims.reopen("a")
    assert _phase(claims) == "open"
    claim = _taken(claims)
    claims.reopen("a")
    assert _phase(claims) == "running", "what runs is not"
    claim.release()
    assert _history(claims) == ["taken", "done", "released", "taken", "released"]


@pytest.mark.usefixtures("far")
def test_an_owner_without_sign_of_life_loses_the_cell(claims: Claims) -> None:
    first = _asleep(claims)
    _age(claims, 290)
    assert _phase(claims) == "running"
    assert claims.state("a").age >= 290
    _age(claims, 11)
    assert _phase(claims) == "open"
    second = _taken(Claims(claims.folder))
    with pytest.raises(RunError, match="lost"):
        first.check()
    with pytest.raises(RunError, match="lost"):
        first.done()
    first.fail("too late")
    first.release()
    assert _phase(claims) == "running"
    second.done()
    assert _history(claims) == ["taken", "taken", "done"]


def test_on_this_machine_one_that_sleeps_keeps_it(claims: Claims) -> None:
    _asleep(claims)
    _age(claims, 10_000)
    assert _phase(claims) == "running"


@pytest.mark.usefixtures("far")
def test_only_one_takes_a_stale_cell_over(claims: Claims, monkeypatch: pytest.MonkeyPatch) -> None:
    first = _asleep(claims)
    _age(claims, 400)
    others = Claims(claims.folder)
    number, entry = others._last("a")
    second = _taken(claims)
    monkeypatch.setattr(others, "_last", lambda _key: (number, entry))
    monkeypatch.setattr(others, "_state", lambda *_args: claims.state("nobody's"))
    assert others.take("a") is None, "what it saw is no longer so"
    second.release()
    first.release()
    assert _history(claims) == ["taken", "taken", "released"]


@pytest.mark.usefixtures("far")
def test_a_living_owner_shows_it(tmp_path: Path) -> None:
    claims = Claims(tmp_path, beat=QUICK)
    with _taken(claims):
        _age(claims, 1000)
        _until(lambda: claims.state("a").phase is Phase.RUNNING)
        assert claims.state("a").age < 10


def test_progress_is_told(tmp_path: Path) -> None:
    claims = Claims(tmp_path, beat=QUICK)
    with _taken(claims) as claim:
        assert claims.state("a").progress == {}
        claim.progress(epoch=1, epochs=3)
        claim.progress(epoch=2, test_top1=53.5)
        wanted = {"epoch": 2, "epochs": 3, "test_top1": 53.5}
        _until(lambda: claims.state("a").progress == wanted)
        with pytest.raises(TypeError):
            claim.progress(epoch=object())
        claim.release()
    assert _taken(claims) is not None
    assert claims.state("a").progress == {}, "each owner tells its own"


@pytest.mark.usefixtures("far")
def test_an_owner_learns_that_it_was_taken_over(tmp_path: Path) -> None:
    claims = Claims(tmp_path, beat=QUICK)
    found: list[bool] = []
    claim = _taken(claims, lost=lambda: found.append(True))
    _taken(Claims(tmp_path, patience=-1))
    _until(lambda: found)
    assert claim.is_lost
    with pytest.raises(RunError, match="this process has lost it"):
        claim.done()


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOENT])
def test_an_owner_that_cannot_show_that_it_lives_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    claims = Claims(tmp_path, beat=QUICK, patience=0.2 if error == errno.EIO else 1000)
    found: list[bool] = []
    claim = _taken(claims, lost=lambda: found.append(True))
    if error == errno.ENOENT:
        shutil.rmtree(tmp_path)
    else:

        def broken(*_args: object) -> None:
            raise OSError(error, os.strerror(error))

        monkeypatch.setattr(os, "utime", broken)
    _until(lambda: found)
    assert claim.is_lost


def test_an_orphan_is_told_once_and_keeps_its_cell(tmp_path: Path) -> None:
    found: list[str] = []
    claims = Claims(tmp_path, beat=QUICK, parent=os.getppid())
    with _taken(claims, orphaned=lambda: found.append("a")) as claim:
        time.sleep(5 * QUICK)
        assert not found
        claim.done()
    claims = Claims(tmp_path, beat=QUICK, parent=1 + os.getppid())
    with _taken(claims, "b", orphaned=lambda: found.append("b")) as claim:
        _until(lambda: found)
        time.sleep(5 * QUICK)
        claim.done()
    assert found == ["b"]


def test_by_default_a_process_asks_itself_to_stop(tmp_path: Path) -> None:
    asked: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _frame: asked.append(number))
    try:
        claim = Claims(tmp_path, beat=QUICK, parent=-1).take("a")
        _until(lambda: asked)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert asked == [signal.SIGTERM]
    assert claim is not None
    claim.release()


def test_a_dead_owner_of_this_machine_is_known_at_once(claims: Claims) -> None:
    gone = replace(Owner.here(), started="0")
    for key, owner in (("a", gone), ("b", replace(gone, boot="another"))):
        (claims.folder / key).mkdir(parents=True)
        entry = {"entry": "taken", "owner": asdict(owner)}
        (claims.folder / key / "1").write_text(json.dumps(entry))
    assert _phase(claims, "a") == "open"
    assert _phase(claims, "b") == "running", "of another machine's nothing is known but its age"


def test_a_file_system_without_links_will_do(claims: Claims, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_args: object) -> None:
        raise PermissionError(errno.EPERM, "not here")

    monkeypatch.setattr(os, "link", link)
    others = Claims(claims.folder)
    monkeypatch.setattr(others, "_state", lambda *_args: claims.state("nobody's"))
    monkeypatch.setattr(others, "_last", lambda _key: (0, {}))
    with _taken(claims) as claim:
        assert claims.take("a") is None
        assert others.take("a") is None
        claim.done()
    assert _history(claims) == ["taken", "done"]
    (claims.folder / "b").mkdir()
    (claims.folder / "b" / "1").write_text('{"entry": "ta')
    assert (claims.state("b").phase, claims.state("b").owner) == (Phase.RUNNING, "unknown")
    _age(claims, 400, "b/1")
    assert _phase(claims, "b") == "open", "its writer was killed"


def test_a_lost_answer_of_a_network_is_no_loss(claims: Claims, monkeypatch: pytest.MonkeyPatch) -> None:
    link = os.link

    def twice(*args: Any) -> None:
        link(*args)
        link(*args)

    monkeypatch.setattr(os, "link", twice)
    with _taken(claims) as claim:
        claim.done()
    assert _phase(claims) == "done"


def test_errors_say_what_to_do(claims: Claims, monkeypatch: pytest.MonkeyPatch) -> None:
    claims.folder.write_text("a file")
    for attempt in (claims.state, claims.take, claims.reopen):
        with pytest.raises(RunError, match=r"cell a.*: the folder of claims cannot be used .*--out"):
            attempt("a")
    claims.folder.unlink()
    claim = _taken(claims)

    def full(*_args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", full)
        with pytest.raises(RunError, match="No space left"):
            claim.done()
        with pytest.raises(RunError, match="No space left"):
            claims.take("b")
    claim.done()
    assert _phase(claims) == "done", "there is room again"


def test_looking_at_many_cells_is_cheap(claims: Claims, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [str(number) for number in range(20)]
    for key in keys:
        _taken(claims, key).done()
    looks, listdir = [], os.listdir

    def counting(path: str) -> list[str]:
        looks.append(path)
        return listdir(path)

    for key in keys:
        claims.state(key)
    monkeypatch.setattr(os, "listdir", counting)
    monkeypatch.setattr(Path, "open", None)  # what was read once is not read again
    assert {_phase(claims, key) for key in keys} == {"done"}
    assert len(looks) == 20


Begin = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def begin() -> Iterator[Begin]:
    """Starts processes of racing.py, and ends them all."""
    started = []

    def start(*words: object) -> subprocess.Popen[str]:
        started.append(racing.start(*words))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()


def _histories(folder: Path, processes: Sequence[subprocess.Popen[str]], keys: int) -> str:
    """The histories of cells that were all done once, which is checked; one a line."""
    for process in processes:
        said, _ = process.communicate(timeout=120)
        assert process.returncode == 0, said
    claims = Claims(folder / "claims")
    lines = []
    for name in (f"key{number}" for number in range(keys)):
        *before, owned, last = _history(claims, name)
        assert (owned, last) == ("taken", "done"), "only an owner says that it is done"
        assert set(before) <= {"taken", "released"}, "and then it is"
        assert (folder / "results" / name).exists()
        lines.append(" ".join((*before, owned, last)))
    return "\n".join(lines)


def _check_race(folder: Path, begin: Begin, keys: int, seed: int) -> None:
    racing.prepare(folder)
    running = [begin("race", folder, keys, seed + number) for number in range(8)]
    assert "taken released taken" in _histories(folder, running, keys)


def test_processes_that_race_share_the_cells(tmp_path: Path, begin: Begin) -> None:
    _check_race(tmp_path, begin, keys=30, seed=0)


@pytest.mark.slow
def test_they_do_so_time_and_again(tmp_path: Path, begin: Begin) -> None:
    for number in range(20):
        _check_race(tmp_path / str(number), begin, keys=30, seed=8 * number)


def _kill(folder: Path, begin: Begin, keys: int, kills: int) -> str:
    """The histories of cells whose owners were killed, one of eight at a time, at random."""
    rng = random.Random(0)
    racing.prepare(folder)
    running = [begin("race", folder, keys, number) for number in range(8)]
    _until(lambda: any((folder / "results").iterdir()))
    for number in range(kills):
        time.sleep(rng.uniform(0, 0.1))
        place = rng.randrange(8)
        running[place].kill()
        assert running[place].wait() in (0, -signal.SIGKILL)
        running[place] = begin("race", folder, keys, 8 + number)
    return _histories(folder, running, keys)


def test_what_the_killed_leave_is_taken_over_once(tmp_path: Path, begin: Begin) -> None:
    assert _kill(tmp_path, begin, keys=60, kills=5)


@pytest.mark.slow
def test_so_it_is_after_many_kills(tmp_path: Path, begin: Begin) -> None:
    assert _kill(tmp_path, begin, keys=1500, kills=100).count("taken taken") > 5


@pytest.mark.usefixtures("far")
def test_who_slept_too_long_has_lost_the_cell(tmp_path: Path, begin: Begin) -> None:
    process = begin("hold", tmp_path, 0.02)
    assert process.stdout
    assert process.stdout.readline() == "taken\n"
    claims = Claims(tmp_path / "claims", patience=0.4)
    assert claims.take("a") is None
    process.send_signal(signal.SIGSTOP)
    _until(lambda: claims.state("a").phase is Phase.OPEN)
    with _taken(claims) as claim:
        process.send_signal(signal.SIGCONT)
        assert process.stdout.read() == "lost\nrefused\n"
        claim.done()
    assert _history(claims) == ["taken", "taken", "done"]
