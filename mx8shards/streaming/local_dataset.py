"""The LocalDataset class: a local dataset as a torch map-style dataset."""

from __future__ import annotations

from typing import Any

from torch.utils.data import Dataset

from mx8shards.streaming.all_samples import AllSamples
from mx8shards.streaming.dataset_facts import SampleFacts
from mx8shards.streaming.stream import Stream
from mx8shards.streaming.stream_opening import open_streams


class LocalDataset(SampleFacts, Dataset[Any]):
    """A local dataset as a sequence. Its shards may be compressed.

    Args:
        local: The directory of the dataset.
        split: A sub-directory of it.
        allow_unsafe_types: Also read columns whose decoding runs code (`pkl`).
    """

    def __init__(self, local: str, split: str | None = None, *, allow_unsafe_types: bool = False) -> None:
        self.local = local
        self.split = split or ""
        stream = Stream(local=local, split=split)
        self._samples = AllSamples(open_streams([stream], cache_limit=None, allow_unsafe_types=allow_unsafe_types))

    def __len__(self) -> int:
        return len(self._samples)

    def get_item(self, sample_id: int) -> dict[str, Any]:
        """One sample.

        Args:
            sample_id: Its number.
        """
        return self._samples[sample_id]

    _plain_get_item = get_item
