import itertools
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from senet import functional
from senet.errors import BackendError, DtypeError, OptionError, ShapeError
from senet.kernels import reference


@pytest.mark.parametrize("mode", functional.SQUEEZES)
def test_squeeze_of_every_rank(mode: str) -> None:
    for spatial in ((7,), (5, 3), (2, 3, 4)):
        u = torch.randn(2, 3, *spatial)
        flat = u.flatten(2)
        wanted = {"avg": flat.mean(2), "max": flat.max(2).values, "none": u}[mode]
        torch.testing.assert_close(functional.squeeze(u, mode), wanted)


@pytest.mark.parametrize("gate", functional.GATES)
@pytest.mark.parametrize("one_at_zero", [False, True])
def test_excite_chooses_the_gate(gate: str, one_at_zero: bool) -> None:
    table = reference.ONE_AT_ZERO if one_at_zero else reference.GATES
    z, w1, w2 = torch.rand(2, 4), torch.rand(3, 4), torch.randn(4, 3)
    found = functional.excite(z, w1, None, w2, None, gate=gate, one_at_zero=one_at_zero)
    torch.testing.assert_close(found, table[gate](z @ w1.T @ w2.T))


def test_a_map_may_have_gates_at_every_position() -> None:
    u, w1, w2 = torch.randn(2, 4, 5, 3), torch.randn(3, 4), torch.randn(4, 3)
    s = functional.excite(u, w1, None, w2, None)
    for row, column in itertools.product(range(5), range(3)):
        alone = functional.excite(u[:, :, row, column], w1, None, w2, None)
        torch.testing.assert_close(s[:, :, row, column], alone)
    assert torch.equal(functional.scale(u, s), u * s)
    assert torch.equal(functional.scale_add(u, s, u), u * s + u)


def test_scale_add_is_the_end_of_a_residual_branch() -> None:
    u, s, residual = torch.randn(2, 3, 4, 4), torch.rand(2, 3), torch.randn(2, 3, 4, 4)
    plain = functional.scale(u, s) + residual
    assert torch.equal(functional.scale_add(u, s, residual), plain)
    assert torch.equal(functional.scale_add(u, s, residual, activation="relu"), plain.relu())


def test_gradients_of_all_functions() -> None:
    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, requires_grad=True)

    u, residual, s = draw(2, 3, 2, 3), draw(2, 3, 2, 3), draw(2, 3)
    mask = torch.rand(2, 2, 3) < 0.7
    for mode in functional.SQUEEZES:
        assert torch.autograd.gradcheck(lambda u, mode=mode: functional.squeeze(u, mode), (u,))
        assert torch.autograd.gradcheck(lambda u, mode=mode: functional.squeeze(u, mode, mask), (u,))
    assert torch.autograd.gradcheck(functional.excite, (draw(2, 4), draw(3, 4), draw(3), draw(4, 3), draw(4)))
    assert torch.autograd.gradcheck(functional.excite, (u, draw(2, 3), draw(2), draw(3, 2), draw(3)))
    assert torch.autograd.gradcheck(functional.scale, (u, s))
    assert torch.autograd.gradcheck(functional.scale, (u, residual))
    assert torch.autograd.gradcheck(
        lambda *args: functional.scale_add(*args, activation="relu"), (u, s, residual)
    )


def _excite(b1: Tensor | None = None, b2: Tensor | None = None) -> Tensor:
    return functional.excite(torch.ones(2, 4), torch.ones(3, 4), b1, torch.ones(4, 3), b2)


