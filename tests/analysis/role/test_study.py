import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.evaluation.networks import Memory
from tests.together import together
from torch import Tensor, nn

import senet
from senet.analysis.role.profiles import BlockProfile
from senet.analysis.role.study import GateStudy, balanced_groups, chosen_images, study_gates
from senet.errors import DataError, OptionError, RecordingError
from senet.runtime.processes import Processes, joined

CLASSES = ("ant", "bee", "cat", "dog")
PREPROCESSING = Memory.preprocessing


class Small(nn.Module):
    """Two SE blocks on maps of two by two."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.conv1, self.conv2 = nn.Conv2d(1, 8, 1), nn.Conv2d(8, 6, 1)
        self.se1, self.se2 = (
            senet.SqueezeExcitation(8, hidden=3),
            senet.SqueezeExcitation(6, hidden=3, gate="tanh"),
        )
        self.drop, self.fc = nn.Dropout(), nn.Linear(6, 4)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        x = self.se1(self.conv1(x))
        x = self.se2(self.conv2(x))
        scores: Tensor = self.fc(self.drop(x.mean((2, 3))))
        return scores

    def gates(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Written out, in float64."""
        u = self.conv1(x)
        v = self.conv2(self.se1(u))
        return self.se1.gate(u).double(), self.se2.gate(v).double()


class Often(Small):
    """Its first block runs twice."""

    def forward(self, x: Tensor) -> Tensor:
        again: Tensor = self.se1(self.conv1(1 - x))
        return super().forward(x) + again.mean()


class Pairs(Small):
    """Its first block sees every image twice at once."""

    def forward(self, x: Tensor) -> Tensor:
        u = self.conv1(x)
        twice: Tensor = self.se1(torch.cat([u, u]))
        return super().forward(x) + twice.mean()


def _study(source: Any, model: nn.Module | None = None, **options: Any) -> GateStudy:
    given = {"batch_size": 8, "network": "small", "data": "memory", **options}
    return study_gates(model or Small(), source, PREPROCESSING, CLASSES, **given)


def _images(source: Memory) -> Tensor:
    return torch.from_numpy(source.pixels).view(-1, 1, 2, 2).float() / 255


def _same(found: BlockProfile, wanted: BlockProfile, rtol: float = 1e-9, atol: float = 1e-9) -> None:
    for name, tensor in wanted.tensors.items():
        torch.testing.assert_close(found.tensors[name], tensor, rtol=rtol, atol=atol, equal_nan=True)


@torch.no_grad()
def test_the_gates_are_the_networks_image_by_image() -> None:
    source = Memory(37, broken=(3, 20))
    model = Small()
    model.fc.eval()
    found = _study(source, model)
    read = [index for index in range(37) if index not in source.broken]
    labels = torch.from_numpy(source.labels)[read]
    assert list(found.blocks) == ["se1", "se2"]
    for profile, s in zip(found.blocks.values(), model.gates(_images(source)[read]), strict=True):
        assert profile.images.tolist() == labels.bincount(minlength=4).tolist()
        torch.testing.assert_close(profile.overall_mean, s.mean(0), rtol=1e-5, atol=1e-6)
        for label in range(4):
            these = s[labels == label]
            torch.testing.assert_close(profile.class_mean[label], these.mean(0), rtol=1e-5, atol=1e-6)
            std = these.std(0, correction=0)
            torch.testing.assert_close(profile.class_std[label], std, rtol=1e-4, atol=1e-6)
        assert profile.opening.images[:, 0].tolist() == [read[index] for index in s.argmax(0).tolist()]
        assert profile.closing.images[:, 0].tolist() == [read[index] for index in s.argmin(0).tolist()]
    assert found.evaluation.images == 37
    assert [why.partition(":")[0] for why in found.evaluation.broken] == [
        "reading image 3",
        "reading image 20",
    ]
    right = model.eval()(_images(source)[read]).argmax(1) == labels
    assert found.evaluation.correct1 == right.sum()


def test_the_network_is_left_as_it_was() -> None:
    model = Small().train()
    model.fc.eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    _study(Memory(9), model)
    assert model.training
    assert model.drop.training
    assert not model.fc.training
    assert not model.se1._gate_hooks
    assert not model._forward_hooks
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_blocks_that_are_named() -> None:
    found = _study(Memory(9), blocks=["se2"])
    assert list(found.blocks) == ["se2"]
    assert found.blocks["se2"].size == (2, 2)
    with pytest.raises(OptionError, match="se3"):
        _study(Memory(9), blocks=["se3"])


def test_a_block_that_runs_twice_has_two_samples_an_image() -> None:
    source = Memory(9)
    found = _study(source, Often())
    once = np.bincount(source.labels, minlength=4)
    assert found.blocks["se1"].images.tolist() == (2 * once).tolist()
    assert found.blocks["se2"].images.tolist() == once.tolist()


def test_samples_that_are_not_images_are_refused() -> None:
    with pytest.raises(RecordingError, match=r"16 samples.*8 images"):
        _study(Memory(9), Pairs())


def test_a_block_that_does_not_run_is_an_error() -> None:
    model = senet.build("se_resnet20", num_classes=4, in_channels=1)
    model.add_module("idle", senet.SqueezeExcitation(8, hidden=2))
    with pytest.raises(RecordingError, match="1 of 10 blocks did not run: idle"):
        _study(Memory(3), model)


def test_no_image_that_can_be_read_is_an_error() -> None:
    with pytest.raises(DataError, match="none of the 2 images can be read"):
        _study(Memory(2, broken=(0, 1)))


