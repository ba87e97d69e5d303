from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import senet
from senet import weights
from senet.errors import OptionError, WeightsError
from senet.weights.transfer import translated


def test_a_misfit_changes_nothing(tmp_path: Path) -> None:
    weights.save(senet.build("se_resnet20", num_classes=10), tmp_path / "w.safetensors")
    model = senet.build("resnet20", num_classes=5)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(WeightsError, match=r"36 unknown to the network .*2 of another shape .*fc"):
        weights.load(model, tmp_path / "w.safetensors")
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    weights.save(senet.build("resnet20"), tmp_path / "plain.safetensors")
    with pytest.raises(WeightsError, match="36 missing in the file"):
        senet.build("se_resnet20", weights=tmp_path / "plain.safetensors")


def test_a_gate_of_the_other_kind_is_refused(tmp_path: Path) -> None:
    weights.save(senet.build("se_resnet20", se=senet.SEConfig(init="identity")), tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match="one_at_zero"):
        weights.load(senet.build("se_resnet20"), tmp_path / "w.safetensors")


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("se_resnet20", {"placement": "post"}, "placement post, not standard"),
        ("se_resnet18", {"layout": "original"}, "layout original, not modern"),
        ("se_resnet20", {"se": senet.SEConfig(gate="tanh")}, "gate tanh, not sigmoid"),
        ("se_resnet20", {"se": senet.SEConfig(squeeze="max")}, "squeeze max, not avg"),
    ],
)
def test_a_network_that_computes_other_things_is_refused(
    tmp_path: Path, name: str, changes: dict[str, Any], words: str
) -> None:
    weights.save(senet.build(name, **changes), tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match=words):
        weights.load(senet.build(name), tmp_path / "w.safetensors")
    weights.load(senet.build(name, **changes), tmp_path / "w.safetensors")


def test_the_networks_dtype_stays(tmp_path: Path) -> None:
    weights.save(senet.build("resnet20").half(), tmp_path / "w.safetensors")
    for model in (
        senet.load(tmp_path / "w.safetensors"),
        senet.build("resnet20", weights=tmp_path / "w.safetensors"),
    ):
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    save_file(
        {"weight": torch.zeros(2, 3, dtype=torch.int32), "bias": torch.zeros(2)}, tmp_path / "i.safetensors"
    )
    with pytest.raises(WeightsError, match=r"1 of another kind of number \(weight torch\.int32"):
        weights.load(torch.nn.Linear(3, 2), tmp_path / "i.safetensors")


def test_a_classifier_that_is_left_out(tmp_path: Path) -> None:
    saved, model = senet.build("se_resnet20", num_classes=10), senet.build("se_resnet20", num_classes=3)
    weights.save(saved, tmp_path / "w.safetensors")
    fresh = model.state_dict()["fc.weight"].clone()
    with pytest.raises(WeightsError, match=r"2 of another shape .*head=False"):
        weights.load(model, tmp_path / "w.safetensors")
    weights.load(model, tmp_path / "w.safetensors", head=False)
    assert torch.equal(model.state_dict()["fc.weight"], fresh)
    assert torch.equal(model.state_dict()["conv1.weight"], saved.state_dict()["conv1.weight"])
    # As in files for encoders, which have none.
    headless = {key: value for key, value in saved.state_dict().items() if not key.startswith("fc.")}
    torch.save(headless, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"2 missing in the file \(fc\.bias, fc\.weight\)"):
        weights.load(senet.build("se_resnet20"), tmp_path / "w.pth")
    weights.load(model, tmp_path / "w.pth", head=False)


def test_what_was_loaded_says_what_is_known_of_it(tmp_path: Path) -> None:
    weights.save(senet.build("se_resnet20"), tmp_path / "w.safetensors", header={"data": "digits"})
    found = weights.load(senet.build("se_resnet20"), tmp_path / "w.safetensors")
    assert found.layout == "senet"
    assert found.header["data"] == "digits"
    assert "tensors" in str(found)


@pytest.mark.parametrize(
    ("name", "options", "library", "words"),
    [
        ("se_resnet50", {}, "torchvision", "torchvision has no se_resnet50"),
        ("resnet50", {"layout": "original"}, "timm", "the layout modern, this one original"),
        ("se_resnet50", {"layout": "modern"}, "cadene", "the layout original, this one modern"),
        ("se_resnet50", {"placement": "post"}, "timm", "the placement standard, this one post"),
        ("se_resnet50", {"se": senet.SEConfig(gate="tanh")}, "timm", "the gate sigmoid, this one tanh"),
        ("se_resnet50", {"se": senet.SEConfig(bias=False)}, "timm", "its SE blocks have biases"),
        ("se_resnet50", {"stages": (2, 3)}, "timm", "it has SE in every stage"),
        (
            "se_resnet50",
            {"se": senet.SEConfig(init="identity")},
            "timm",
            "no name for layer1.0.se.one_at_zero",
        ),
        ("se_resnet18", {}, "timm", "its hidden width for 64 channels is 8, here it is 4"),
        ("se_vgg16_bn", {}, "timm", "timm has no se_vgg16_bn"),
        ("resnet50", {"shortcut": "pad"}, "torchvision", "this one {'shortcut': 'pad'}"),
    ],
)
def test_what_another_library_does_not_have(
    name: str, options: dict[str, Any], library: str, words: str
) -> None:
    with torch.device("meta"):
        model = senet.build(name, **options)
    # Nothing of a tensor but its shape is looked at, and none is copied.
    model.to_empty(device="cpu")
    with pytest.raises(WeightsError) as error:
        translated(model, library)
    assert words in str(error.value)


