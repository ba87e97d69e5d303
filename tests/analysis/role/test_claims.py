import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from tests.analysis.gates import labels_of, normal, profile_of

from senet.analysis.role.claims import (
    CLAIMS,
    FAILS,
    HOLDS,
    NOT_APPLICABLE,
    UNDECIDED,
    Claim,
    Finding,
    findings,
    parts_of,
)
from senet.analysis.role.measures import NUMBERS, BlockMeasures, measures_of

LABELS = labels_of(4, 25)


def _block(
    place: int, numbers: dict[str, float], *, beyond: bool = False, noise: float = 1e-3
) -> BlockMeasures:
    """A block of three stages of three; what is not given is 0.5, and all of it has a little noise."""
    generator = np.random.default_rng(place)
    estimates = {
        name: numbers.get(name, 0.5) + noise * np.array([0, *generator.standard_normal(10)])
        for name in NUMBERS
    }
    size = 28 // 2 ** (place // 3)
    return BlockMeasures(f"b{place}", 8, (size, size), 100, estimates, 0, 0, 2.0, 0, beyond)


def _of(found: list[Finding], number: str, of: str, above: float = 0) -> Finding:
    (one,) = [
        each for each in found if (each.claim.number, each.claim.of, each.claim.above) == (number, of, above)
    ]
    return one


def _verdicts(curves: dict[str, list[float]]) -> dict[Claim, str]:
    blocks = [_block(place, {name: curve[place] for name, curve in curves.items()}) for place in range(9)]
    return {each.claim: each.verdict for each in findings(blocks)}


# As the paper and the notes say it is, over nine blocks in three stages.
_SAID = {
    "class_share": [0.0, 0.1, 0.1, 0.4, 0.5, 0.5, 0.6, 0.3, 0.3],
    "similarity": [1.0, 0.98, 0.98, 0.7, 0.6, 0.5, 0.5, 0.9, 0.9],
    "saturated": [0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.2, 0.9, 0.2],
    "open": [0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.9, 0.05],
    "one_scale": [0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.2, 0.7],
    "within_class": [0.1, 0.1, 0.1, 0.1, 0.1, 0.2, 0.2, 0.3, 0.3],
    "between_channels": [0.1, 0.1, 0.1, 0.3, 0.4, 0.3, 0.2, 0.1, 0.2],
}


def test_all_claims_hold_where_it_is_as_they_say() -> None:
    assert set(_verdicts(_SAID).values()) == {HOLDS}
    assert len(_verdicts(_SAID)) == len(CLAIMS)


def test_none_holds_where_it_is_the_other_way_round() -> None:
    assert set(_verdicts({name: [1 - v for v in curve] for name, curve in _SAID.items()}).values()) == {FAILS}


def test_what_does_not_differ_is_undecided() -> None:
    assert set(_verdicts({}).values()) == {UNDECIDED}


def test_contrasts_are_of_the_blocks_that_they_name() -> None:
    found = findings(
        [_block(place, {name: _SAID[name][place] for name in _SAID}, noise=0) for place in range(9)]
    )
    wanted: dict[Any, float] = {
        ("class_share", "the last two thirds"): 2.6 / 6 - 0.2 / 3,
        ("similarity", "the first third"): 2.96 / 3 - 4.1 / 6,
        ("saturated", "the second block of the last stage"): 0.9 - 0.8 / 7,
        ("open", "the second block of the last stage", 0.5): 0.9 - 0.5,
        ("similarity", "the last block"): 0.9 - 0.6,
        ("one_scale", "the last block"): 0.7 - 0.1,
        ("one_scale", "the last block", 0.5): 0.7 - 0.5,
        ("within_class", "the last third"): 0.8 / 3 - 0.1,
        ("between_channels", "the middle third"): 1 / 3 - 0.5 / 3,
        ("saturated", "the last third"): 1.3 / 3 - 0.1,
    }
    assert len(wanted) == len(CLAIMS)
    for claim, value in wanted.items():
        assert _of(found, *claim).number.value == pytest.approx(value)