def test_some_images_of_each_class() -> None:
    labels = np.array([0, 1, 1, 0, 0, 2, 0, 0, 1])
    assert chosen_images(labels, 2).tolist() == [0, 1, 2, 4, 5]
    assert chosen_images(labels, None).tolist() == list(range(9))
    with pytest.raises(OptionError, match="per_class=0"):
        chosen_images(labels, 0)
    source = Memory(50)
    found = _study(source, per_class=3)
    assert found.blocks["se1"].images.tolist() == [3, 3, 3, 3]
    kept = set(chosen_images(source.labels, 3).tolist())
    extreme = set(found.blocks["se1"].opening.images.flatten().tolist())
    assert extreme <= kept, "they have the numbers of the source"


@pytest.mark.parametrize("order", ["one after the other", "in turn"])
def test_jackknife_groups_do_not_follow_the_classes(order: str) -> None:
    labels = np.repeat(np.arange(5), 23) if order == "one after the other" else np.arange(115) % 5
    groups = balanced_groups(labels, 5)
    table = np.array([[np.sum((labels == k) & (groups == g)) for g in range(5)] for k in range(5)])
    assert set(table.flatten()) == {4, 5}
    assert table.sum(0).max() - table.sum(0).min() <= 2


class Rank(Processes):
    """One of several that know nothing of each other."""

    def gather(self, value: Any) -> list[Any]:
        return [value]

    def total(self, tensor: Tensor) -> Tensor:
        return tensor


@pytest.mark.parametrize("count", [2, 7])
def test_the_shares_of_processes_are_the_whole(count: int) -> None:
    """Of seven, one has no image."""
    source = Memory(45, broken=(3, 20))
    whole = _study(source)
    shares = []
    for rank in range(count):
        try:
            shares.append(_study(source, processes=Rank(rank, count)).blocks)
        except (DataError, RecordingError):
            assert count == 7
    for name, wanted in whole.blocks.items():
        first = shares[0][name]
        for share in shares[1:]:
            first.merge(share[name])
        _same(first, wanted)


def _one_of(folder: Path) -> None:
    with joined(torch.device("cpu")) as processes:
        found = _study(Memory(45, broken=(3, 20)), processes=processes)
    found.save(folder / str(processes.rank))


@pytest.mark.slow
def test_all_processes_get_the_same(tmp_path: Path) -> None:
    together(2, _one_of, tmp_path)
    whole = _study(Memory(45, broken=(3, 20)))
    for rank in range(2):
        found = GateStudy.load(tmp_path / str(rank))
        assert found.evaluation.broken == whole.evaluation.broken
        assert found.evaluation.correct1 == whole.evaluation.correct1
        for name, wanted in whole.blocks.items():
            # Another process may round a gate, which is float32, the other way: 2^-24 near 1.
            _same(found.blocks[name], wanted, rtol=1e-5, atol=1e-6)


def test_what_is_saved_is_read_back(tmp_path: Path) -> None:
    study = _study(Memory(30, broken=(4,)), weights="none", split="train", random=True)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "page.html").write_text("stays")
    study.save(tmp_path / "out", shown=[2])
    names = ["blocks.csv", "claims.csv", "claims.json", "classes.csv", "gates.safetensors", "page.html"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    found = GateStudy.load(tmp_path / "out")
    for name, profile in study.blocks.items():
        _same(found.blocks[name], profile)
        assert found.blocks[name].size == profile.size
    facts = ("network", "weights", "data", "split", "classes", "evaluation", "random", "passport")
    assert all(getattr(found, fact) == getattr(study, fact) for fact in facts)
    assert found.rows == study.rows
    with (tmp_path / "out" / "blocks.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["block"] for row in rows] == ["se1", "se2"]
    assert float(rows[0]["mean_low"]) < float(rows[0]["mean"]) == study.rows[0]["mean"]
    with (tmp_path / "out" / "classes.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == (["all"] * 8 + ["cat"] * 8) + (["all"] * 6 + ["cat"] * 6)
    assert float(rows[9]["mean"]) == study.blocks["se1"].class_mean[2, 1]
    assert float(rows[1]["std"]) == study.blocks["se1"].overall_std[1]
    claims = json.loads((tmp_path / "out" / "claims.json").read_text())
    assert claims == [each.row for each in study.claims]


def test_a_study_from_before_splits_were_kept_is_of_test_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = _study(Memory(12), split="train")
    header = {name: fact for name, fact in study._header().items() if name != "split"}
    monkeypatch.setattr(GateStudy, "_header", lambda self: header)
    study.save(tmp_path)
    assert GateStudy.load(tmp_path).split == "test"


def test_saving_is_whole_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = _study(Memory(12))
    study.save(tmp_path / "out")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}

    def full(*_: Any, **__: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(DataError, match="no space left"):
        _study(Memory(20)).save(tmp_path / "out")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    with pytest.raises(OptionError, match="no class 4"):
        study.save(tmp_path / "out", shown=[4])
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        study.save(tmp_path / "file" / "out")


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no gates\.safetensors"):
        GateStudy.load(tmp_path)
    path = tmp_path / "gates.safetensors"
    senet.weights.save(senet.build("se_resnet20"), path)
    with pytest.raises(DataError, match="of something else"):
        GateStudy.load(tmp_path)
    _study(Memory(12)).save(tmp_path)
    written = path.read_bytes()
    for broken in (b"", written[:-9], written[:-9] + b"\0" + written[-8:]):
        path.write_bytes(broken)
        with pytest.raises(DataError, match="not whole"):
            GateStudy.load(tmp_path)


def test_it_prints_itself() -> None:
    assert "se2" in str(_study(Memory(12)))
