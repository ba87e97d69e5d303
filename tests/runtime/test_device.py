import pytest
import torch

from senet.errors import OptionError
from senet.runtime.device import device_named, free_cores, worker_count


def test_auto_takes_a_gpu_if_there_is_one() -> None:
    assert device_named("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert device_named("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["cuda:99", "gpu", "meta"])
def test_a_device_that_is_not_there(name: str) -> None:
    with pytest.raises(OptionError, match="Allowed: auto, cpu"):
        device_named(name)


def test_workers_help_only_beside_a_gpu() -> None:
    assert worker_count(None, torch.device("cpu")) == 0
    assert 1 <= worker_count(None, torch.device("cuda")) <= 8
    assert worker_count(3, torch.device("cpu")) == 3


def test_each_process_has_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "98")
    with pytest.raises(OptionError, match="device 'cuda:98'"):
        device_named("cuda")
    assert device_named("cpu") == torch.device("cpu")


def test_a_network_on_the_cpu_leaves_the_cores_that_it_does_not_compute_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _process: {*range(8)})
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert [free_cores(torch.device(kind)) for kind in ("cpu", "cuda")] == [5, 8]
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert [free_cores(torch.device(kind)) for kind in ("cpu", "cuda")] == [0, 2]
    assert worker_count(None, torch.device("cuda")) == 1
