import json
import threading
import time
from typing import Any

import pytest
from torch._C._distributed_c10d import PrefixStore, TCPStore

from senet.errors import RunError
from senet.runtime.meeting import answered, connected, met, ranks, values


@pytest.fixture
def store() -> TCPStore:
    """One that outlives attempts, as torchrun's does."""
    return TCPStore("127.0.0.1", 0, is_master=True)


def all_meet(store: TCPStore, count: int) -> list[str]:
    """What each of ``count`` processes gets, in the order of the ranks."""
    found: list[Any] = [None] * count

    def one(rank: int) -> None:
        own = TCPStore("127.0.0.1", store.port, is_master=False)
        found[rank] = met(own, rank, count, 10.0)

    threads = [threading.Thread(target=one, args=(rank,)) for rank in reversed(range(count))]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    return found


@pytest.mark.parametrize("count", [2, 3, 5])
def test_all_of_an_attempt_get_one_place_and_no_other_attempt_gets_it(store: TCPStore, count: int) -> None:
    first, again = all_meet(store, count), all_meet(store, count)
    assert len({*first}) == len({*again}) == 1
    assert first[0] != again[0]
    PrefixStore(first[0], store).set("address", "of the dead")
    assert not PrefixStore(again[0], store).check(["address"])


def test_another_number_of_processes_meets_where_more_were_before(store: TCPStore) -> None:
    places = [{*all_meet(store, count)} for count in (4, 2, 3)]
    assert [len(each) for each in places] == [1, 1, 1], "all of an attempt are in one place"
    assert len(set.union(*places)) == 3, "which is nobody else's"


def test_a_process_of_a_dead_attempt_is_not_counted(store: TCPStore) -> None:
    """It said that it was there, and died before the first process came."""
    store.set("senet/here/1", "a number of the dead")
    with pytest.raises(RunError, match=r"in 0.2 s nothing was heard of rank 1\."):
        met(store, 0, 2, 0.2)
    assert len({*all_meet(store, 2)}) == 1


def test_who_does_not_come_is_named(store: TCPStore) -> None:
    with pytest.raises(RunError, match=r"nothing was heard of ranks 1, 2"):
        met(store, 0, 3, 0.2)
    store.delete_key("senet/attempt")
    with pytest.raises(RunError, match=r"nothing was heard of rank 0"):
        met(store, 1, 3, 0.2)


def test_all_who_have_come_name_the_one_who_has_not(store: TCPStore) -> None:
    said: dict[int, str] = {}

    def one(rank: int) -> None:
        try:
            met(TCPStore("127.0.0.1", store.port, is_master=False), rank, 3, 1.0)
        except RunError as error:
            said[rank] = str(error)

    threads = [threading.Thread(target=one, args=(rank,)) for rank in (0, 1)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert said.keys() == {0, 1}
    assert all("nothing was heard of rank 2." in words for words in said.values())


def test_one_that_comes_late_is_waited_for(store: TCPStore) -> None:
    found: dict[int, str] = {}

    def one(rank: int, delay: float) -> None:
        time.sleep(delay)
        found[rank] = met(TCPStore("127.0.0.1", store.port, is_master=False), rank, 3, 20.0)

    threads = [threading.Thread(target=one, args=each) for each in ((0, 0.0), (1, 0.0), (2, 1.5))]
    for each in threads:
        each.start()
    threads[1].join(1.0)
    assert not found, "nobody goes on without it"
    for each in threads:
        each.join()
    assert len({*found.values()}) == 1
    assert len(found) == 3


def test_who_had_the_store_has_given_up() -> None:
    """The others, who began later, say what it said last."""

    class Gone:
        looks = 0

        def set(self, key: str, value: str) -> None:
            self.own = value

        def check(self, keys: list[str]) -> bool:
            self.looks += 1
            if self.looks > 1:
                raise RuntimeError("Connection reset by peer")
            return True

        def multi_get(self, keys: list[str]) -> list[bytes]:
            offer = {"attempt": "a", "here": {"1": self.own, "2": None}, "missing": ["1", "2"]}
            return [json.dumps(offer).encode()]

    with pytest.raises(RunError, match=r"nothing was heard of rank 2\."):
        met(Gone(), 1, 3, 20.0)  # type: ignore[arg-type]


def test_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "9")
    with pytest.raises(RunError, match=r"127.0.0.1, port 9: there is no answer in 0.3 s"):
        connected(0.3)


def test_what_is_left_of_a_dead_attempt_meets_nobody(
    store: TCPStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    parents = iter([7, 7, 1])
    monkeypatch.setattr("os.getppid", lambda: next(parents))
    with pytest.raises(RunError, match="who started this one is gone"):
        met(store, 0, 2, 10.0)


def test_an_answer_that_does_not_come_is_not_waited_for() -> None:
    answers = threading.Event()
    assert answered(answers.wait, 0.1) is None
    answers.set()
    assert answered(answers.wait, 10.0) is True

    def gone() -> None:
        raise RuntimeError("Connection reset by peer")

    assert answered(gone, 10.0) is None


def test_values_that_are_there_and_not(store: TCPStore) -> None:
    store.set("a", "1")
    assert values(store, ["a", "b"]) == ["1", None]
    store.set("b", "")
    assert values(store, ["a", "b"]) == ["1", ""]


def test_many_ranks_are_some_ranks() -> None:
    assert ranks([4]) == "rank 4"
    assert ranks([*range(20)]) == "ranks 0, 1, 2, 3, 4, 5, 6, 7, ..."
