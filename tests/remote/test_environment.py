"""Which environment variables does the helper process take over?"""

from __future__ import annotations

import os

import pytest

from mx8shards.remote import environment


def test_only_what_stores_read_is_taken_over_and_what_is_gone_is_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    before = environment.of_stores()
    monkeypatch.setattr(os, "environ", os.environ.copy())
    wanted = dict.fromkeys(("AWS_PROFILE", "HF_TOKEN", "https_proxy", "NO_PROXY", "GOOGLE_BUCKET", "HOME"), "x")
    for name in ("AWS_REGION", "LOCAL_RANK", "PYTHONPATH"):
        os.environ[name] = "y"
    environment.adopt(wanted)
    assert environment.of_stores() == wanted
    assert (os.environ["LOCAL_RANK"], os.environ["PYTHONPATH"]) == ("y", "y")
    environment.adopt(before)
    assert environment.of_stores() == before


def test_a_variable_that_is_equal_already_is_not_set_again(monkeypatch: pytest.MonkeyPatch) -> None:
    class Unchanging(dict[str, str]):
        def __setitem__(self, name: str, value: str) -> None:
            pytest.fail(f"{name} is set")

    with monkeypatch.context() as patch:
        patch.setattr(os, "environ", Unchanging(os.environ))
        environment.adopt(environment.of_stores())
