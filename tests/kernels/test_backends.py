import warnings

import pytest
import torch
from tests.tails import random_tail
from torch.utils.flop_counter import FlopCounterMode

import senet
from senet.errors import BackendError, OptionError
from senet.kernels import backends
from senet.kernels.reference import Tail, tail

U = torch.randn(2, 4, 5, 5)


def _reason(choice: backends.Choice, name: str) -> str:
    return str(next(row["because"] for row in choice.rows if row["backend"] == name))


def test_why_names_one_and_says_why_not_the_others() -> None:
    choice = senet.kernels.why(U)
    assert choice.name in ("cpp", "reference")
    assert [row["backend"] for row in choice.rows if row["serves"]] == [choice.name]
    assert "not on a GPU" in _reason(choice, "triton")
    assert "more passes" in _reason(choice, "aten")
    assert str(choice).splitlines()[0].split() == ["backend", "serves", "because"]


@pytest.mark.parametrize("name", sorted(backends.BACKENDS))
def test_who_is_asked_for_by_name_serves_or_raises(name: str) -> None:
    tensors = random_tail(Tail(), (2, 4, 5, 5), dtype=torch.float32)
    choice = senet.kernels.why(tensors.u, backend=name)
    if choice.name is None:
        with pytest.raises(BackendError, match=f"backend='{name}'.*{name}: "):
            backends.run(Tail(), tensors, name)
    else:
        assert choice.name == name
        torch.testing.assert_close(backends.run(Tail(), tensors, name).out, tail(Tail(), tensors).out)


def test_why_and_what_runs_are_of_one_mind() -> None:
    for spec in (Tail(), Tail("fixed"), Tail("none", "silu", "identity"), Tail(group=object())):
        for u in (U, U.bfloat16(), U.double(), U[:, :, 0], U[:0], torch.randn(1, 4, 1, 1)):
            name = senet.kernels.why(u, spec).name
            if name is None:
                with pytest.raises(BackendError):
                    backends.chosen(spec, u)
            else:
                assert backends.chosen(spec, u).name == name
                assert senet.kernels.why(u, spec, backend=name).name == name


def test_reasons() -> None:
    assert _reason(senet.kernels.why(U[:0]), "cpp") == "the map is empty"
    assert "one number" in _reason(senet.kernels.why(torch.randn(1, 4, 1, 1)), "aten")
    assert senet.kernels.why(torch.randn(1, 4, 1, 1)).name == "reference"
    assert "4 dimensions" not in _reason(senet.kernels.why(U), "composite")
    assert "2 dimensions" in _reason(senet.kernels.why(U[0, 0]), "composite")
    with pytest.raises(OptionError, match="Did you mean 'triton'"):
        senet.kernels.why(U, backend="trition")
    with pytest.raises(OptionError, match="'cuda' is unknown"):
        backends.chosen(Tail(), U, "cuda")


def test_whoever_transforms_or_looks_on_gets_what_it_understands() -> None:
    names = []

    def note(u: torch.Tensor) -> torch.Tensor:
        names.append(backends.chosen(Tail(), u).name)
        return u.sum()

    torch.func.vmap(note)(U)
    torch.func.jvp(note, (U,), (U,))
    with FlopCounterMode(display=False):
        note(U)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # It warns of every comparison of sizes.
        torch.jit.trace(note, U, check_trace=False)
    assert names == ["aten", "aten", "reference", "aten"]


def test_compilers_get_the_traceable_form_where_it_is_cheaper() -> None:
    tensors = random_tail(Tail(), (2, 4, 5, 5))
    seen = []

    def look(graph: torch.fx.GraphModule, example: object) -> torch.fx.GraphModule:
        seen.append({str(node.target) for node in graph.graph.nodes})
        return graph

    for spec in (Tail(), Tail("none")):
        torch._dynamo.reset()
        compiled = torch.compile(
            lambda u, spec=spec: backends.run(spec, tensors._replace(u=u)).out, backend=look, fullgraph=True
        )
        torch.testing.assert_close(compiled(tensors.u), backends.run(spec, tensors, "reference").out)
    assert any("autograd_function" in target for target in seen[0])
    assert not any("autograd_function" in target for target in seen[1])
    assert not any("senet" in target for target in seen[0] | seen[1])


def test_a_norm_over_processes_is_not_computed_for_this_one_alone() -> None:
    shared = Tail(group=object())
    assert "shares them" in _reason(senet.kernels.why(U, shared), "aten")
    assert "shares them" in _reason(senet.kernels.why(U, shared), "reference")
    assert senet.kernels.why(U, shared, backend="reference").name is None
