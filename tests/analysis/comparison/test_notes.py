import dataclasses

import pytest
from tests.analysis.comparison.made_up import comparison, depths, group, reduction, result

from senet.analysis.comparison.group import Group

pytest.importorskip("scipy", reason="scipy is not installed")


def test_the_first_says_what_the_intervals_are_over_and_what_an_image_is_worth() -> None:
    first = comparison().notes[0]
    assert first.startswith("Intervals and ± are over seeds, given these very test images (10,000; one is")
    assert first.endswith("one is worth 0.01 points): other images are not in them.")
    assert comparison([]).notes[0].endswith("given these very test images: other images are not in them.")


def test_what_an_image_is_worth_where_their_number_differs() -> None:
    few = Group(label="b", network="b", results={0: result(test_images=360)})
    assert "(360 to 10,000; one is worth 0.01 to 0.28 points)" in comparison([group("a"), few]).notes[0]


@pytest.mark.parametrize(("seeds", "said"), [(1, True), (2, True), (3, False)])
def test_fewer_than_three_seeds_conclude_nothing(seeds: int, said: bool) -> None:
    notes = comparison([group("a", seeds=range(seeds)), group("b", seeds=range(seeds))]).notes
    assert ("With fewer than 3 seeds nothing can be concluded." in notes) == said
    assert ("b: one seed: no interval." in notes) == (seeds == 1)


def test_groups_with_fewer_seeds_than_others_are_named() -> None:
    notes = comparison([group("a"), group("b"), group("c", seeds=[0])]).notes
    assert "With fewer than 3 seeds nothing can be concluded about c." in notes


def test_failed_and_missing_runs_are_named_and_counted() -> None:
    notes = reduction().notes
    assert "r = 16: 3 of 5 seeds done, seed 3 failed (RunError: the loss is nan), 1 not run yet." in notes
    assert any(note.startswith("Not all runs are done.") for note in notes)
    assert not any(note.startswith("Not all runs") for note in comparison().notes)
    # What cannot be is not missing.
    assert not any("r = 32" in note for note in notes)


def test_groups_of_which_the_same_is_to_be_said_share_a_note() -> None:
    notes = comparison([Group(label=label, network="x", missing=[0, 1]) for label in "abc"]).notes
    assert "a, b, c: 0 of 2 seeds done, 2 not run yet." in notes


def test_holm_is_told_where_there_are_several() -> None:
    assert any("adjusted for 3 comparisons (Holm)" in note for note in reduction().notes)
    assert not any("Holm" in note for note in comparison().notes)


def test_a_gain_says_against_what() -> None:
    assert any("above resnet20, each seed" in note for note in comparison().notes)
    assert any("above the plain network of the same depth" in note for note in depths().notes)


def test_times_of_different_devices_do_not_compare() -> None:
    first, second = comparison().groups
    moved = {seed: dataclasses.replace(run, device="cuda") for seed, run in second.results.items()}
    notes = comparison([first, dataclasses.replace(second, results=moved)]).notes
    assert notes[-1].endswith("do not compare: cpu, cuda.")


def test_runs_of_different_numbers_of_processes_are_told() -> None:
    first, second = comparison().groups
    shared = {seed: dataclasses.replace(run, processes=2) for seed, run in second.results.items()}
    [note] = [
        note
        for note in comparison([first, dataclasses.replace(second, results=shared)]).notes
        if "processes" in note
    ]
    assert "batch norm and mixing depend on it" in note
    assert note.endswith("(1, 2).")
    assert not any("processes" in note for note in comparison().notes)
