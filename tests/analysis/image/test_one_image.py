import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.analysis.gated import Attention, Functional, attached, inserted, of_timm, of_torchvision
from tests.conftest import png
from torch import Tensor, nn

import senet
from senet.analysis.image.image_gates import ImageGates
from senet.analysis.image.one_image import gates_of_image
from senet.analysis.role.study import GateStudy, study_gates
from senet.analysis.watching import watching
from senet.data.preprocessing import Preprocessing
from senet.data.source import InMemory
from senet.errors import DataError, OptionError, RecordingError

CLASSES = ("cat", "dog", "frog", "absent")
PREPARED = Preprocessing(3, 16, 18, (0.5, 0.4, 0.3), (0.2, 0.25, 0.3))


def _network(**options: Any) -> nn.Module:
    """With blocks whose hidden units are alive: fresh ones often are not, and their gates are all 0.5."""
    network = senet.build("se_resnet20", num_classes=4, **options).eval()
    for module in network.modules():
        if isinstance(module, senet.SqueezeExcitation):
            nn.init.uniform_(module.fc1.bias, 1, 2)
            nn.init.normal_(module.fc2.bias)
    return network


def _image(seed: int = 0, size: int = 24) -> Any:
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size + 6, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def _input(image: Any, prepared: Preprocessing = PREPARED) -> Tensor:
    return prepared.normalise(prepared.evaluation()(image)[None])


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return _network()


@pytest.fixture(scope="module")
def source() -> InMemory:
    """Nine images of each of three classes, all of them dark, green or bright."""
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 100, (27, 18, 18, 3), dtype=np.uint8)
    labels = np.arange(27) % 3
    pixels[labels == 1, ..., 1] += 150
    pixels[labels == 2] += 100
    return InMemory(pixels, labels)


@pytest.fixture(scope="module")
def study(network: nn.Module, source: InMemory) -> GateStudy:
    return study_gates(network, source, PREPARED, CLASSES, network="mine", data="images")


def _plain_se(block: Any, u: Tensor) -> Tensor:
    """Equations 2 and 3, written out."""
    z = u.double().mean((2, 3))
    hidden = (z @ block.fc1.weight.double().T + block.fc1.bias.double()).relu()
    s: Tensor = (hidden @ block.fc2.weight.double().T + block.fc2.bias.double()).sigmoid()
    return s


def test_gates_and_maps_are_the_networks(network: nn.Module) -> None:
    entering: dict[str, Tensor] = {}
    handles = [
        module.register_forward_pre_hook(lambda _, args, name=name: entering.update({name: args[0]}))
        for name, module in network.named_modules()
        if isinstance(module, senet.SqueezeExcitation)
    ]
    x = _input(_image())
    with torch.no_grad():
        network(x)
    for handle in handles:
        handle.remove()
    found = gates_of_image(network, _image(), PREPARED, most=100)
    assert [block.name for block in found.blocks] == list(entering)
    with senet.record_gates(network) as recorded, torch.no_grad():
        scores = network(x)[0].double()
    for block in found.blocks:
        u = entering[block.name]
        torch.testing.assert_close(
            block.s, _plain_se(network.get_submodule(block.name), u)[0], rtol=1e-5, atol=0
        )
        torch.testing.assert_close(block.s, recorded[block.name].mean, rtol=1e-5, atol=0)
        assert block.size == tuple(u.shape[2:])
        shown = {channel.number: channel for channel in (*block.opened, *block.closed)}
        assert len(shown) == block.channels
        for number, channel in shown.items():
            torch.testing.assert_close(channel.before, u[0, number].double(), rtol=1e-4, atol=1e-4)
            assert channel.gate == float(block.s[number])
    probabilities = scores.softmax(0)
    assert [each.number for each in found.predictions] == probabilities.argsort(descending=True).tolist()
    for each in found.predictions:
        assert each.probability == pytest.approx(float(probabilities[each.number]), rel=1e-4)
        assert each.name == f"class {each.number}"


def _gates(network: nn.Module, source: InMemory) -> dict[str, Tensor]:
    """The gates (images, C) of each block, an image at a time."""
    seen: dict[str, list[Tensor]] = {}
    with watching(network, lambda name, s: seen.setdefault(name, []).append(s.double())), torch.no_grad():
        for index in range(len(source)):
            network(_input(source.read(index)[0]))
    return {name: torch.cat(each) for name, each in seen.items()}


