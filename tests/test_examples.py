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
from jsonargparse import ArgumentParser
from torch.distributed.run import get_args_parser

from senet.cli import main as main_of_senet
from senet.data import open_data
from senet.errors import DataError

EXAMPLES = Path(__file__).parent.parent / "examples"
SBATCH = EXAMPLES / "slurm" / "ablate.sbatch"
TRAIN_SBATCH = EXAMPLES / "slurm" / "train.sbatch"
KUBERNETES = EXAMPLES / "kubernetes" / "ablate.yaml"
CLUSTERS = EXAMPLES.parent / "docs" / "clusters.md"
TRAIN_KUBERNETES = EXAMPLES / "kubernetes" / "train.yaml"

# In place of senet, torchrun and SLURM's: writes down its words. With HOLD it then waits for SIGTERM,
# which `scancel --signal TERM` sends to what srun started, as SLURM does.
STAND_IN = """#!/bin/bash
trap 'exit "$HOLD"' TERM
[[ ${0##*/} == srun ]] && echo $$ > "$CALLS.srun"
if [[ "${0##*/} $1" == "scontrol show" ]]; then
    printf '%s\\n' ${3//,/ }
    exit
fi
echo "${0##*/} $*" >> "$CALLS"
echo "$TORCH_DISABLE_SHARE_RDZV_TCP_STORE $TORCH_ELASTIC_SHUTDOWN_TIMEOUT" >> "$CALLS.env"
[[ "${0##*/} $1 $2" == "scancel --signal TERM" ]] && kill -TERM "$(cat "$CALLS.srun")"
if [[ ${0##*/} != sc* && $HOLD ]]; then
    for _ in {1..200}; do sleep 0.05; done
fi
"""


@pytest.fixture
def calls(tmp_path: Path) -> Path:
    """Where the stand-ins, which lie in a folder ``bin`` beside it, write what they were called with."""
    (tmp_path / "bin").mkdir()
    for name in ("senet", "torchrun", "srun", "scontrol", "scancel"):
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


