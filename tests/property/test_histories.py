"""After any sequence of operations on a dataset, is every kept snapshot unchanged?"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import mx8shards as mx8
from tests import reference
from tests.fast_directory import FAST_ROOT
from tests.strategies import NUMBERED, Sample, numbered_samples, same, samples_as_read

COMPRESSIONS = st.sampled_from([None, "zstd", "gz:1"])
COUNTS = st.integers(0, 12)


class History(RuleBasedStateMachine):
    """The model: snapshot id → samples, and the current snapshot."""

    def __init__(self) -> None:
        super().__init__()
        self.place = Path(tempfile.mkdtemp(dir=FAST_ROOT))
        self.root = self.place / "data"
        self.states: dict[str, list[Sample]] = {}
        self.current = ""
        self.written = 0

    def teardown(self) -> None:
        shutil.rmtree(self.place)

    def samples(self, count: int) -> list[Sample]:
        """The next numbers of a counter, so that no two states share samples by chance."""
        self.written += count
        return numbered_samples(self.written)[self.written - count :]

    @initialize(foreign=st.booleans(), count=COUNTS, compression=COMPRESSIONS)
    def begin(self, foreign: bool, count: int, compression: str | None) -> None:
        if not foreign:
            self.publish("create", [], count, compression)
            return
        payloads = [
            {name: get_payload(encoding, sample[name]) for name, encoding in NUMBERED.items()}
            for sample in self.samples(count)
        ]
        reference.write_dataset(self.root, NUMBERED, [payloads[:5], payloads[5:]], compression=compression)
        self.current = mx8.Dataset(self.root).snapshot
        self.states[self.current] = numbered_samples(count)

    def publish(self, mode: Any, before: list[Sample], count: int, compression: str | None) -> None:
        added = self.samples(count)
        with mx8.Writer(self.root, columns=NUMBERED, mode=mode, compression=compression, size_limit=700) as writer:
            for sample in added:
                writer.write(sample)
        assert writer.snapshot is not None
        self.current = writer.snapshot
        self.states[self.current] = before + added

    @rule(count=COUNTS, compression=COMPRESSIONS)
    def append(self, count: int, compression: str | None) -> None:
        self.publish("append", self.states[self.current], count, compression)

    @rule(count=COUNTS, compression=COMPRESSIONS)
    def overwrite(self, count: int, compression: str | None) -> None:
        self.publish("overwrite", [], count, compression)

    @rule(mode=st.sampled_from(["append", "overwrite"]), count=COUNTS)
    def give_up(self, mode: Any, count: int) -> None:
        writer = mx8.Writer(self.root, columns=NUMBERED, mode=mode, size_limit=700)
        for sample in self.samples(count):
            writer.write(sample)
        writer.abandon()

    @rule(keep=st.integers(0, 3))
    def collect(self, keep: int) -> None:
        removed = mx8.gc(self.root, keep=keep)
        assert set(removed.kept) | set(removed.snapshots) <= self.states.keys()
        assert self.current not in removed.snapshots
        for snapshot in removed.snapshots:
            del self.states[snapshot]
            with pytest.raises(mx8.DatasetNotFoundError):
                mx8.Dataset(f"{self.root}@{snapshot}")

    @rule()
    def seal(self) -> None:
        report = mx8.verify(self.root, seal=True)
        assert report.ok
        self.states[report.snapshot] = self.states[self.current]
        self.current = report.snapshot
        assert mx8.Dataset(self.root).sealed

    @rule()
    def move(self) -> None:
        self.root = self.root.rename(self.place / f"moved{self.written}-{len(list(self.place.iterdir()))}")

    @rule()
    def copy(self) -> None:
        self.root = shutil.copytree(self.root, self.place / f"copy{self.written}-{len(list(self.place.iterdir()))}")

    @precondition(lambda self: len(self.states) > 1)
    @rule(data=st.data())
    def go_back(self, data: st.DataObject) -> None:
        """Replace index.json by a kept one, as a user may do."""
        kept = sorted((self.root / ".mx8shards" / "snapshots").glob("*.json"))
        chosen = data.draw(st.sampled_from(kept))
        shutil.copy(chosen, self.root / "index.json")
        self.current = f"sha256:{chosen.stem}"

    @precondition(lambda self: len(self.states[self.current]) < 100)
    @rule(data=st.data())
    def merge_with_itself(self, data: st.DataObject) -> None:
        """Merge into a new directory, which becomes the dataset; the history is not copied."""
        how = data.draw(st.sampled_from(["link", "copy"]))
        target = self.place / f"merged{len(list(self.place.iterdir()))}"
        mx8.merge([self.root, self.root], target, how=how)
        samples = self.states[self.current] * 2
        self.root = target
        self.current = mx8.Dataset(target).snapshot
        self.states = {self.current: samples}

    @invariant()
    def every_state_is_as_it_was(self) -> None:
        if not self.current:
            return
        for snapshot, samples in self.states.items():
            with mx8.Dataset(f"{self.root}@{snapshot}", verify="shard") as dataset:
                assert same(list(dataset), samples_as_read(NUMBERED, samples))
        with mx8.Dataset(self.root) as dataset:
            assert dataset.snapshot == self.current
            if len(dataset):
                assert dataset.column("id").tolist() == [sample["id"] for sample in self.states[self.current]]
        report = mx8.verify(self.root, data=True)
        assert report.ok, report


def get_payload(encoding: str, value: Any) -> bytes:
    from mx8shards.format.encodings import get_encoding

    return get_encoding(encoding).encode(value)


@pytest.mark.parametrize(
    ("histories", "steps"),
    [(5, 6), *(pytest.param(12, 15, id=f"hunt{i}", marks=pytest.mark.hunt) for i in range(25))],
)
def test_every_published_snapshot_stays_unchanged_through_any_history(histories: int, steps: int) -> None:
    run_state_machine_as_test(
        History,
        settings=hypothesis.settings(max_examples=histories, stateful_step_count=steps),
    )
