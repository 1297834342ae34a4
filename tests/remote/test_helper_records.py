"""Are helpers that have ended reaped, whatever keeps a process from looking at them?"""

from __future__ import annotations

import ctypes
import os
import resource
from collections.abc import Callable
from pathlib import Path

from mx8shards.remote.helper_records import HelperRecords
from tests.forked import forked, in_fork

_PR_SET_NAME = 15


def zombie(records: HelperRecords, prepare: Callable[[], object] = lambda: None) -> Path:
    """A recorded child that has ended: its place in /proc, which it leaves when it is reaped."""

    def work() -> None:
        prepare()
        records.add_this_process()

    child = forked(work)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    return Path(f"/proc/{child}")


def test_a_helper_is_reaped_later_if_no_descriptor_is_left() -> None:
    def run() -> list[bool]:
        records = HelperRecords(os.memfd_create("records"))
        place = zombie(records)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
        records.reap()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        was_there = place.exists()
        records.reap()
        return [was_there, place.exists()]

    assert in_fork(run) == [True, False]


def test_a_process_may_have_a_name_that_is_no_text() -> None:
    records = HelperRecords(os.memfd_create("records"))
    place = zombie(records, lambda: ctypes.CDLL(None).prctl(_PR_SET_NAME, b"\xff) Z"))
    records.reap()
    assert not place.exists()