@pytest.mark.parametrize("class_", ["dog", 2, "1", "all"])
def test_the_comparison_is_the_plain_one(
    network: nn.Module, source: InMemory, study: GateStudy, class_: str | int
) -> None:
    label = {"dog": 1, 2: 2, "1": 1, "all": None}[class_]
    found = gates_of_image(network, _image(), PREPARED, study=study, class_=class_, most=3)
    assert (found.label, found.images) == (label, 27 if label is None else 9)
    for name, gates in _gates(network, source).items():
        block = next(block for block in found.blocks if block.name == name)
        labels = torch.from_numpy(source.labels)
        group = gates if label is None else gates[labels == label]
        assert block.average is not None
        assert block.average.images == len(group)
        torch.testing.assert_close(block.average.mean, group.mean(0), rtol=1e-5, atol=0)
        torch.testing.assert_close(block.average.std, group.std(0, correction=0), rtol=1e-2, atol=1e-6)
        apart = (block.s - group.mean(0)).numpy()
        assert block.distance == pytest.approx(np.sqrt(np.mean(apart**2)), rel=1e-4)
        assert [each.number for each in block.opened] == [
            c for c in np.argsort(-apart)[:3] if apart[c] > 1e-6
        ]
        assert [each.number for each in block.closed] == [
            c for c in np.argsort(apart)[:3] if apart[c] < -1e-6
        ]
        own = (block.s - gates.mean(0)).numpy()
        classes = [(gates[labels == k].mean(0) - gates.mean(0)).numpy() for k in range(3)]
        correlations = [np.corrcoef(own, each)[0, 1] for each in classes]
        assert block.similarity[:3].tolist() == pytest.approx(correlations, abs=1e-3)
        assert block.similarity[3].isnan()
        assert block.nearest == int(block.similarity[:3].argmax())


def test_without_a_wish_it_is_the_predicted_class_or_all_if_there_are_no_images_of_it(
    source: InMemory,
) -> None:
    network = _network()
    # What is predicted is changed, and no gate.
    study = replace(study_gates(network, source, PREPARED, CLASSES), fingerprint="")
    fc: Any = network.get_submodule("fc")
    with torch.no_grad():
        fc.bias.copy_(torch.tensor([0.0, 0.0, 100.0, 0.0]))
        found = gates_of_image(network, _image(), PREPARED, study=study)
        assert (found.label, found.predictions[0].name, found.images) == (2, "frog", 9)
        fc.bias[3] = 200
        found = gates_of_image(network, _image(), PREPARED, study=study)
        assert (found.label, found.predictions[0].name, found.images) == (None, "absent", 27)


def test_an_image_of_the_study_is_as_far_as_it_says(
    network: nn.Module, source: InMemory, study: GateStudy
) -> None:
    """The root mean square of the distances over the images of a class is the usual one."""
    images = [source.read(index)[0] for index in range(27) if source.labels[index] == 1]
    found = [gates_of_image(network, image, PREPARED, study=study, class_="dog") for image in images]
    for blocks in zip(*(each.blocks for each in found), strict=True):
        distances = [block.distance for block in blocks]
        assert np.sqrt(np.mean(np.square(distances))) == pytest.approx(blocks[0].usual, rel=1e-3, abs=1e-6)


