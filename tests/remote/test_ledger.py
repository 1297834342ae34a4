"""Does the ledger of a mirror count each file that is there, or that a living job is fetching?"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from mx8shards.remote import fetching, ledger
from mx8shards.remote.ledger import Ledger


@pytest.fixture(autouse=True)
def _known_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The snapshot has two shards. There is no index of it, which would only name them."""
    monkeypatch.setattr(Ledger, "_known_names", lambda self: iter(["a.mds", "b.mds"]))
    (tmp_path / ".mx8shards").mkdir()


def counted(root: Path) -> tuple[int, Ledger]:
    """What a new job counts."""
    found = Ledger(root)
    with found.locked(1.0):
        return found.total, found


@pytest.mark.parametrize("stored", ["a.mds", "a.mds.zstd"])
def test_a_file_whose_fetch_ends_while_files_are_counted_is_not_lost(
    stored: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size_of = ledger.size_of
    with ExitStack() as fetch:
        claim = fetch.enter_context(fetching.claimed(tmp_path, stored, 1.0))
        other = Ledger(tmp_path)
        with other.locked(1.0):
            other.enter("a.mds", 10, claim.name)

        def size_and_then_the_fetch_ends(path: Path) -> int:
            found = size_of(path)
            if path.name == "a.mds":
                path.write_bytes(bytes(10))
                fetch.close()
            return found

        monkeypatch.setattr(ledger, "size_of", size_and_then_the_fetch_ends)
        assert counted(tmp_path)[0] == 10


def test_what_a_killed_job_was_fetching_is_not_counted(tmp_path: Path) -> None:
    _, other = counted(tmp_path)
    with other.locked(1.0):
        other.enter("a.mds", 10, "a.mds")
    assert counted(tmp_path)[0] == 0


def test_a_job_without_a_limit_enters_what_it_fetches_before_any_other_job_counts(tmp_path: Path) -> None:
    other = Ledger(tmp_path, counts=False)
    with fetching.claimed(tmp_path, "a.mds", 1.0) as claim:
        with other.locked(1.0):
            other.enter("a.mds", 10, claim.name)
        total, ours = counted(tmp_path)
        assert total == 10
    with other.locked(1.0):
        other.enter("b.mds", 10, "b.mds")
    with ours.locked(1.0):
        assert ours.total == other.total == 20


def test_a_job_sees_what_others_entered_although_several_have_counted_since_it_looked(tmp_path: Path) -> None:
    """A file system may give the second new journal the inode of the one that the first has replaced."""
    (tmp_path / "b.mds").write_bytes(bytes(10))
    total, ours = counted(tmp_path)
    assert total == 10
    _, other = counted(tmp_path)
    with other.locked(1.0):
        (tmp_path / "b.mds").unlink()
        other.enter("b.mds", 0, "")
        other.enter("a.mds", 20, "a.mds")
    (tmp_path / "a.mds").write_bytes(bytes(20))
    assert counted(tmp_path)[0] == 20
    with ours.locked(1.0):
        assert (ours.total, ours.sizes[ours.number("b.mds")]) == (20, 0)


def test_a_torn_line_of_a_killed_job_swallows_no_other_entry(tmp_path: Path) -> None:
    ours, other = Ledger(tmp_path), Ledger(tmp_path)
    for each in (ours, other):
        with each.locked(1.0):
            assert each.total == 0
    with (tmp_path / ".mx8shards" / "room").open("ab") as journal:
        journal.write(b'["a.mds", 1')
    with ours.locked(1.0):
        ours.enter("b.mds", 10, "b.mds")
    with other.locked(1.0):
        assert (other.total, other.sizes[other.number("b.mds")]) == (10, 10)


@pytest.mark.parametrize("size", ["1e999", "9e18", str(1 << 63), str(1 << 62), "-1", "true", '"10"', "[" * 100_000])
def test_a_damaged_line_counts_for_nothing_and_locks_nobody_out(size: str, tmp_path: Path) -> None:
    other = Ledger(tmp_path, counts=False)
    with other.locked(1.0):
        other.enter("b.mds", 10, "b.mds")
    with (tmp_path / ".mx8shards" / "room").open("a") as journal:
        journal.write(f'["a.mds", {size}, "x"]\n')
    with other.locked(1.0):
        assert other.total == 10
    assert counted(tmp_path)[0] == 0
