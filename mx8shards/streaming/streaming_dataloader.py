"""The StreamingDataLoader class: a DataLoader that counts samples, so that it has a state."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader

from mx8shards.errors import SettingError
from mx8shards.streaming.streaming_dataset import StreamingDataset
from mx8shards.streaming.world import World


class StreamingDataLoader(DataLoader[Any]):
    """A DataLoader of a StreamingDataset, whose state resumes within an epoch. It takes a DataLoader's arguments."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.num_samples_yielded = 0
        if isinstance(self.dataset, StreamingDataset):
            # Lightning restores no loader that was saved at the end of an epoch, but sets the epoch of its sampler.
            vars(self.sampler)["set_epoch"] = self.dataset.set_epoch

    def _get_batch_size(self, batch: Any) -> int:
        """The number of samples of a batch. Subclasses override it for batches of another form."""
        if isinstance(batch, Mapping):
            if not batch:
                raise SettingError(subject="batch", expected="a mapping with values", found="an empty one")
            return len(next(iter(batch.values())))
        return len(batch) if isinstance(batch, Tensor) else len(batch[0])

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # torch promises its own class
        """The batches of the next epoch."""
        self.num_samples_yielded = 0
        for batch in super().__iter__():
            self.num_samples_yielded += self._get_batch_size(batch)
            yield batch

    def state_dict(self) -> dict[str, Any] | None:
        """The state after the last batch; None for another dataset than a StreamingDataset."""
        if not isinstance(self.dataset, StreamingDataset):
            return None
        samples = self.num_samples_yielded * World.detect().num_ranks // (self.dataset.replication or 1)
        return self.dataset.state_dict(samples, from_beginning=False)

    def set_epoch(self, epoch: int) -> None:
        """Make the next iteration this epoch, as `StreamingDataset.set_epoch` does.

        Args:
            epoch: Its number, from 0.
        """
        if isinstance(self.dataset, StreamingDataset):
            self.dataset.set_epoch(epoch)

    def load_state_dict(self, obj: Mapping[str, Any]) -> None:
        """Resume from a state.

        Args:
            obj: The state, of this class or of Streaming's.
        """
        if isinstance(self.dataset, StreamingDataset):
            self.dataset.load_state_dict(obj)
