import pytest
import torch

from senet.kernels.layout import dense, is_channels_last, memory_format


@pytest.mark.parametrize(
    ("shape", "last"), [((2, 3, 4, 5), torch.channels_last), ((2, 3, 4, 5, 6), torch.channels_last_3d)]
)
def test_the_two_dense_layouts_are_told_apart(shape: tuple[int, ...], last: torch.memory_format) -> None:
    u = torch.randn(shape)
    assert memory_format(u) is torch.contiguous_format
    assert memory_format(u.contiguous(memory_format=last)) is last
    assert is_channels_last(u.contiguous(memory_format=last))
    # Of one channel, or one position, both are the same.
    assert not is_channels_last(u[:, :1].contiguous(memory_format=last))


def test_what_is_not_dense_becomes_so_and_what_is_stays() -> None:
    u = torch.randn(2, 3, 8, 8)
    assert dense(u, u) is u
    assert dense(u[..., ::2], u[..., ::2]).is_contiguous()
    last = u.contiguous(memory_format=torch.channels_last)
    assert dense(u.expand_as(u), last).is_contiguous(memory_format=torch.channels_last)
    assert dense(torch.ones(1).expand(2, 3, 8), torch.ones(2, 3, 8)).stride() == (24, 8, 1)