U = torch.zeros(2, 3, 4, 4)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: functional.squeeze(torch.zeros(2, 3)), ShapeError, "2 dimensions.*unsqueeze"),
        (lambda: functional.squeeze(torch.zeros(1, 2, 3, 4, 5, 6)), ShapeError, "6 dimensions"),
        (lambda: functional.squeeze(torch.zeros(2, 3, 0, 4)), ShapeError, "no positions"),
        (lambda: functional.squeeze(U.int()), DtypeError, "torch.int32"),
        (lambda: functional.squeeze(U, "mean"), OptionError, "Allowed: avg, max, none"),
        (lambda: functional.squeeze(U, mask=torch.ones(2, 4)), ShapeError, r"\(2, 4, 4\)"),
        (lambda: functional.squeeze(U, mask=torch.ones(2, 4, 4)), DtypeError, "mask != 0"),
        (lambda: functional.scale(U, torch.ones(2, 4)), ShapeError, "one gate per sample and channel"),
        (lambda: functional.scale(U, torch.ones(2, 3, 1, 1)), ShapeError, "one gate per sample"),
        (lambda: functional.scale_add(U, torch.ones(2, 3), U[:1]), ShapeError, "Project the shortcut"),
        (
            lambda: functional.scale_add(U, torch.ones(2, 3), U, activation="gelu"),
            OptionError,
            "Allowed: relu",
        ),
        (
            lambda: functional.excite(torch.ones(2, 4), torch.ones(2, 3), None, torch.ones(3, 2), None),
            ShapeError,
            r"\(2, 4\), \(2, 3\), None, \(3, 2\), None",
        ),
        (lambda: _excite(b1=torch.ones(4)), ShapeError, r"\(hidden,\) or None"),
        (lambda: _excite(b1=torch.ones(1)), ShapeError, r"\(hidden,\) or None"),
        (lambda: _excite(b2=torch.ones(2, 4)), ShapeError, r"\(C,\) or None"),
        (
            lambda: functional.excite(
                torch.ones(2, 4), torch.ones(2, 4), None, torch.ones(4, 2), None, gate="sigmod"
            ),
            OptionError,
            "Did you mean 'sigmoid'",
        ),
    ],
)
def test_bad_input(call, error: type[Exception], words: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(error, match=words):
        call()


# ------------------------------------------------------------------ the end of a branch


def _branch(n: int = 3, c: int = 4) -> dict[str, Any]:
    """Arguments of ``bn_se_add_act`` in float64; what learns requires gradients."""
    random = {
        name: torch.randn(shape, dtype=torch.float64, requires_grad=True)
        for name, shape in {
            "u": (n, c, 5, 3),
            "weight": (c,),
            "bias": (c,),
            "w1": (2, c),
            "b1": (2,),
            "w2": (c, 2),
            "b2": (c,),
            "residual": (n, c, 5, 3),
        }.items()
    }
    running = {
        "running_mean": torch.randn(c, dtype=torch.float64),
        "running_var": torch.rand(c, dtype=torch.float64),
    }
    return {**random, **running}


@pytest.mark.parametrize("backend", ["auto", "composite", "aten", "reference"])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("inner", [None, "silu"])
def test_the_end_of_a_branch_is_the_layers(backend: str, training: bool, inner: str | None) -> None:
    given = _branch()
    keep = torch.tensor([0.0, 2.0, 1.0], dtype=torch.float64)
    mean, variance = given["running_mean"].clone(), given["running_var"].clone()
    v = F.batch_norm(
        given["u"], mean, variance, given["weight"], given["bias"], training, momentum=0.3, eps=1e-3
    )
    v = v if inner is None else F.silu(v)
    s = functional.excite(functional.squeeze(v), *(given[name] for name in ("w1", "b1", "w2", "b2")))
    wanted = functional.scale_add(v, s * keep[:, None], given["residual"], activation="relu")
    out, gates = functional.bn_se_add_act(
        **given, keep=keep, training=training, momentum=0.3, eps=1e-3, inner=inner, activation="relu",
        backend=backend,
    )  # fmt: skip
    torch.testing.assert_close((out, gates), (wanted, s))
    torch.testing.assert_close((given["running_mean"], given["running_var"]), (mean, variance))
    learning = [each for each in given.values() if each.requires_grad]
    g = torch.randn_like(out)
    torch.testing.assert_close(
        torch.autograd.grad(out, learning, g), torch.autograd.grad(wanted, learning, g)
    )


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"residual": torch.randn(3, 4, 5, 4)},
            ShapeError,
            r"residual is \(3, 4, 5, 4\).*Allowed: \(3, 4, 5, 3\)",
        ),
        ({"keep": torch.ones(4)}, ShapeError, r"keep is \(4,\)"),
        ({"w1": torch.randn(2, 5)}, ShapeError, r"w1 is \(2, 5\).*Allowed: \(2, 4\)"),
        ({"running_var": torch.ones(3)}, ShapeError, r"variance is \(3,\)"),
        ({"u": torch.randn(3, 4)}, ShapeError, "2 dimensions"),
        ({"inner": "gelu"}, OptionError, "'gelu' is unknown"),
        ({"hidden": "elu"}, OptionError, "'elu' is unknown. Allowed: identity, relu, silu, hardswish"),
        ({"activation": "silu"}, OptionError, "'silu' is unknown"),
        ({"gate": "sigmod"}, OptionError, "Did you mean 'sigmoid'"),
        ({"backend": "triton"}, BackendError, "not on a GPU"),
        ({"backend": "cuda"}, OptionError, "'cuda' is unknown"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_the_end_of_a_branch_says_what_does_not_fit(
    change: dict[str, Any], error: type[Exception], message: str
) -> None:
    if change.get("backend") == "triton" and torch.cuda.is_available():
        change = {**change, "u": torch.randn(3, 4, 5, 3)}
    with pytest.raises(error, match=message):
        functional.bn_se_add_act(**{**_branch(), **change}, training=False)


def test_one_number_a_channel_has_no_variance_as_in_pytorch() -> None:
    given = _branch()
    given["u"] = given["residual"] = torch.randn(1, 4, 1, 1, dtype=torch.float64)
    with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
        functional.bn_se_add_act(**given)
