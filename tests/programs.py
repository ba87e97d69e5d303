"""Python programs that tests start."""

import subprocess
import sys
from typing import Any


def program(*words: str, **options: Any) -> str:
    """What the program prints. A failure shows all that it printed; that of ``check=True`` shows nothing."""
    command = [sys.executable, *words]
    done: subprocess.CompletedProcess[str]
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, f"exit status {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout
