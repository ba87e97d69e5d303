import sys
from pathlib import Path

import pytest
import torchvision
from torch import nn

import senet
from senet.errors import MissingExtraError, OptionError
from senet.models.foreign import is_foreign


@pytest.mark.parametrize(
    ("name", "foreign"),
    [
        ("timm:resnet18", True),
        ("my.package:make", True),
        ("resnet50", False),
        ("runs/a:b", False),
        ("timm:", False),
        ("hf:org/name", False),
        ("C:\\runs", True),
    ],
)
def test_the_form_of_a_name(name: str, foreign: bool) -> None:
    assert is_foreign(name) is foreign


def test_networks_of_other_libraries() -> None:
    ours = senet.load("torchvision:squeezenet1_1")
    assert isinstance(ours, torchvision.models.SqueezeNet)
    assert not ours.training
    assert type(senet.load("timm:test_resnet")).__name__ == "ResNet"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm:resnt50", "Did you mean 'resnet50'"),
        ("torchvision:resnet5", "Did you mean 'resnet50'"),
        ("no.such.package:make", "No module named 'no'"),
        ("torchvision.models:resnet81", "Did you mean 'resnet18'"),
        ("builtins:divmod", "calling it failed.*without arguments"),
        ("os:getcwd", r"it gives a str.*Allowed: a torch\.nn\.Module"),
    ],
)
def test_names_that_nothing_has(name: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        senet.load(name)


def test_a_factory_in_this_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "from torch import nn\nclass Nets:\n    small = staticmethod(lambda: nn.Conv2d(3, 4, 1))\n"
    (tmp_path / "mine_for_a_test.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    path = list(sys.path)
    assert isinstance(senet.load("mine_for_a_test:Nets.small"), nn.Conv2d)
    assert sys.path == path


def test_a_library_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'senet\[timm\]'"):
        senet.load("timm:resnet18")


def test_a_path_of_that_form_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    senet.weights.save(senet.build("resnet20", num_classes=3), "timm:resnet18")
    assert senet.load("timm:resnet18").config.num_classes == 3  # type: ignore[union-attr]
