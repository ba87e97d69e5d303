"""The examples run, in small; and those for a site's scheduler say to senet what they promise."""

import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from examples.finetune import main

EXAMPLES = Path(__file__).parent.parent / "examples"
SBATCH = EXAMPLES / "slurm" / "ablate.sbatch"
KUBERNETES = EXAMPLES / "kubernetes" / "ablate.yaml"

# In place of senet, torchrun and scontrol: writes down its words. With HOLD it then waits for SIGTERM.
STAND_IN = """#!/bin/bash
trap 'exit "$HOLD"' TERM
echo "${0##*/} $*" >> "$CALLS"
if [[ ${0##*/} != scontrol && $HOLD ]]; then
    for _ in {1..200}; do sleep 0.05; done
fi
"""


@pytest.fixture
def calls(tmp_path: Path) -> Path:
    """Where the stand-ins, which lie in a folder ``bin`` beside it, write what they were called with."""
    (tmp_path / "bin").mkdir()
    for name in ("senet", "torchrun", "scontrol"):
        path = tmp_path / "bin" / name
        path.write_text(STAND_IN, encoding="utf-8")
        path.chmod(0o755)
    path = tmp_path / "calls"
    path.touch()
    return path


def started(calls: Path, *words: str, **environment: str) -> subprocess.Popen[bytes]:
    path = f"{calls.parent / 'bin'}:{os.environ['PATH']}"
    return subprocess.Popen(words, env={**os.environ, "PATH": path, "CALLS": str(calls)} | environment)


def task(number: int, first: int = 1, count: int = 4, **more: str) -> dict[str, str]:
    """What SLURM tells a task of an array."""
    return {
        "SLURM_JOB_ID": "77",
        "SLURM_ARRAY_TASK_ID": str(number),
        "SLURM_ARRAY_TASK_MIN": str(first),
        "SLURM_ARRAY_TASK_COUNT": str(count),
    } | more


def test_finetune(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["finetune.py", "--epochs", "1", "--more", "1"])
    main()
    out = capsys.readouterr().out
    assert "largest change of the output: 0\n" in out
    *_, plain, se = out.strip().splitlines()
    assert plain.split()[:3] == ["plain", "0", "269,434"]
    assert se.split()[:3] == ["SE", "0", f"{269_434 + 8_484:,}"]
    gates = [line.split() for line in out.splitlines() if line.startswith("layer") and "residual" not in line]
    assert len(gates) == 9
    assert any(float(spread) > 0 for *_, spread, _, _ in gates), "they have moved"


def test_slurm_tasks_share_the_cells(calls: Path) -> None:
    tasks = [task(1), task(4), task(0, first=0), task(3, first=3, count=1)]
    for each in tasks:
        assert started(calls, "bash", str(SBATCH), "squeeze", "--seeds", "2", **each).wait(20) == 0
    said = calls.read_text(encoding="utf-8").splitlines()
    shards = ["1/4", "4/4", "1/4", "1/1"]
    assert said == [f"senet ablate squeeze --seeds 2 --shard {shard}" for shard in shards]


def test_a_slurm_task_with_several_gpus_calls_torchrun(calls: Path) -> None:
    several = task(2, SLURM_GPUS_ON_NODE="4")
    assert started(calls, "bash", str(SBATCH), "squeeze", **several).wait(20) == 0
    assert started(calls, "bash", str(SBATCH), "squeeze", **task(2, SLURM_GPUS_ON_NODE="1")).wait(20) == 0
    torchrun, alone = calls.read_text(encoding="utf-8").splitlines()
    assert re.fullmatch(r"torchrun .*--nproc_per_node 4 .*-m -- senet ablate squeeze --shard 2/4", torchrun)
    assert alone.startswith("senet ablate")


# Of senet, and of torchrun, which does not hand it on.
@pytest.mark.parametrize("status", ["143", "1"])
def test_a_slurm_task_at_its_time_limit_saves_and_is_queued_again(calls: Path, status: str) -> None:
    process = started(calls, "bash", str(SBATCH), "squeeze", **task(1), HOLD=status)
    _wait_for(calls, "senet")
    process.send_signal(signal.SIGUSR1)
    assert process.wait(20) == int(status)
    assert calls.read_text(encoding="utf-8").splitlines()[1:] == ["scontrol requeue 77"]


def test_a_slurm_task_that_is_over_or_failed_is_not_queued_again(calls: Path) -> None:
    process = started(calls, "bash", str(SBATCH), "squeeze", **task(1), HOLD="0")
    _wait_for(calls, "senet")
    process.send_signal(signal.SIGUSR1)  # it ends well all the same
    assert process.wait(20) == 0
    (calls.parent / "bin" / "senet").write_text("#!/bin/bash\nexit 1\n", encoding="utf-8")
    assert started(calls, "bash", str(SBATCH), "squeeze", **task(1)).wait(20) == 1
    assert "scontrol" not in calls.read_text(encoding="utf-8")


def test_kubernetes_pods_share_the_cells(calls: Path) -> None:
    spec = _job()
    (container,) = spec["template"]["spec"]["containers"]
    variables = {each["name"]: each["value"] for each in container["env"]}
    for index in range(spec["completions"]):
        words = [*container["command"], *container["args"]]
        assert started(calls, *words, **variables, JOB_COMPLETION_INDEX=str(index)).wait(20) == 0
    shards = re.findall(r"^senet ablate .* --shard (\S+)$", calls.read_text(encoding="utf-8"), re.M)
    assert shards == [f"{number}/{spec['completions']}" for number in range(1, spec["completions"] + 1)]


def test_a_kubernetes_pod_that_was_stopped_has_not_failed() -> None:
    spec = _job()
    rules = spec["podFailurePolicy"]["rules"]
    (container,) = spec["template"]["spec"]["containers"]
    codes = {
        code: rule["action"]
        for rule in rules
        if "onExitCodes" in rule and rule["onExitCodes"]["containerName"] == container["name"]
        for code in rule["onExitCodes"]["values"]
    }
    assert codes == {128 + signal.SIGTERM: "Ignore", 2: "FailIndex"}
    assert rules[0]["action"] == "Ignore"
    assert rules[0]["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    assert container["args"][0].startswith("exec "), "SIGTERM has to go to senet, not to the shell"
    mounted = {each["name"] for each in container["volumeMounts"]}
    assert mounted == {each["name"] for each in spec["template"]["spec"]["volumes"]}
    # What Kubernetes asks for beside backoffLimitPerIndex and podFailurePolicy.
    assert spec["completionMode"] == "Indexed"
    assert spec["template"]["spec"]["restartPolicy"] == "Never"


def _job() -> dict[str, Any]:
    job = yaml.safe_load(KUBERNETES.read_text(encoding="utf-8"))
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job")
    spec: dict[str, Any] = job["spec"]
    return spec


def _wait_for(calls: Path, word: str) -> None:
    deadline = time.monotonic() + 20
    while word not in calls.read_text(encoding="utf-8"):
        assert time.monotonic() < deadline, f"{word} was not called"
        time.sleep(0.02)