def test_a_file_of_another_library_is_its_own(tmp_path: Path) -> None:
    model = senet.build("se_resnet18", se=senet.SEConfig(width_rule="timm"))
    weights.save(model, tmp_path / "w.safetensors", layout="timm")
    theirs = load_file(tmp_path / "w.safetensors")
    assert theirs["layer1.0.se.fc1.weight"].shape == (8, 64, 1, 1)
    with pytest.raises(WeightsError, match="order of the devkit"):
        weights.save(model, tmp_path / "x.safetensors", layout="timm", header={"class_order": "devkit"})
    with pytest.raises(OptionError, match="Did you mean 'timm'"):
        weights.save(model, tmp_path / "x.safetensors", layout="tim")
    with pytest.raises(WeightsError, match="no network of senet"):
        weights.save(torch.nn.Linear(1, 1), tmp_path / "x.safetensors", layout="timm")
    assert not (tmp_path / "x.safetensors").exists()


def test_a_file_of_a_library_goes_into_its_own_networks_too(tmp_path: Path) -> None:
    timm: Any = pytest.importorskip("timm")
    saved, model = (
        timm.create_model("legacy_seresnext26_32x4d"),
        timm.create_model("legacy_seresnext26_32x4d"),
    )
    torch.save(saved.state_dict(), tmp_path / "w.pth")
    weights.load(model, tmp_path / "w.pth")
    assert torch.equal(model.last_linear.weight, saved.last_linear.weight)


def test_timms_own_network_takes_its_own_file(tmp_path: Path) -> None:
    """Its keys are ours, and its shapes are not."""
    timm: Any = pytest.importorskip("timm")
    saved, model = (timm.create_model("seresnet18") for _ in range(2))
    torch.save(saved.state_dict(), tmp_path / "w.pth")
    weights.load(model, tmp_path / "w.pth")
    assert torch.equal(model.layer1[0].se.fc1.weight, saved.layer1[0].se.fc1.weight)


@pytest.mark.parametrize("changes", [{"gate": "hardsigmoid"}, {"squeeze": "max"}])
@pytest.mark.parametrize("built", [True, False], ids=["built", "inserted"])
def test_blocks_that_compute_something_else_are_refused_wherever_they_are(
    tmp_path: Path, changes: dict[str, Any], built: bool
) -> None:
    config = senet.SEConfig(init="identity", **changes)
    model = senet.build("se_resnet20", se=config) if built else senet.build("resnet20")
    if not built:
        senet.insert(model, **changes)
    weights.save(model, tmp_path / "w.safetensors")
    other = senet.build("resnet20")
    senet.insert(other)
    with pytest.raises(WeightsError, match=r"they are of a network with (gate|squeeze)"):
        weights.load(other, tmp_path / "w.safetensors")
    same = senet.build("resnet20")
    senet.insert(same, **changes)
    weights.load(same, tmp_path / "w.safetensors")


@pytest.mark.parametrize(
    "wrap", [torch.nn.DataParallel, torch.optim.swa_utils.AveragedModel], ids=["parallel", "averaged"]
)
def test_a_wrapped_network_is_saved_and_loaded_as_itself(tmp_path: Path, wrap: Any) -> None:
    model = senet.build("se_resnet20", num_classes=3)
    weights.save(wrap(model), tmp_path / "w.safetensors")
    assert senet.load(tmp_path / "w.safetensors").config == model.config
    fresh = senet.build("se_resnet20", num_classes=3)
    wrapped = wrap(fresh)
    weights.load(wrapped, tmp_path / "w.safetensors")
    assert torch.equal(wrapped.module.fc.weight, model.state_dict()["fc.weight"])


def test_a_network_with_a_config_of_its_own_is_any_network(tmp_path: Path) -> None:
    class Config:
        def to_dict(self) -> dict[str, Any]:
            return {"hidden_size": 3}

    model = torch.nn.Linear(3, 2)
    model.config = Config()  # type: ignore[assignment]
    weights.save(model, tmp_path / "w.safetensors")
    assert weights.read(tmp_path / "w.safetensors")[0] == {}
    weights.load(model, tmp_path / "w.safetensors")


def test_what_cannot_be_saved(tmp_path: Path) -> None:
    model = torch.nn.Linear(3, 2)
    with pytest.raises(OptionError, match="JSON cannot hold it"):
        weights.save(model, tmp_path / "w", header={"classes": torch.ones(1)})
    with pytest.raises(OptionError, match="not for others to set"):
        weights.save(model, tmp_path / "w", header={"senet.sha256": "x"})
    with pytest.raises(WeightsError, match="the network is on meta"):
        weights.save(torch.nn.Linear(3, 2, device="meta"), tmp_path / "w")
    assert not list(tmp_path.iterdir())
