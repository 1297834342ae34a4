"""Does the user learn that a store does not answer, long before the deadline?"""

from __future__ import annotations

import logging
import threading

import pytest

from mx8shards.errors import RemoteError
from mx8shards.remote import retries, wait_notices
from tests.waiting import wait_until


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "NOTICE_AFTER_S", 0.05)
    monkeypatch.setattr(wait_notices, "NOTICE_AFTER_S", 0.05)
    monkeypatch.setattr(wait_notices, "_told_at", {})


def fail(_left_s: float) -> None:
    raise RemoteError("no connection", subject="s3://b/k", reason="network")


def test_a_store_that_is_asked_again_and_again_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        with pytest.raises(RemoteError, match="attempts in 1 s"):
            retries.until_deadline(fail, 1, threading.Event())
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("s3://b/k: no connection: it is tried again, for ")
    assert caplog.records[0].levelno == logging.WARNING


def test_an_answer_that_takes_long_is_told_while_it_is_awaited(caplog: pytest.LogCaptureFixture) -> None:
    with wait_notices.told_if_slow("s3://b/index.json"):
        wait_until(lambda: bool(caplog.messages))
    assert caplog.messages == ["waiting for s3://b/index.json"]


def test_a_quick_answer_is_not_told(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wait_notices, "NOTICE_AFTER_S", 600.0)
    before = set(threading.enumerate())
    with wait_notices.told_if_slow("s3://b/index.json"):
        pass
    timers = [each for each in threading.enumerate() if isinstance(each, threading.Timer) and each not in before]
    wait_until(lambda: not any(timer.is_alive() for timer in timers))
    assert not caplog.messages
