import copy
from typing import Any

import pytest
import torch
from tests.analysis.gated import Gated, images
from torch import Tensor, nn
from torch.nn import functional as F

import senet
from senet.analysis.sites import find_gates
from senet.analysis.watching import holding
from senet.analysis.worth.outcomes import compare, first_images, mean_gates
from senet.errors import DataError, DtypeError, OptionError, RecordingError
from senet.runtime.processes import ALONE, Processes


class Times(nn.Module):
    """Stands for a block whose gates are constant."""

    def __init__(self, gates: Tensor) -> None:
        super().__init__()
        self.gates = gates

    def forward(self, u: Tensor) -> Tensor:
        return u * self.gates[:, None, None]


def _compared(model: nn.Module, loader: Any, variants: Any = (), processes: Processes = ALONE) -> Any:
    sites = find_gates(model, example=torch.ones(2, 16, 4, 4))
    return compare(model, loader, variants, sites, processes=processes, what="")


def test_each_image_is_compared_with_itself() -> None:
    model, loader = Gated(), images(57)
    gates = torch.linspace(0.5, 1, 16)
    found = _compared(model, loader, [{"needed": gates}, {"idle": 1.0, "needed": gates}])
    x, labels = (torch.cat(each) for each in zip(*loader, strict=True))
    before = model(x)
    assert found.untouched.correct1 == int((before.argmax(1) == labels).sum())
    assert found.untouched.loss == pytest.approx(F.cross_entropy(before, labels).item(), rel=1e-6)
    for variant, idle in enumerate((model.idle, nn.Identity())):
        held = copy.deepcopy(model)
        held.idle, held.needed = idle, Times(gates)  # type: ignore[assignment]
        after = held(x)
        outcome = found.outcome(variant)
        for paired, k in ((outcome.top1, 1), (outcome.top5, 5)):
            was, is_ = (scores.topk(k).indices.eq(labels[:, None]).any(1) for scores in (before, after))
            assert (paired.images, paired.lost, paired.gained) == (
                57,
                int((was & ~is_).sum()),
                int((is_ & ~was).sum()),
            )
        rise = F.cross_entropy(after, labels, reduction="none") - F.cross_entropy(
            before, labels, reduction="none"
        )
        half = 1.96 * rise.std(correction=0).item() / 57**0.5
        assert outcome.loss == pytest.approx(rise.mean().item(), rel=1e-5)
        assert outcome.loss_interval == pytest.approx((outcome.loss - half, outcome.loss + half), rel=1e-4)


@pytest.mark.parametrize("batch_size", [1, 7, 20])
def test_the_halves_are_of_about_the_same_size_and_together_all(batch_size: int) -> None:
    loader = images(40, batch_size=batch_size)
    found = _compared(Gated(), loader, [{"needed": 1.0}])
    halves = [found.half(0, half).top1 for half in (0, 1)]
    assert sum(half.images for half in halves) == 40
    assert abs(halves[0].images - 20) <= len(loader) / 2
    assert sum(half.lost for half in halves) == found.outcome(0).top1.lost > 0
    again = _compared(Gated(), loader, [{"needed": 1.0}])
    assert torch.equal(found.sums, again.sums), "an image is in the same half each time"


def test_processes_share_the_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    loader = images(57)
    variants = [{"needed": 1.0}]
    alone = _compared(Gated(), loader, variants)
    monkeypatch.setattr(Processes, "total", lambda self, tensor: tensor)
    shares = [_compared(Gated(), loader[rank::3], variants, Processes(rank, 3)) for rank in range(3)]
    torch.testing.assert_close(sum(share.sums for share in shares), alone.sums, rtol=1e-9, atol=1e-12)
    assert sum(share.untouched.correct1 for share in shares) == alone.untouched.correct1


def test_the_mean_gates_are_those_of_all_images() -> None:
    model, loader = Gated(), images(23)
    sites = find_gates(model, example=loader[0][0])
    found = mean_gates(model, loader, sites, processes=ALONE)
    x = torch.cat([batch for batch, _ in loader])
    torch.testing.assert_close(found["idle"], model.idle.gate(x).double().mean(0))
    u = model.down(model.idle(x))
    torch.testing.assert_close(found["needed"], model.needed.gate(u).double().mean(0), rtol=1e-6, atol=0)


