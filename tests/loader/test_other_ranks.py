"""Do ranks hear of each other's outages through torch's key-value store, whatever becomes of the store?"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from mx8shards.errors import RemoteError
from mx8shards.loading.execution.other_ranks import OtherRanks
from tests.forked import forked
from tests.remote.deadlines import in_time
from tests.waiting import wait_until

dist: Any = pytest.importorskip("torch.distributed")

Begin = Callable[..., OtherRanks]


@pytest.fixture
def begin() -> Iterator[Begin]:
    """Begins a run of a rank over equal samples."""
    with ExitStack() as ends:

        def begin(store: Any, rank: int) -> OtherRanks:
            run = OtherRanks(store, "run", rank)
            ends.callback(run.stop)
            run.start()
            return run

        yield begin


@pytest.fixture
def served() -> Iterator[tuple[int, int]]:
    """The id of a process that serves a key-value store, and its port."""
    reader, writer = os.pipe()

    def serve() -> None:
        server = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        os.write(writer, f"{server.port}\n".encode())
        signal.pause()

    process = forked(serve)
    os.close(writer)
    with os.fdopen(reader) as said:
        yield process, int(said.readline())
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)


def failure(who: int) -> RemoteError:
    return RemoteError(f"no connection of rank {who}", subject="s3://data/set", reason="denied")


def test_all_ranks_hear_the_first_failure(begin: Begin) -> None:
    store = dist.HashStore()
    ranks = [begin(store, rank) for rank in range(3)]
    assert [rank.look() for rank in ranks] == [None] * 3
    ranks[1].tell(failure(1))
    ranks[2].tell(failure(2))
    heard = ranks[0].look()
    assert str(heard) == "s3://data/set: no connection of rank 1 (seen by rank 1)"
    assert heard is not None
    assert heard.reason == "denied"


def test_a_failure_is_heard_without_asking_for_it(begin: Begin) -> None:
    store = dist.HashStore()
    waiting = begin(store, 0)
    begin(store, 1).tell(failure(1))
    wait_until(lambda: waiting.failure is not None)


def test_a_rank_that_resumes_at_once_does_not_hear_failures_of_the_attempt_before(begin: Begin) -> None:
    store = dist.HashStore()
    first = [begin(store, rank) for rank in range(3)]
    first[0].tell(failure(0))
    again = [begin(store, 0)]
    assert again[0].look() is None
    first[1].tell(failure(1))  # it had the same outage, but later
    again.append(begin(store, 1))
    assert [rank.look() for rank in again] == [None] * 2
    assert first[2].look() is not None
    again[0].tell(failure(0))
    assert again[1].look() is not None, "a failure of their own attempt is heard"


def test_a_failure_that_is_told_late_does_not_fail_the_next_run_of_its_own_rank(begin: Begin) -> None:
    store = dist.HashStore()
    late, other = begin(store, 0), begin(store, 1)
    again = begin(store, 0)
    assert again.look() is None
    late.tell(failure(0))
    assert again.look() is None
    assert other.look() is not None
    begin(store, 1).tell(failure(1))
    assert again.look() is not None


def test_no_rank_waits_for_a_store_whose_process_is_stopped(begin: Begin, served: tuple[int, int]) -> None:
    process, port = served
    stores = [dist.TCPStore("127.0.0.1", port) for _ in range(2)]
    ranks = [begin(store, rank) for rank, store in enumerate(stores)]
    assert [rank.look() for rank in ranks] == [None] * 2
    os.kill(process, signal.SIGSTOP)
    assert in_time(ranks[0].look) is None
    in_time(lambda: ranks[1].tell(failure(1)))
    new = in_time(lambda: begin(stores[0], 0))
    assert new.failure is None
    os.kill(process, signal.SIGCONT)
    wait_until(lambda: ranks[0].failure is not None)


def test_a_store_that_is_gone_is_no_error(begin: Begin, served: tuple[int, int]) -> None:
    process, port = served
    rank = begin(dist.TCPStore("127.0.0.1", port), 0)
    assert rank.look() is None
    os.kill(process, signal.SIGKILL)
    assert in_time(rank.look) is None
    in_time(lambda: rank.tell(failure(0)))
    wait_until(lambda: rank._thread is None or not rank._thread.is_alive())


def test_without_other_ranks_nobody_is_asked(begin: Begin) -> None:
    alone = begin(None, 0)
    alone.tell(failure(0))
    assert alone.look() is None
