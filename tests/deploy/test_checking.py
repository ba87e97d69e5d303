import copy
import dataclasses
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.deploy.small import network
from torch import Tensor, nn
from torch.nn import functional as F

import senet
from senet.deploy import onnx as onnx_files
from senet.deploy import program as programs
from senet.deploy.checking import BOUND, Comparison, noise
from senet.deploy.program import Program
from senet.errors import DeploymentError

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


class Same:
    """An engine that is PyTorch, and adds to the scores."""

    def __init__(self, model: nn.Module, more: float = 0.0) -> None:
        self.model, self.more = model, more

    def __call__(self, images: Any) -> list[Any]:
        with torch.no_grad():
            return [(self.model(torch.from_numpy(images)) + self.more).numpy()]


def no_values(images: Tensor) -> Mapping[str, Tensor]:
    return {}


def compared(written: nn.Module | None = None) -> Comparison:
    model = network()
    return Comparison("export()", model, written or model, torch.randn(2, 3, 32, 32), [0, 2, 3])


def test_several_batches_and_sizes() -> None:
    found = list(compared().rows("pytorch", Same(network()), no_values))
    assert [row["images"] for row in found] == [
        *(f"{batch} x 3 x {size}" for batch in (1, 2, 5) for size in ("32 x 32", "64 x 96")),
        *(f"1 x 3 x {size}" for size in ("65 x 63", "17 x 17", "8 x 8", "4 x 4")),
    ]
    assert all(row["difference"] <= BOUND for row in found)


class Sized(nn.Module):
    """Scores by a layer for maps of 4 x 4 positions, which ``fit`` makes of images."""

    def __init__(self, fit: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.fc = nn.Linear(64, 5)
        self.fit = fit

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.fc(self.fit(self.conv(x)).flatten(1))
        return scores


def test_a_network_of_one_size_is_not_one_of_any(tmp_path: Path) -> None:
    model = Sized(lambda x: F.avg_pool2d(x, 8)).eval()
    for to in ("onnx", "pt2"):
        with pytest.raises(DeploymentError, match=r"any|one size|PyTorch cannot write it"):
            senet.export(model, tmp_path / f"a.{to}", to=to, size="any")
        assert not list(tmp_path.iterdir())
        senet.export(model, tmp_path / f"b.{to}", to=to, size=32)
        (tmp_path / f"b.{to}").unlink()


def _halved_if_large(x: Tensor) -> Tensor:
    return F.adaptive_avg_pool2d(F.max_pool2d(x, 2) if x.shape[-1] > 40 else x, 1).expand(-1, -1, 4, 4)


def _padded_if_odd(x: Tensor) -> Tensor:
    return F.adaptive_avg_pool2d(F.pad(x, (0, 1)) if x.shape[-1] % 2 else x, 1).expand(-1, -1, 4, 4)


@pytest.mark.parametrize("fit", [_halved_if_large, _padded_if_odd])
@pytest.mark.parametrize("to", ["onnx", "pt2"])
def test_what_a_network_decides_by_the_size_is_not_lost(
    to: str, fit: Callable[[Tensor], Tensor], tmp_path: Path
) -> None:
    """The file is refused, or refuses the sizes at which it would be wrong."""
    model = Sized(fit).eval()
    if to == "onnx":
        with pytest.raises(DeploymentError):
            senet.export(model, tmp_path / "a.onnx", size="any")
        assert not list(tmp_path.iterdir())
        return
    senet.export(model, tmp_path / "a.pt2", to="pt2", size="any")
    program, refused = Program(tmp_path / "a.pt2"), 0
    for size in (224, 225, 33, 32):
        images = torch.randn(1, 3, size, size)
        try:
            (given,) = program(images.numpy())
        except DeploymentError:
            refused += 1
        else:
            torch.testing.assert_close(torch.from_numpy(given), model(images), rtol=1e-4, atol=1e-5)
    assert refused


def test_sizes_that_few_networks_take_need_not_be_taken() -> None:
    def even_alone(images: Any) -> list[Any]:
        assert images.shape[2] % 2 == 0, "nobody asks for others"
        return Same(network())(images)

    class Even(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if x.shape[2] % 2:
                raise ValueError("odd")
            scores: Tensor = network()(x)
            return scores

    comparison = dataclasses.replace(compared(), reference=Even())
    found = [row["images"] for row in comparison.rows("pytorch", even_alone, no_values)]
    assert (len(found), found[-1]) == (8, "1 x 3 x 4 x 4")


def test_of_a_network_without_numbers_nothing_is_said_to_be_right() -> None:
    lost = network()
    with torch.no_grad():
        lost.get_parameter("fc.bias").fill_(math.nan)
    comparison = dataclasses.replace(compared(), reference=lost)
    with pytest.raises(DeploymentError, match="the network gives no finite number"):
        list(comparison.rows("pytorch", Same(lost), no_values))


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("layer1.0.conv2", "layer1.0.conv2"),
        # A block computes by itself what its layers hold.
        ("layer2.0.se.fc1", "layer2.0.se"),
        ("layer2.0.bn3", "layer2.0.bn3"),
        ("fc", "fc"),
    ],
)
def test_where_an_engine_begins_to_differ(path: str, said: str) -> None:
    """What it computes is that of a network with one other number, in the module at the path."""
    wrong = copy.deepcopy(network())
    with torch.no_grad():
        next(wrong.get_submodule(path).parameters()).flatten()[:1].add_(3)

    def values(images: Tensor) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for name, module in wrong.named_modules():
            module.register_forward_hook(lambda *given, name=name: found.__setitem__(name, given[-1].clone()))
        with torch.no_grad():
            wrong(images)
        return found

    with pytest.raises(DeploymentError, match=rf"It begins in {said} \(wrong by .*before it is right"):
        list(compared().rows("pytorch", Same(wrong), values))