@pytest.mark.parametrize("ours", [True, False])
def test_gates_held_at_those_of_an_image_give_its_outputs(ours: bool) -> None:
    if ours:
        model: nn.Module = senet.build("se_resnet20").eval()
        x = torch.randn(3, 3, 32, 32)
    else:
        vision = pytest.importorskip("torchvision")
        block = vision.ops.SqueezeExcitation(8, 4)
        model = nn.Sequential(nn.Conv2d(3, 8, 3), block, nn.ReLU(), nn.Flatten()).eval()
        x = torch.randn(3, 3, 8, 8)
    sites = find_gates(model, example=x)
    one = [(x[1:2], torch.zeros(1, dtype=torch.int64))]
    gates = mean_gates(model, one, sites, processes=ALONE)
    with torch.inference_mode(), holding(model, gates, sites=sites):
        held = model(x[1:2])
    torch.testing.assert_close(held, model(x[1:2]), rtol=1e-5, atol=1e-6)
    assert not any(module._forward_hooks for module in model.modules())


def test_the_network_is_left_as_it_was() -> None:
    model = Gated().train()
    model.idle.eval()
    _compared(model, images(20), [{"needed": 1.0}])
    assert model.training
    assert not model.idle.training


class Once:
    def __iter__(self) -> Any:
        return self

    def __next__(self) -> Any:
        return images(4)[0]


def test_the_images_must_be_there_each_time() -> None:
    with pytest.raises(OptionError, match=r"loader=Once: it can be iterated only once.*Allowed: a list"):
        first_images(Once())
    with pytest.raises(OptionError, match="only once"):
        first_images(iter(images(4)))
    with pytest.raises(DataError, match="gives no images"):
        first_images([])
    assert first_images(images(4)).shape == (2, 16, 4, 4)


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        (torch.tensor([0, 8]), "from 0 to 8, and scores"),
        (torch.tensor([-1, 3]), "from -1 to 3"),
        (torch.tensor([0.0, 1.0]), "torch.float32"),
        (torch.tensor([[0], [1]]), r"labels \(2, 1\)"),
        (torch.tensor([0, 1, 2]), r"labels \(3,\)"),
    ],
)
def test_labels_must_fit_the_scores(labels: Tensor, found: str) -> None:
    with pytest.raises(DataError, match=f"{found}.*Allowed: labels.*Give the images"):
        _compared(Gated(), [(torch.ones(2, 16, 4, 4), labels)])


def test_images_as_they_are_stored_and_other_batches_are_refused() -> None:
    stored = torch.ones(2, 16, 4, 4, dtype=torch.uint8)
    with pytest.raises(DtypeError, match=r"the images are torch.uint8.*Normalise them"):
        _compared(Gated(), [(stored, torch.zeros(2, dtype=torch.int64))])
    with pytest.raises(DataError, match="the loader gives Tensor"):
        _compared(Gated(), [stored.float()])
    with pytest.raises(DataError, match="gives a single image"):
        _compared(Gated(), images(1))


def test_a_block_that_does_not_run_has_no_mean() -> None:
    class Sometimes(Gated):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) if x.shape[-1] == 4 else x.mean((2, 3))[:, :8]

    model = Sometimes()
    sites = find_gates(model, example=torch.ones(2, 16, 4, 4))
    other = [(torch.ones(2, 16, 6, 6), torch.zeros(2, dtype=torch.int64))]
    with pytest.raises(RecordingError, match="gates of 'idle': the block did not run"):
        mean_gates(model, other, sites, processes=ALONE)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_scores_that_are_no_numbers_are_refused(bad: float) -> None:
    broken = [(x.clone(), labels) for x, labels in images(20)]
    broken[-1][0][0] = bad
    with pytest.raises(RecordingError, match="the network as it is gives NaN or infinite"):
        _compared(Gated(), broken)
    with pytest.raises(RecordingError, match="with constant gates in needed gives NaN"):
        _compared(Gated(), images(20), [{"idle": 1.0}, {"needed": bad}])
    model = Gated()
    with torch.no_grad():
        model.idle.fc2.bias.fill_(float("nan"))
    sites = find_gates(model, example=torch.ones(2, 16, 4, 4))
    with pytest.raises(RecordingError, match="the block idle gives NaN"):
        mean_gates(model, images(4), sites, processes=ALONE)
