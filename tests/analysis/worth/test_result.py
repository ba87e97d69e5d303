import csv
import dataclasses
import json
from pathlib import Path

import pytest
import torch

from senet.analysis.worth.outcomes import Outcome
from senet.analysis.worth.paired import Paired
from senet.analysis.worth.proposal import Proposal
from senet.analysis.worth.result import NUMBER, ONE, PROFILE, REPLACEMENTS, Cost, Sensitivity, Variant
from senet.evaluation.classification import Evaluation

_COSTS = {
    "layer1.0.se": Cost(100, 1000),
    "layer2.0.se": Cost(200, 500),
    "layer2.1.se": Cost(200, 500),
}
_SETS = {
    **{name: (name,) for name in _COSTS},
    "stage 2 of 2": ("layer2.0.se", "layer2.1.se"),
    "all blocks": tuple(_COSTS),
}


def _outcome(lost: int, gained: int, of: int = 50_000) -> Outcome:
    paired = Paired(of, lost, gained)
    return Outcome(paired, paired, 0.25, (0.125, 0.375))


def _found(last: Outcome, *, proposed: bool = True) -> Sensitivity:
    gates: dict[str, float | torch.Tensor] = {"layer2.0.se": 1.0, "layer2.1.se": torch.ones(3)}
    return Sensitivity(
        untouched=Evaluation(50_000, 40_000, 45_000, 0.5),
        classes=1000,
        variants=tuple(
            Variant(what, blocks, each, last if what.startswith("stage") else _outcome(100, 50))
            for what, blocks in _SETS.items()
            for each in REPLACEMENTS
        ),
        proposal=Proposal(0.1, gates if proposed else {}, 25_000, _outcome(30, 20) if proposed else None),
        stages=(("layer1.0.se",), ("layer2.0.se", "layer2.1.se")),
        costs=_COSTS,
        se=Cost(500, 2000),
        network=Cost(5000, 100_000),
    )


def test_a_row_is_a_variant_with_what_it_changes_and_saves() -> None:
    found = _found(_outcome(60, 50))
    assert [(row["what"], row["gates"]) for row in found.rows] == [
        *((what, gates) for what in _SETS for gates in REPLACEMENTS),
        ("proposal", "as proposed"),
    ]
    row = found.rows[9]
    assert (row["what"], row["blocks"]) == ("stage 2 of 2", 2)
    assert (row["top1"], row["top1_lost"], row["top1_gained"]) == (pytest.approx(-0.02), 60, 50)
    assert row["top1_low"] < row["top1"] < row["top1_high"]
    assert (row["loss"], row["loss_low"], row["loss_high"]) == (0.25, 0.125, 0.375)
    assert (row["parameters"], row["of_se"], row["of_network"]) == (400, 0.8, 0.08)
    assert (row["multiply_adds"], row["multiply_adds_of_se"], row["multiply_adds_of_network"]) == (
        1000,
        0.5,
        0.01,
    )
    assert found.rows[-1]["parameters"] == 400


@pytest.mark.parametrize(
    ("last", "verdict"),
    [
        (_outcome(60, 50), "holds"),
        (_outcome(300, 50), "does not hold"),
        (_outcome(1000, 960), "undecided"),
    ],
)
def test_what_the_paper_says_of_the_last_stage(last: Outcome, verdict: str) -> None:
    claims = _found(last).claims
    assert [claim["gates"] for claim in claims] == [ONE, PROFILE]
    for claim in claims:
        assert claim["verdict"] == verdict
        assert claim["top5"] == last.top5.change
        assert (claim["top5_low"], claim["top5_high"]) == last.top5.interval
        assert claim["share"] == 0.8


def test_the_saying_needs_most_of_the_parameters_there() -> None:
    found = dataclasses.replace(_found(_outcome(60, 50)), se=Cost(1000, 2000))
    assert {claim["verdict"] for claim in found.claims} == {"does not hold"}


def test_there_is_nothing_to_say_of_random_weights_one_stage_or_few_classes() -> None:
    found = _found(_outcome(60, 50))
    assert dataclasses.replace(found, random=True).claims == []
    assert dataclasses.replace(found, stages=(tuple(_COSTS),)).claims == []
    assert dataclasses.replace(found, stages=()).claims == []
    assert dataclasses.replace(found, classes=5).claims == []
    assert "random" in str(dataclasses.replace(found, random=True)).splitlines()[0]


def test_it_prints_itself() -> None:
    lines = str(_found(_outcome(60, 50))).splitlines()
    assert max(map(len, lines)) <= 110
    assert lines[0] == "50,000 images: top-1 80.00 %, top-5 90.00 %, loss 0.5000"
    table = lines[3:9]
    assert table[0].split("  ")[0] == "gates of"
    assert all(heading in table[0] for heading in (ONE, NUMBER, PROFILE))
    assert table[4].startswith("stage 2 of 2  400 (80%)")
    assert table[4].count("-0.02 [-0.06, +0.02]") == 3
    assert (
        "  gates mean per channel: top-5 -0.02 [-0.06, +0.02], holds (80% of SE's parameters are there)"
        in lines
    )
    assert "  saves 400 parameters, 80.0% of SE's and 8.0% of the network's, and 1,000 multiply-adds" in lines
    assert lines[-1].endswith("smaller = senet.fold_gates(model, found.proposal.gates)")
    assert "fold_gates" not in str(_found(_outcome(60, 50), proposed=False))


def test_it_is_saved(tmp_path: Path) -> None:
    found = _found(_outcome(60, 50))
    found.save(tmp_path / "found.csv")
    with (tmp_path / "found.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["what"] for row in rows] == [row["what"] for row in found.rows]
    whole = json.loads(json.dumps(found.to_dict()))
    assert whole["rows"] == found.rows
    assert whole["claims"] == found.claims
    assert whole["proposal"]["gates"] == {"layer2.0.se": 1.0, "layer2.1.se": [1.0, 1.0, 1.0]}
    assert whole["untouched"]["top1"] == 80
