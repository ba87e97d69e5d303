import pytest
import torch
from tests.evaluation.networks import Memory

from senet.analysis.worth.prepared import Prepared
from senet.errors import OptionError
from senet.runtime.processes import Processes


def test_images_are_normalised_and_come_again() -> None:
    source = Memory(10, broken=(3,))
    prepared = Prepared(source, Memory.preprocessing, batch_size=4)
    first, second = (list(prepared) for _ in range(2))
    assert len(prepared) == 3
    assert [len(images) for images, _ in first] == [3, 4, 2]
    images, labels = (torch.cat(each) for each in zip(*first, strict=True))
    kept = [index for index in range(10) if index != 3]
    torch.testing.assert_close(images.flatten(1) * 255, torch.from_numpy(source.pixels[kept]).float())
    assert labels.tolist() == source.labels[kept].tolist()
    assert all(torch.equal(a[0], b[0]) for a, b in zip(first, second, strict=True))


def test_some_images_evenly_spaced() -> None:
    source = Memory(10)
    (batch,) = Prepared(source, Memory.preprocessing, most=4)
    assert batch[1].tolist() == source.labels[[0, 2, 5, 7]].tolist()
    with pytest.raises(OptionError, match="images=0"):
        Prepared(source, Memory.preprocessing, most=0)


def test_processes_share_them() -> None:
    source = Memory(10)
    shares = [
        Prepared(source, Memory.preprocessing, batch_size=2, processes=Processes(rank, 2)) for rank in (0, 1)
    ]
    assert [len(share) for share in shares] == [3, 2]
    labels = [torch.cat([each for _, each in share]).tolist() for share in shares]
    assert sorted(labels[0] + labels[1]) == sorted(source.labels.tolist())


def test_batches_of_broken_images_are_left_out() -> None:
    assert len(list(Prepared(Memory(4, broken=(0, 1)), Memory.preprocessing, batch_size=2))) == 1
