import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from senet.experiments.owner import Owner, _started


def test_this_process_is_there() -> None:
    here = Owner.here()
    assert here == Owner.here()
    assert here.pid == os.getpid()
    assert here.is_alive() is True
    assert str(os.getpid()) in str(here)


def test_a_process_that_ended_is_gone_also_before_its_parent_notices() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert process.stdin
    other = replace(Owner.here(), pid=process.pid, started="0")
    assert other.is_alive() is False, "another process has its number now"
    other = replace(other, started=_started(process.pid))
    assert other.is_alive() is True
    process.stdin.close()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert other.is_alive() is False
    process.wait()
    assert other.is_alive() is False


_FIRST_THREAD_ENDS = """
import ctypes, os, threading
threading.Thread(target=lambda: (input(), os._exit(0))).start()
ctypes.CDLL(None).syscall({"x86_64": 60, "aarch64": 93}[os.uname().machine], 0)
"""


@pytest.mark.skipif(os.uname().machine not in ("x86_64", "aarch64"), reason="the system call is not known")
def test_a_process_is_there_until_its_last_thread_has_ended() -> None:
    process = subprocess.Popen([sys.executable, "-c", _FIRST_THREAD_ENDS], stdin=subprocess.PIPE)
    assert process.stdin
    status = Path(f"/proc/{process.pid}/stat")
    while ") Z" not in status.read_text():
        time.sleep(0.005)
    owner = replace(Owner.here(), pid=process.pid, started=_started(process.pid))
    assert owner.is_alive() is True
    process.stdin.write(b"\n")
    process.stdin.close()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert owner.is_alive() is False
    process.wait()


def test_of_another_system_nothing_is_certain() -> None:
    gone = replace(Owner.here(), started="0")
    assert gone.is_alive() is False
    for other in (replace(gone, boot="b"), replace(gone, namespace="n"), replace(gone, user=-1)):
        assert other.is_alive() is None


def test_nor_where_the_system_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_path: str) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(os, "readlink", none)
    here = Owner.here()
    assert here.namespace is None
    assert here.is_alive() is None
