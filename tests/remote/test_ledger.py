"""Does the ledger of a mirror count each file that is there, or that a living job is fetching?"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from mx8shards.remote import fetching, ledger
from mx8shards.remote.ledger import Ledger


def test_a_file_whose_fetch_ends_while_files_are_counted_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size_of = ledger._size_of
    with ExitStack() as fetch:
        fetch.enter_context(fetching.claimed(tmp_path, "a.mds", 1.0))
        other = Ledger(tmp_path)
        with other.locked(1.0):
            other.enter("a.mds", 10)

        def size_and_then_the_fetch_ends(path: Path) -> int:
            found = size_of(path)
            path.write_bytes(bytes(10))
            fetch.close()
            return found

        monkeypatch.setattr(Ledger, "_known_names", lambda self: iter(["a.mds"]))
        monkeypatch.setattr(ledger, "_size_of", size_and_then_the_fetch_ends)
        ours = Ledger(tmp_path)
        with ours.locked(1.0):
            assert ours.total == 10
