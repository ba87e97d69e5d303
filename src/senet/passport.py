"""The passport of a number: what it was measured with, so that it can be measured again."""

from __future__ import annotations

import datetime
import os
import platform
import shlex
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("senet", "torch", "torchvision", "numpy", "pillow", "safetensors", "scikit-learn", "timm")


def passport() -> dict[str, Any]:
    """Command, time, versions and hardware of this process, as JSON and YAML can hold them."""
    import torch

    return {
        "command": f"{program()} {shlex.join(sys.argv[1:])}".strip(),
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": {"python": platform.python_version()} | _versions(),
        "machine": {
            "system": f"{platform.system()} {platform.machine()}",
            "processor": _processor(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
    }


def program() -> str:
    """The running program's name, without the folder it lies in."""
    name = Path(sys.argv[0]).name
    return "python -m senet" if name == "__main__.py" else name


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"