def nodes(*names: str, **more: str) -> dict[str, str]:
    """What SLURM tells a job of some nodes."""
    return {
        "SLURM_JOB_ID": "77",
        "SLURM_JOB_NODELIST": ",".join(names),
        "SLURM_JOB_NUM_NODES": str(len(names)),
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


def test_a_slurm_job_of_several_nodes_calls_torchrun_on_each(calls: Path) -> None:
    words = ["bash", str(TRAIN_SBATCH), "se_resnet20", "--run", "runs/a"]
    four = nodes("here", "there", "far", SLURM_GPUS_ON_NODE="4", SLURM_CPUS_PER_TASK="8", MIN_NODES="2")
    assert started(calls, *words, **four).wait(20) == 0
    assert started(calls, *words, **nodes("here", "there")).wait(20) == 0
    gpus, cpus = (line.split() for line in calls.read_text(encoding="utf-8").splitlines())
    assert gpus[0] == "srun"
    assert {"--no-kill", "--kill-on-bad-exit=0"} <= set(gpus[: gpus.index("torchrun")])
    assert gpus[gpus.index("--cpus-per-task") + 1] == "8"
    launch, words = _launched(gpus[gpus.index("torchrun") + 1 :])
    assert words == ["train", "se_resnet20", "--run", "runs/a", "--auto_resume"]
    assert (launch.nnodes, launch.nproc_per_node) == ("2:3", "4")
    assert (launch.rdzv_backend, launch.rdzv_endpoint, launch.rdzv_id) == ("c10d", "here:10077", "77")
    assert launch.max_restarts > 0
    launch, _ = _launched(cpus[cpus.index("torchrun") + 1 :])
    assert (launch.nnodes, launch.nproc_per_node) == ("1:2", "1")
    share, patience = Path(f"{calls}.env").read_text(encoding="utf-8").splitlines()[0].split()
    # Torch's agents share their store else. And a checkpoint is written in the 300 s that are left.
    assert share == "1"
    assert 30 < int(patience) < 300


# Of torchrun, and of srun where a task was killed.
@pytest.mark.parametrize("status", ["1", "137"])
def test_a_slurm_job_at_its_time_limit_saves_and_is_queued_again(calls: Path, status: str) -> None:
    process = started(calls, "bash", str(TRAIN_SBATCH), "se_resnet20", **nodes("here"), HOLD=status)
    _wait_for(calls, "srun")
    process.send_signal(signal.SIGUSR1)
    assert process.wait(20) == int(status)
    # srun itself would kill all at once.
    stopped = ["scancel --signal TERM 77", "scontrol requeue 77"]
    assert calls.read_text(encoding="utf-8").splitlines()[1:] == stopped


def test_a_slurm_job_that_is_over_failed_or_cancelled_is_not_queued_again(calls: Path) -> None:
    words = ["bash", str(TRAIN_SBATCH), "se_resnet20"]
    process = started(calls, *words, **nodes("here"), HOLD="0")
    _wait_for(calls, "srun")
    process.send_signal(signal.SIGUSR1)  # it ends well all the same
    assert process.wait(20) == 0
    cancelled = started(calls, *words, **nodes("here"), HOLD="1")
    _wait_for(calls, "srun", 2)
    for each in (cancelled.pid, int(Path(f"{calls}.srun").read_text(encoding="utf-8"))):
        os.kill(each, signal.SIGTERM)  # as scancel does without --signal
    assert cancelled.wait(20) == -signal.SIGTERM
    (calls.parent / "bin" / "srun").write_text("#!/bin/bash\nexit 1\n", encoding="utf-8")
    assert started(calls, *words, **nodes("here")).wait(20) == 1
    assert "scontrol" not in calls.read_text(encoding="utf-8")


def test_kubernetes_pods_do_one_run_together(calls: Path) -> None:
    _, job = _objects()
    spec = job["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    variables = {each["name"]: each.get("value", each["name"]) for each in container["env"]}
    for index in range(2):
        words = [*container["command"], *container["args"]]
        assert started(calls, *words, **variables, JOB_COMPLETION_INDEX=str(index)).wait(20) == 0
    first, second = (line.split() for line in calls.read_text(encoding="utf-8").splitlines())
    assert first[0] == "torchrun"
    launch, words = _launched(first[1:])
    assert words[0] == "train"
    assert "--run" in words
    assert words[-1] == "--auto_resume"
    assert launch.nnodes == f"1:{spec['completions']}"
    assert spec["parallelism"] == spec["completions"]
    assert (launch.rdzv_backend, launch.rdzv_id, launch.local_addr) == ("c10d", "RUN", "ADDRESS")
    assert launch.max_restarts > 0
    assert launch.rdzv_conf.startswith("is_host=1,")
    assert _launched(second[1:])[0].rdzv_conf == launch.rdzv_conf.replace("is_host=1", "is_host=0")
    limits = container["resources"]["limits"]
    assert launch.nproc_per_node == str(limits["nvidia.com/gpu"])
    share, patience = Path(f"{calls}.env").read_text(encoding="utf-8").splitlines()[0].split()
    assert share == "1"
    assert 30 < int(patience) < spec["template"]["spec"]["terminationGracePeriodSeconds"]


def test_kubernetes_pods_find_the_first() -> None:
    service, job = _objects()
    name, template = service["metadata"]["name"], job["spec"]["template"]["spec"]
    assert template["subdomain"] == name
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is True
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    (container,) = template["containers"]
    (port,) = service["spec"]["ports"]
    assert f" {job['metadata']['name']}-0.{name}:{port['port']} " in container["args"][0]


def test_a_kubernetes_job_ends_with_its_first_pod() -> None:
    _, job = _objects()
    spec = job["spec"]
    assert spec["successPolicy"] == {"rules": [{"succeededIndexes": "0"}]}
    assert spec["podFailurePolicy"]["rules"][0] == {
        "action": "Ignore",
        "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
    }
    (container,) = spec["template"]["spec"]["containers"]
    codes = {"containerName": container["name"], "operator": "In", "values": [2]}
    assert spec["podFailurePolicy"]["rules"][1:] == [{"action": "FailJob", "onExitCodes": codes}]
    assert container["args"][0].startswith("exec "), "SIGTERM has to go to torchrun, not to the shell"
    mounted = {each["name"] for each in container["volumeMounts"]}
    assert mounted == {each["name"] for each in spec["template"]["spec"]["volumes"]}
    # What Kubernetes asks for beside backoffLimitPerIndex, podFailurePolicy and successPolicy.
    assert spec["completionMode"] == "Indexed"
    assert spec["template"]["spec"]["restartPolicy"] == "Never"


def test_the_words_of_both_are_those_of_senet_train(monkeypatch: pytest.MonkeyPatch) -> None:
    class Parsed(Exception):  # noqa: N818 (no error: it ends a command)
        pass

    parse = ArgumentParser.parse_args

    def stop(self: Any, *args: Any, **more: Any) -> None:
        raise Parsed(parse(self, *args, **more).as_dict())

    monkeypatch.setattr(ArgumentParser, "parse_args", stop)
    for path in (TRAIN_SBATCH, TRAIN_KUBERNETES):
        text = path.read_text(encoding="utf-8")
        (said,) = re.findall(r"-m -- senet train (.*auto_resume)", text)
        with pytest.raises(Parsed) as found:
            main_of_senet(["train", *said.replace('"$@"', "se_resnet50 --run runs/a").split()])
        (values,) = found.value.args
        assert values["MODEL"] == "se_resnet50"
        assert values["auto_resume"]
        assert values["run"]


@pytest.mark.parametrize("path", [TRAIN_SBATCH, TRAIN_KUBERNETES, SBATCH, KUBERNETES, CLUSTERS])
def test_the_data_that_they_name_is_of_a_known_kind(path: Path) -> None:
    named = re.findall(r"--data (\S+)", path.read_text(encoding="utf-8"))
    assert named
    for each in named:
        with pytest.raises(DataError, match="there is no folder"):
            open_data(each)


def _launched(words: list[str]) -> tuple[Any, list[str]]:
    """What torchrun understands, and the words for senet."""
    launch = get_args_parser().parse_args(words)
    assert launch.module
    rest = [word for word in launch.training_script_args if word != "--"]
    assert (launch.training_script, rest[0]) == ("senet", "train")
    return launch, rest


def _objects() -> tuple[dict[str, Any], dict[str, Any]]:
    service, job = yaml.safe_load_all(TRAIN_KUBERNETES.read_text(encoding="utf-8"))
    assert (service["apiVersion"], service["kind"]) == ("v1", "Service")
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job")
    return service, job


def _job() -> dict[str, Any]:
    job = yaml.safe_load(KUBERNETES.read_text(encoding="utf-8"))
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job")
    spec: dict[str, Any] = job["spec"]
    return spec


def _wait_for(calls: Path, word: str, times: int = 1) -> None:
    deadline = time.monotonic() + 20
    while calls.read_text(encoding="utf-8").count(word) < times:
        assert time.monotonic() < deadline, f"{word} was not called"
        time.sleep(0.02)
