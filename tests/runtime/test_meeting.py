import threading
from typing import Any

import pytest
from torch._C._distributed_c10d import PrefixStore, TCPStore

from senet.errors import RunError
from senet.runtime.meeting import connected, met, ranks


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
    before = all_meet(store, 4)[0]
    assert {before} != {*all_meet(store, 2)} != {*all_meet(store, 3)}


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


def test_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "9")
    with pytest.raises(RunError, match=r"127.0.0.1, port 9: there is no answer in 0.3 s"):
        connected(0.3)


def test_many_ranks_are_some_ranks() -> None:
    assert ranks([4]) == "rank 4"
    assert ranks([*range(20)]) == "ranks 0, 1, 2, 3, 4, 5, 6, 7, ..."