def test_where_rewriting_went_wrong() -> None:
    wrong = copy.deepcopy(network())
    with torch.no_grad():
        next(wrong.get_submodule("layer2.0.conv1").parameters()).mul_(1.5)
    with pytest.raises(
        DeploymentError, match=r"It begins before it is written, .* at the latest in layer2\.0\.se \("
    ):
        list(compared(wrong).rows("pytorch", Same(wrong), no_values))


def test_what_is_wrong_only_when_nobody_looks() -> None:
    with pytest.raises(DeploymentError, match="It begins nowhere when all values between are looked at"):
        list(compared().rows("pytorch", Same(network(), 0.1), no_values))

    def broken(images: Tensor) -> dict[str, Tensor]:
        raise RuntimeError("no")

    with pytest.raises(DeploymentError, match=r"values between cannot be read \(no\)"):
        list(compared().rows("pytorch", Same(network(), 0.1), broken))


@pytest.mark.parametrize("to", ["onnx", "pt2"])
def test_a_file_with_one_wrong_number_names_its_layer(
    to: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number is changed after tracing, in what is written."""
    room: Any = onnx_files if to == "onnx" else programs
    trace = room.traced

    def tampered(*given: Any) -> Any:
        made = trace(*given)
        if to == "onnx":
            weight = made.model.graph.initializers["layer2.0.conv3.excite.fc2.weight"]
            number = torch.from_numpy(weight.const_value.numpy().copy())
            number[0] += 2
            import onnx_ir

            weight.const_value = onnx_ir.tensor(number.numpy(), name=weight.name)
        else:
            name = "layer2.0.conv3.excite.fc2.weight"
            # The network has the same tensor.
            made.state_dict[name] = nn.Parameter(made.state_dict[name].detach().clone())
            made.state_dict[name].data[0] += 2
        return made

    monkeypatch.setattr(room, "traced", tampered)
    with pytest.raises(DeploymentError, match=r"It begins in layer2\.0\.conv3\.excite\.fc2 \(wrong by"):
        senet.export(network(), tmp_path / f"small.{to}", to=to, size=32)
    assert not list(tmp_path.iterdir())


def test_noise() -> None:
    pixels = noise((2, 3, 40, 40), torch.uint8, torch.Generator().manual_seed(0))
    assert pixels.dtype == torch.uint8
    assert (int(pixels.min()), int(pixels.max())) == (0, 255)
    assert abs(float(noise((9, 9, 9, 9), torch.float32, torch.Generator()).std()) - 1) < 0.1
