"""What a network's training step sends and keeps: counted where it is sent, without a second process."""

# Without annotations from the future: DDP looks whether those of its hook are types.
import copy
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, distributed, nn
from torch._C._distributed_c10d import GradBucket, HashStore
from torch.futures import Future
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

import senet
from senet import SqueezeExcitation
from senet.runtime.processes import ALONE, Processes
from senet.training.checkpoints import Checkpoints
from senet.training.classification import prepare
from senet.training.config import Recipe, TrainConfig
from senet.training.job import trained


def sent(name: str, size: int) -> dict[str, Any]:
    """What a step sends: bytes of each bucket, by DDP's own hook, and of the buffers; where SE's part is.

    Args:
        name: of ``senet models``.
        size: height and width of the images.

    Raises:
        SystemExit: the buckets are not all gradients, each once.
    """
    model = senet.build(name)
    x, labels = torch.randn(2, 3, size, size), torch.tensor([0, 1])
    with _alone():
        buckets = Buckets(model, lambda network: F.cross_entropy(network(x), labels))
    gradients = sum(each.nbytes for each in model.parameters())
    if sum(buckets.sizes) != gradients:
        raise SystemExit(f"{name}: {sum(buckets.sizes):,} bytes in buckets, {gradients:,} of parameters")
    return {
        "network": name,
        "gradient bytes": gradients,
        "of SE": sum(_of_se(model).values()),
        "of SE by stage": {str(stage): count for stage, count in _of_se(model).items()},
        "buckets": buckets.sizes,
        "ready": buckets.ready,
        "buffer bytes": sum(each.nbytes for each in buckets.buffers),
        "broadcasts": len({each.dtype for each in buckets.buffers}),
        "flag bytes": _flag_bytes(),
        "norms": sum(isinstance(each, nn.modules.batchnorm._BatchNorm) for each in model.modules()),
        "multiply-adds": senet.info(name).multiply_adds.total,
    }


class Buckets:
    """What DDP sends of a network: seen by a hook that sends nothing, on a copy.

    ``sizes`` are the bytes of each bucket in their order, ``ready`` the share of the backward's multiply-adds
    that is done when it is complete, ``buffers`` what the first process gives all others before the forward.

    Args:
        model: the network; the process is in a group.
        loss: of the network as it is called.
    """

    def __init__(self, model: nn.Module, loss: Callable[[nn.Module], Tensor]) -> None:
        self.buffers: list[Tensor] = []
        own = copy.deepcopy(model)
        products: dict[nn.Parameter, int] = {}

        def count(module: Any, _inputs: Any, output: Tensor) -> None:
            products[module.weight] = output.numel() * module.weight[0].numel()

        for each in own.modules():
            if isinstance(each, nn.Conv2d | nn.Linear):
                each.register_forward_hook(count)
        found: list[tuple[int, list[Tensor]]] = []

        def note(_state: None, bucket: GradBucket) -> Future[Tensor]:
            found.append((bucket.buffer().nbytes, bucket.parameters()))
            done: Future[Tensor] = Future()
            done.set_result(bucket.buffer())
            return done

        def note_buffers(_group: Any, tensors: Sequence[Tensor], *_more: Any) -> None:
            self.buffers[:] = tensors

        network = DistributedDataParallel(own)
        network.register_comm_hook(None, note)
        # After the first backward DDP lays the buckets out anew, in the order in which gradients came.
        for _ in range(2):
            found.clear()
            with mock.patch("torch.distributed._broadcast_coalesced", note_buffers):
                loss(network).sum().backward()  # type: ignore[no-untyped-call]
        self.sizes = [size for size, _ in found]
        self.ready: list[float] = []
        # In the order of the forward: what is behind the first layer of a bucket has its gradient already.
        order = {id(parameter): place for place, parameter in enumerate(products)}
        work = list(products.values())
        first = len(work)
        for _, parameters in found:
            first = min([first, *(order[id(each)] for each in parameters if id(each) in order)])
            self.ready.append(sum(work[first:]) / sum(work))


def kept(name: str, turns: int) -> dict[str, Any]:
    """A checkpoint: bytes, and the seconds to write and to read it back; the median and the extremes.

    Raises:
        SystemExit: what is read is not what was written.
    """
    model = senet.build(name)
    state, _ = trained(model, TrainConfig(model=name, recipe=Recipe()), ALONE)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    state.optimizer.step()  # so that there is momentum
    tensors, facts = state.tensors(), state.facts()
    writing, reading = [], []
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Checkpoints(Path(folder))
        for _ in range(turns):
            facts["step"] += 1
            started = time.perf_counter()
            checkpoints.save(tensors, facts)
            writing.append(time.perf_counter() - started)
            started = time.perf_counter()
            found = checkpoints.load(print)
            reading.append(time.perf_counter() - started)
            if found is None or not all(torch.equal(found[0][key], each) for key, each in tensors.items()):
                raise SystemExit(f"{name}: the checkpoint read is not the one written")
        size = checkpoints.paths()[0].stat().st_size
    return {
        "checkpoint bytes": size,
        "write s": statistics.median(writing),
        "write s, all": sorted(writing),
        "read s": statistics.median(reading),
        "read s, all": sorted(reading),
    }


def image_bytes(folder: Path) -> dict[str, Any]:
    """Bytes of an image, compressed: the files of a folder; None where there is none."""
    sizes = sorted(path.stat().st_size for path in folder.glob("**/*.jpg")) if folder.is_dir() else []
    if not sizes:
        return {"images": 0, "mean": None, "median": None}
    return {"images": len(sizes), "mean": statistics.mean(sizes), "median": statistics.median(sizes)}


def bytes_to_device(size: int) -> float:
    """Bytes of an image and its label as a loader gives them, before they are normalised."""
    recipe = Recipe(batch_size=4, epochs=1)
    data = f"fake:3x{size}x{size},images=8,classes=2"
    job = prepare(TrainConfig(model="se_resnet20", data=data, recipe=recipe, workers=0, image_size=size))
    (batch,) = next(job.steps())
    return float(batch.images.nbytes + batch.labels.nbytes) / len(batch.labels)


def _of_se(model: nn.Module) -> dict[int, int]:
    """Bytes of the parameters of SE blocks, by the paper's stage."""
    found: dict[int, int] = {}
    for name, module in model.named_modules():
        if isinstance(module, SqueezeExcitation):
            stage = int(model.stage_of(name) or 0)  # type: ignore[operator]
            found[stage] = found.get(stage, 0) + sum(each.nbytes for each in module.parameters())
    return dict(sorted(found.items()))


def _flag_bytes() -> int:
    """Bytes that a step agrees on: is its loss lost, is a checkpoint due, does somebody ask for the end?"""
    found: list[Tensor] = []

    def note(_self: Processes, tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    with mock.patch.object(Processes, "total", note):
        ALONE.any(False, False, False)
    return found[0].nbytes


@contextmanager
def _alone() -> Iterator[None]:
    """A group of one process."""
    distributed.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        distributed.destroy_process_group()