class _Own(Functional):
    """SE in the unit's own forward, and scores after it."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).mean((2, 3))


def _accelerated() -> nn.Module:
    network = _network()
    senet.accelerate(network)
    return network


@pytest.mark.parametrize("make", [inserted, _accelerated, of_timm, of_torchvision, _Own])
def test_any_network_with_se_is_seen_and_left_as_it_was(make: Callable[[], nn.Module]) -> None:
    network = make().train()
    prepared = Preprocessing(3, 32, 32, PREPARED.mean, PREPARED.std)
    state = {name: value.clone() for name, value in network.state_dict().items()}
    before = attached(network)
    found = gates_of_image(network, _image(), prepared, name="mine")
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert all(module.training for module in network.modules())
    assert attached(network) == before
    network.eval()
    x = _input(_image(), prepared)
    with senet.record_gates(network, example=x) as recorded, torch.no_grad():
        scores = network(x)
    assert [block.name for block in found.blocks] == [block.name for block in recorded]
    for block in found.blocks:
        torch.testing.assert_close(block.s, recorded[block.name].mean, rtol=1e-4, atol=1e-5)
        assert all(each.before is not None for each in (*block.opened, *block.closed))
    assert found.predictions[0].number == int(scores.argmax())
    assert found.network == "mine"


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["L", "RGB", "I;16", "RGBA"])
def test_images_are_prepared_as_for_evaluation(tmp_path: Path, channels: int, mode: str) -> None:
    network = _network(in_channels=channels)
    prepared = Preprocessing(channels, 16, 18, (0.5,) * channels, (0.25,) * channels)
    generator = np.random.default_rng(0)
    image = Image.fromarray(generator.integers(0, 65536, (30, 20), dtype=np.uint16))
    if mode != "I;16":
        image = Image.fromarray(generator.integers(0, 256, (30, 20, 3), dtype=np.uint8)).convert(mode)
    image.save(tmp_path / "a.png")
    given, read = (gates_of_image(network, each, prepared) for each in (image, tmp_path / "a.png"))
    assert (given.file, read.file) == ("image", "a.png")
    assert given.image.size == (16, 16)
    assert given.image.mode == ("L" if channels == 1 else "RGB")
    assert given.image.tobytes() == read.image.tobytes()
    assert all(torch.equal(a.s, b.s) for a, b in zip(given.blocks, read.blocks, strict=True))
    assert np.asarray(given.image).std() > 10


def test_what_is_no_image(network: nn.Module, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(png(0)[:-40])
    for path, words in (
        (tmp_path / "broken.png", "no whole image"),
        (tmp_path / "brokn.png", r"No such file.*Did you mean 'broken.png'\?"),
        (tmp_path, "cannot be read"),
        (tmp_path / "no" / "folder.png", "No such file"),
    ):
        with pytest.raises(DataError, match=words):
            gates_of_image(network, path, PREPARED)
    with pytest.raises(DataError, match="known range"):
        gates_of_image(network, Image.new("F", (8, 8)), PREPARED)
    with pytest.raises(OptionError, match="a path or a PIL image"):
        gates_of_image(network, torch.zeros(3, 8, 8), PREPARED)


def test_what_cannot_be_compared(network: nn.Module, study: GateStudy) -> None:
    def found(**options: Any) -> ImageGates:
        return gates_of_image(network, _image(), PREPARED, **options)

    with pytest.raises(OptionError, match=r"class 'fog'.*Did you mean 'frog'\?"):
        found(study=study, class_="fog")
    with pytest.raises(OptionError, match="no images of it"):
        found(study=study, class_="absent")
    with pytest.raises(OptionError, match="no images to compare with"):
        found(class_="cat")
    with pytest.raises(OptionError, match="most=0"):
        found(most=0)
    with pytest.raises(OptionError, match="not those of this network"):
        gates_of_image(_Own(), _image(), PREPARED, study=study)


def test_a_study_of_other_weights_is_no_measure(network: nn.Module, study: GateStudy) -> None:
    other = copy.deepcopy(network)
    with torch.no_grad():
        next(other.parameters()).mul_(1.5)
    with pytest.raises(OptionError, match="other weights"):
        gates_of_image(other, _image(), PREPARED, study=study)


def test_only_the_blocks_that_are_named(network: nn.Module, study: GateStudy) -> None:
    found = gates_of_image(network, _image(), PREPARED, study=study, blocks=["layer3.*"])
    assert [block.name for block in found.blocks] == [f"layer3.{number}.se" for number in range(3)]
    with pytest.raises(OptionError, match="no SE block has such a name"):
        gates_of_image(network, _image(), PREPARED, blocks=["layer9.*"])


class _Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.se = senet.SqueezeExcitation(8, reduction=2)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"out": self.se(self.se(self.conv(x)))}


def test_a_block_that_runs_twice_is_there_twice_and_scores_need_not_be() -> None:
    found = gates_of_image(_Twice(), _image(), PREPARED)
    assert [block.name for block in found.blocks] == ["se", "se (run 2)"]
    assert not torch.equal(found.blocks[0].s, found.blocks[1].s)
    assert found.predictions == ()
    assert found.label is None


def test_of_a_module_that_returns_gates_the_maps_are_not_seen() -> None:
    network = Attention().eval()
    (block,) = gates_of_image(network, _image(), PREPARED, blocks=["gate"]).blocks
    with torch.no_grad():
        s = network.gate(network.conv(_input(_image()))).flatten()
    torch.testing.assert_close(block.s, s.double())
    assert block.size == ()
    assert [each.before for each in block.opened] == [None] * len(block.opened)


def test_gates_that_are_no_numbers_are_an_error() -> None:
    network = _network()
    block: Any = network.get_submodule("layer2.0.se")
    torch.nn.init.constant_(block.fc1.weight, float("nan"))
    with pytest.raises(RecordingError, match=r"'layer2.0.se'.*no numbers"):
        gates_of_image(network, _image(), PREPARED)
    assert not block._gate_hooks


class _Crops(_Own):
    """Looks at two halves of an image."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(torch.cat(x.chunk(2, 2)))


class _Idle(_Own):
    def __init__(self) -> None:
        super().__init__()
        self.se = senet.SqueezeExcitation(8, reduction=2)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.conv(x).mean((2, 3))
        return scores


@pytest.mark.parametrize(("network", "words"), [(_Crops(), "2 samples"), (_Idle(), "no SE block ran")])
def test_blocks_that_do_not_run_once_an_image(network: nn.Module, words: str) -> None:
    with pytest.raises(RecordingError, match=words):
        gates_of_image(network, _image(), PREPARED)


def test_a_constant_gate_is_neither_opened_nor_closed(source: InMemory) -> None:
    network = _network()
    block: Any = network.get_submodule("layer1.0.se")
    torch.nn.init.zeros_(block.fc2.weight)
    study = study_gates(network, source, PREPARED, CLASSES)
    first = gates_of_image(network, _image(), PREPARED, study=study).blocks[0]
    assert (first.opened, first.closed, first.nearest) == ((), (), None)
    assert first.distance == pytest.approx(0, abs=1e-7)
    assert first.deviations is not None
    assert first.deviations.isnan().all()