def test_the_interval_is_that_of_the_contrast() -> None:
    """Two blocks that see the same noise differ with certainty, wherever each of them lies."""
    blocks = []
    for place in range(9):
        s = 0.5 + 0.2 * normal(100, 1, seed=0) + 0.01 * normal(100, 6, seed=place + 1)
        s = (s - s.mean()) * (1.05 if place >= 6 else 1) + 0.5
        blocks.append(measures_of(profile_of(s, LABELS, name=f"b{place}", size=28 // 2 ** (place // 3))))
    first, last = blocks[0].numbers["within_class"], blocks[8].numbers["within_class"]
    assert first.high is not None
    assert last.low is not None
    assert first.high > last.low, "the blocks' own intervals overlap"
    assert _of(findings(blocks), "within_class", "the last third").verdict == HOLDS


@pytest.mark.parametrize("each", [2, 10])
def test_early_blocks_are_not_found_alike_because_labels_are_noise(each: int) -> None:
    """Later gates vary more between images, and no class differs from another."""
    labels = labels_of(10, each)
    found = []
    for draw in range(12):
        blocks = []
        for place in range(6):
            noise = (0.05 + 0.05 * place) * normal(len(labels), 32, seed=100 * draw + place)
            s = 0.5 + 0.3 * normal(32, seed=place) + noise
            blocks.append(measures_of(profile_of(s, labels, name=f"b{place}", size=28 // 2 ** (place // 2))))
        found.append(_of(findings(blocks), "similarity", "the first third"))
    assert sum(one.verdict == UNDECIDED for one in found) >= 10
    values = [one.number.value for one in found if one.number.value is not None]
    assert len(values) == 12
    assert np.mean(values) < 3 * np.std(values) / math.sqrt(12)


def test_parts() -> None:
    parts = parts_of([["a", "b"], ["c", "d", "e"], ["f", "g", "h"]])
    assert parts["the first third"] == ["a", "b"]
    assert parts["the middle third"] == ["c", "d", "e", "f"]
    assert parts["the last third"] == ["g", "h"]
    assert parts["the first two thirds"] == ["a", "b", "c", "d", "e", "f"]
    assert parts["the last two thirds"] == ["c", "d", "e", "f", "g", "h"]
    assert parts["the second block of the last stage"] == ["g"]
    assert parts["all blocks before it"] == ["a", "b", "c", "d", "e", "f"]
    assert parts["the stage before the last"] == ["c", "d", "e"]
    assert {claim.of for claim in CLAIMS} | {part for claim in CLAIMS for part in claim.minus} <= parts.keys()


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_blocks(count: int) -> None:
    found = findings([_block(place, {}) for place in range(count)])
    few = [each for each in found if each.verdict == NOT_APPLICABLE]
    assert {each.why for each in few} == {"too few blocks or stages"}
    assert all("third" not in each.claim.of for each in found if each not in few)
    assert len(few) >= 7 - count


def test_what_claims_do_not_speak_of() -> None:
    blocks = [_block(place, {}, beyond=place == 8) for place in range(9)]
    assert (
        _of(findings(blocks), "saturated", "the last third").why == "these gates are not bounded by 0 and 1"
    )
    blocks = [_block(place, {"similarity": math.nan}) for place in range(9)]
    assert "one class or one image" in _of(findings(blocks), "similarity", "the last block").why
    blocks = [dataclasses.replace(_block(place, {}), not_numbers=place == 8) for place in range(9)]
    assert _of(findings(blocks), "within_class", "the last third").why == "some gates are NaN"
    found = findings([_block(place, {}) for place in range(9)], random=True)
    assert {(each.verdict, each.why) for each in found} == {(NOT_APPLICABLE, "the weights are random")}
    assert found[0].number.low is not None


def test_a_block_that_does_not_vary_is_left_out_and_named() -> None:
    shares = [0.1, math.nan, 0.3, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5]
    found = findings([_block(place, {"class_share": share}) for place, share in enumerate(shares)])
    first = _of(found, "class_share", "the last two thirds")
    assert first.number.value == pytest.approx(0.3)
    assert first.verdict == HOLDS
    assert first.why.endswith("do not vary: b1")


def test_without_an_interval_nothing_is_decided() -> None:
    blocks = [_block(place, {}) for place in range(9)]
    for block in blocks:
        block.estimates.update({name: estimate[:1] for name, estimate in block.estimates.items()})
    assert {each.verdict for each in findings(blocks)} == {UNDECIDED}


def test_rows_say_what_was_claimed_and_what_intervals_are_over() -> None:
    row = findings([_block(place, {}) for place in range(9)])[8].row
    assert row["contrast"] == "the middle third minus the larger of the first third and the last third"
    assert "seeds" in row["interval"]
    assert row["low"] < row["value"] < row["high"]
    assert Claim("", "", "open", "the last block", above=0.5).contrast == "the last block minus 0.5"
