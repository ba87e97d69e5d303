from typing import Any

import pytest
import torch
from tests.analysis.gated import Gated, images

from senet.analysis.sites import find_gates
from senet.analysis.worth.outcomes import Outcome, compare
from senet.analysis.worth.paired import Paired
from senet.analysis.worth.proposal import Candidate, Proposal, propose
from senet.runtime.processes import ALONE


def _outcome(lost: int, loss: float, of: int = 1000) -> Outcome:
    return Outcome(Paired(of, lost, 0), Paired(of, 0, 0), loss, (loss - 0.1, loss + 0.1))


def _proposed(candidates: list[list[Candidate]], tolerance: float = 0.1) -> Proposal:
    model, loader = Gated(), images(64)
    sites = find_gates(model, example=loader[0][0])
    return propose(model, loader, sites, candidates, tolerance=tolerance, processes=ALONE)


def test_of_two_constants_the_less_harmful_is_taken() -> None:
    profile = Gated().idle.fc2.bias.sigmoid().detach()
    found = _proposed(
        [[Candidate("idle", 1.0, _outcome(0, 0.2), 10), Candidate("idle", profile, _outcome(0, 0.0), 10)]]
    )
    assert list(found.gates) == ["idle"]
    assert found.gates["idle"] is profile
    assert found.outcome is not None
    assert (found.outcome.top1.lost, found.outcome.top1.gained) == (0, 0)
    assert found.outcome.loss == pytest.approx(0, abs=1e-6)


def test_what_is_harmless_alone_is_taken_back_where_it_harms_together() -> None:
    # These say that both blocks can go; the images say that `needed` cannot.
    idle = Candidate("idle", 1.0, _outcome(0, -0.1), 10)
    needed = Candidate("needed", 1.0, _outcome(0, 0.5), 10)
    found = _proposed([[needed], [idle]])
    assert found.gates == {"idle": 1.0}
    assert found.outcome is not None
    assert abs(found.outcome.top1.images - 32) <= 4, "the other half"


@pytest.mark.parametrize(
    ("parameters", "losses", "first"),
    [
        ((10, 1000), (0.1, 0.1), "b"),
        ((10, 10), (0.1, 0.2), "a"),
        ((10, 1000), (-0.5, -0.1), "b"),
        ((10, 1000), (0.001, 0.2), "a"),
    ],
)
def test_the_order_is_of_harm_for_each_parameter_saved(
    parameters: tuple[int, int], losses: tuple[float, float], first: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def compared(model: object, loader: object, variants: Any, *_: object, **__: object) -> Any:
        seen.extend(variants)
        sites = find_gates(Gated(), example=torch.ones(2, 16, 4, 4))
        return compare(Gated(), images(20), [{"idle": 1.0}] * len(variants), sites, processes=ALONE, what="")

    monkeypatch.setattr("senet.analysis.worth.proposal.compare", compared)
    candidates = [
        [Candidate(name, 1.0, _outcome(0, loss), count)]
        for name, loss, count in zip("ab", losses, parameters, strict=True)
    ]
    _proposed(candidates)
    assert [list(each) for each in seen] == [[first], [first, "b" if first == "a" else "a"]]


def test_a_block_that_loses_more_than_the_tolerance_stays() -> None:
    candidates = [[Candidate("idle", 1.0, _outcome(2, 0.0), 10)]]
    assert _proposed(candidates, 0.2).gates == {"idle": 1.0}
    found = _proposed(candidates, 0.19)
    assert (found.gates, found.outcome) == ({}, None)
    assert str(found) == (
        "Proposal: keep all blocks; every block alone loses more than the tolerance "
        "(at most 0.19 points of top-1, 1,000 images)."
    )


@pytest.mark.parametrize(
    ("top1", "verdict"),
    [
        (Paired(100_000, 10, 10), "within the tolerance"),
        (Paired(100_000, 900, 10), "more than the tolerance"),
        (Paired(1000, 10, 10), "undecided: if the change is what it seems, about 80,"),
        (Paired(998, 5, 4), "undecided: if the change is what it seems, no number of such images would tell"),
    ],
)
def test_the_verdict_is_by_the_interval(top1: Paired, verdict: str) -> None:
    outcome = Outcome(top1, top1, 0.0, (0.0, 0.0))
    found = Proposal(0.1, {"a": 1.0, "b": torch.ones(4)}, 1000, outcome)
    assert found.verdict.startswith(verdict)
    lines = str(found).splitlines()
    assert lines[1:3] == ["  drop (gate 1): a", "  fold (mean per channel): b"]
    assert lines[-1].strip() == found.verdict
