import copy
from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor, nn

from senet import normalisation
from senet.kernels.reference import Tail, tail
from senet.runtime.processes import joined
from tests.tails import random_tail
from tests.together import together

timm = pytest.importorskip("timm")


def _through(norm: nn.Module, u: Tensor) -> Tensor:
    """The norm in steps: statistics, a tail whose gates are one, update."""
    how = normalisation.statistics(norm, u)
    weight, bias, eps = normalisation.affine(norm)
    spec = Tail(how.kind, outer="identity", eps=eps, one_at_zero=True)
    c = u.shape[1]
    tensors = random_tail(Tail("none"), tuple(u.shape))._replace(
        u=u, residual=None, weight=weight, bias=bias, mean=how.mean, variance=how.variance,
        w1=torch.zeros(2, c).to(u), b1=None, w2=torch.zeros(c, 2).to(u), b2=None,
    )  # fmt: skip
    result = tail(spec, tensors)
    normalisation.update(norm, result.mean, result.variance)
    return result.out


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"momentum": None},
        {"momentum": 0.7},
        {"affine": False},
        {"track_running_stats": False},
        {"eps": 0.1},
    ],
)
@pytest.mark.parametrize(("kind", "rank"), [(nn.BatchNorm1d, 1), (nn.BatchNorm2d, 2), (nn.BatchNorm3d, 3)])
def test_in_steps_it_is_the_module(
    kind: type[nn.Module], rank: int, options: dict[str, object], training: bool
) -> None:
    norm = kind(3, **options).double().train(training)
    nn.init.normal_(norm.weight) if options.get("affine", True) else None  # type: ignore[arg-type]
    other = copy.deepcopy(norm)
    for _ in range(3):
        u = torch.randn(4, 3, *(5,) * rank, dtype=torch.float64) + 1
        torch.testing.assert_close(_through(other, u), norm(u))
    assert other.state_dict().keys() == norm.state_dict().keys()
    torch.testing.assert_close(other.state_dict(), norm.state_dict())


def test_frozen_norms_never_change() -> None:
    norm = torchvision.ops.FrozenBatchNorm2d(3).double()
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    before = copy.deepcopy(norm.state_dict())
    u = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    assert normalisation.is_batch_norm(norm)
    torch.testing.assert_close(_through(norm.train(), u), norm(u))
    torch.testing.assert_close(norm.state_dict(), before)


def test_one_number_a_channel_is_pytorchs_error() -> None:
    for run in (nn.BatchNorm2d(3), lambda u: normalisation.statistics(nn.BatchNorm2d(3), u)):
        with pytest.raises(ValueError, match="Expected more than 1 value per channel when training"):
            run(torch.randn(1, 3, 1, 1))


def test_a_synchronised_norm_alone_is_an_ordinary_one() -> None:
    norm = nn.SyncBatchNorm(3)
    assert normalisation.is_batch_norm(norm)
    assert normalisation.statistics(norm, torch.randn(2, 3, 4, 4)).group is None


def test_which_modules_are_known() -> None:
    own = timm.layers.BatchNormAct2d(4)
    assert normalisation.is_batch_norm(own)
    assert isinstance(normalisation.activation_within(own), nn.ReLU)
    assert normalisation.activation_within(timm.layers.BatchNormAct2d(4, apply_act=False)) is None
    assert normalisation.activation_within(nn.BatchNorm2d(4)) is None
    assert not normalisation.is_batch_norm(nn.GroupNorm(2, 4))
    assert not normalisation.is_batch_norm(timm.layers.BatchNormAct2d(4, drop_layer=nn.Dropout))

    class Mine(nn.BatchNorm2d):
        pass

    assert not normalisation.is_batch_norm(Mine(4))


def _shared(folder: Path, affine: bool, momentum: float | None) -> None:
    with joined(torch.device("cpu")) as processes:
        norm = nn.Sequential(nn.BatchNorm2d(3, affine=affine, momentum=momentum)).double()
        assert normalisation.share_statistics(norm) == 1
        # Shares of different sizes, and a mean far from zero.
        share = MAPS.tensor_split(processes.count)[processes.rank].clone().requires_grad_()
        for _ in range(2):
            out = norm(share)
        (out * out.detach().sin()).sum().backward()
        gradients = [processes.total(each.grad) for each in norm.parameters() if each.grad is not None]
        found = [processes.gather(each) for each in (out.detach(), share.grad)]
        if processes.leads:
            tensors = [*(torch.cat(each) for each in found), *gradients, *norm.buffers()]
            torch.save(tensors, folder / "found.pt")


MAPS = 30 + torch.randn(7, 3, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize(("affine", "momentum"), [(True, 0.3), (False, None)])
def test_shared_statistics_are_those_of_the_whole_batch(
    tmp_path: Path, affine: bool, momentum: float | None
) -> None:
    together(3, _shared, tmp_path, affine, momentum)
    norm = nn.BatchNorm2d(3, affine=affine, momentum=momentum).double()
    whole = MAPS.clone().requires_grad_()
    for _ in range(2):
        out = norm(whole)
    (out * out.detach().sin()).sum().backward()
    wanted = [out.detach(), whole.grad, *(each.grad for each in norm.parameters()), *norm.buffers()]
    found = torch.load(tmp_path / "found.pt", weights_only=True)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-11)


def test_a_shared_norm_keeps_keys_tensors_and_mode() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Sequential(nn.BatchNorm2d(4))).eval()
    before = dict(model.state_dict(keep_vars=True))
    assert normalisation.share_statistics(model) == 2
    after = dict(model.state_dict(keep_vars=True))
    assert after.keys() == before.keys()
    assert all(after[key] is before[key] for key in before)
    assert not model[1].training
    assert normalisation.is_batch_norm(model[1])
    x = torch.randn(2, 3, 5, 5)
    plain = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Sequential(nn.BatchNorm2d(4)))
    plain.load_state_dict(model.state_dict())
    torch.testing.assert_close(model.train()(x), plain(x), rtol=0, atol=0)


@pytest.mark.parametrize("momentum", [0.1, None])
def test_an_empty_batch_has_no_statistics(momentum: float | None) -> None:
    for counted in (True, False):
        ours, theirs = (nn.BatchNorm2d(3, momentum=momentum) for _ in range(2))
        if not counted:
            ours.num_batches_tracked = theirs.num_batches_tracked = None
        for u in (torch.randn(4, 3, 2, 2), torch.randn(0, 3, 2, 2), torch.randn(4, 3, 2, 2)):
            _through(ours, u)
            theirs(u)
        torch.testing.assert_close(ours.state_dict(), theirs.state_dict())


def test_a_class_of_the_same_name_is_not_known() -> None:
    class FrozenBatchNorm2d(nn.Module):
        """As others have it, without eps."""

    assert not normalisation.is_batch_norm(FrozenBatchNorm2d())
    assert normalisation.is_batch_norm(torchvision.ops.FrozenBatchNorm2d(3))
