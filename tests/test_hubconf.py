import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import senet
from senet.errors import OptionError
from tests.programs import program

ROOT = Path(__file__).parent.parent


REPOSITORY: dict[str, Any] = {"github": "OWNER/senet:main", "trust_repo": True, "skip_validation": True}


@pytest.fixture(autouse=True)
def _fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.hub's cache with this checkout in it, as if it came from GitHub."""
    (tmp_path / "OWNER_senet_main").symlink_to(ROOT, target_is_directory=True)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(sys, "path", list(sys.path))  # the file adds its src


def _load(name: str, **options: Any) -> Any:
    return torch.hub.load(str(ROOT), name, source="local", **options)


def test_every_network_is_listed() -> None:
    assert torch.hub.list(**REPOSITORY) == sorted(senet.list_models())


def test_help_names_the_options() -> None:
    said = torch.hub.help(model="se_resnet20", **REPOSITORY)
    assert said.startswith("se_resnet20, for images of (3, 32, 32) and 10 classes")
    assert "shortcut, dropout" in said


def test_a_network_with_weights(tmp_path: Path) -> None:
    saved = senet.build("se_resnet20", num_classes=10)
    senet.weights.save(saved, tmp_path / "w.safetensors")
    model = _load("se_resnet20", num_classes=10, weights=str(tmp_path / "w.safetensors"))
    assert model.config == saved.config
    assert torch.equal(model.fc.weight, saved.fc.weight)
    with pytest.raises(OptionError, match="num_class"):
        _load("se_resnet20", num_class=10)


def test_senet_need_not_be_installed(tmp_path: Path) -> None:
    # -S -E leaves out what is installed; what senet needs is given back, senet itself is not.
    needed = {str(Path(str(sys.modules[name].__file__)).parent.parent) for name in ("torch", "numpy", "yaml")}
    script = (
        f"import sys; sys.path += {sorted(needed)!r}\n"
        "import torch\n"
        f"model = torch.hub.load({str(ROOT)!r}, 'se_resnet20', source='local', num_classes=3)\n"
        "print(model.config.name, sys.modules['senet'].__file__)"
    )
    said = program("-S", "-E", "-c", script, cwd=tmp_path)
    assert said.split() == ["se_resnet20", str(ROOT / "src" / "senet" / "__init__.py")]
